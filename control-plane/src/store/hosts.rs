//! Ownership of hosts: default, extra and tag hosts of all services in one table, whose primary key
//! keeps them unique.

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};

use crate::domain::{HostName, Reason, ServiceId};

use super::entity::{hosts, services};
use super::row::ServiceRow;
use super::write::WriteTx;
use super::{Error, Store};

/// The origin of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostKind {
    /// `NAME.DOMAIN`
    Default,
    /// Added by the user.
    Extra,
    /// `TAG--NAME.DOMAIN`
    Tag,
}

impl HostKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Extra => "extra",
            Self::Tag => "tag",
        }
    }
}

/// Hosts per statement: SQLite takes 32 766 parameters.
const BATCH: usize = 5000;

impl Store {
    /// Logs the extra hosts that belong to the services of the domain. A database from before they
    /// were refused, or of another domain, may have some.
    pub(super) async fn warn_of_foreign_hosts(&self) -> Result<(), Error> {
        let domain = &self.inner.domain;
        let found = hosts::Entity::find()
            .find_also_related(services::Entity)
            .filter(hosts::Column::Kind.eq(HostKind::Extra.as_str()))
            .filter(hosts::Column::Host.ends_with(domain.as_str()))
            .order_by_asc(hosts::Column::Host)
            .all(self.reader())
            .await?;
        for (row, owner) in found {
            if HostName::parse(row.host.as_str()).is_ok_and(|host| domain.owns(&host)) {
                tracing::warn!(
                    host = row.host,
                    service.name = owner.map(|owner| owner.name),
                    "an additional host of this service belongs to the services of the domain, so \
                     the service of that name cannot be created: remove the host"
                );
            }
        }
        Ok(())
    }
}

impl WriteTx {
    /// Assigns new hosts to a service.
    pub(super) async fn claim_hosts(
        &self,
        service_uid: &str,
        kind: HostKind,
        hosts: &[HostName],
    ) -> Result<(), Error> {
        for batch in hosts.chunks(BATCH) {
            self.check_unclaimed(batch).await?;
            let rows = batch.iter().map(|host| hosts::ActiveModel {
                host: Set(host.as_str().to_owned()),
                service_uid: Set(service_uid.to_owned()),
                kind: Set(kind.as_str().to_owned()),
            });
            hosts::Entity::insert_many(rows)
                .exec_without_returning(&self.db)
                .await?;
        }
        Ok(())
    }

    /// Replaces the hosts of one kind.
    pub(super) async fn replace_hosts(
        &self,
        service_uid: &str,
        kind: HostKind,
        hosts: &[HostName],
    ) -> Result<(), Error> {
        hosts::Entity::delete_many()
            .filter(hosts::Column::ServiceUid.eq(service_uid))
            .filter(hosts::Column::Kind.eq(kind.as_str()))
            .exec(&self.db)
            .await?;
        self.claim_hosts(service_uid, kind, hosts).await
    }

    async fn check_unclaimed(&self, hosts: &[HostName]) -> Result<(), Error> {
        let taken = hosts::Entity::find()
            .find_also_related(services::Entity)
            .filter(hosts::Column::Host.is_in(hosts.iter().map(HostName::as_str)))
            .order_by_asc(hosts::Column::Host)
            .one(&self.db)
            .await?;
        let Some((row, owner)) = taken else {
            return Ok(());
        };
        let corrupt = |reason: Reason| Error::Database(format!("hosts: {reason}"));
        let owner = owner.map(|owner| owner.name).unwrap_or_default();
        let owner = ServiceId::parse(owner).map_err(corrupt)?;
        Err(Error::HostTaken {
            host: HostName::parse(row.host).map_err(corrupt)?,
            owner: Some(owner).filter(|owner| self.by.principal.allows_service(owner)),
        })
    }

    /// The hosts of a service's tags.
    pub(super) fn tag_hosts(&self, row: &ServiceRow) -> Result<Vec<HostName>, Error> {
        row.split
            .tags()
            .map(|(tag, _)| self.inner.domain.tag_host(tag, &row.service.id))
            .collect::<Result<_, _>>()
            .map_err(|reason| Error::Database(format!("a tag does not fit its host: {reason}")))
    }

    /// Rebuilds default and tag hosts, which depend on the domain.
    pub(super) async fn rebuild_hosts(&self) -> Result<(), Error> {
        hosts::Entity::delete_many()
            .filter(hosts::Column::Kind.ne(HostKind::Extra.as_str()))
            .exec(&self.db)
            .await?;
        for model in services::Entity::find().all(&self.db).await? {
            let row = ServiceRow::new(model, &self.inner.domain)?;
            let default = std::slice::from_ref(&row.service.default_host);
            self.claim_hosts(&row.model.uid, HostKind::Default, default)
                .await?;
            self.claim_hosts(&row.model.uid, HostKind::Tag, &self.tag_hosts(&row)?)
                .await?;
        }
        Ok(())
    }
}
