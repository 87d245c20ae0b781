//! Who owns a host: default, extra and tag hosts of all services in one table, whose primary key keeps them unique.

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};

use crate::domain::{HostName, Reason, ServiceId};

use super::Error;
use super::entity::{hosts, services};
use super::row::ServiceRow;
use super::write::WriteTx;

/// Why a service has a host.
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

/// Parameters of one statement: SQLite takes 32 766.
const BATCH: usize = 5000;

impl WriteTx {
    /// Gives a service new hosts.
    pub(super) async fn take_hosts(
        &self,
        service_uid: &str,
        kind: HostKind,
        wanted: &[HostName],
    ) -> Result<(), Error> {
        for batch in wanted.chunks(BATCH) {
            self.refuse_taken(batch).await?;
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
        wanted: &[HostName],
    ) -> Result<(), Error> {
        hosts::Entity::delete_many()
            .filter(hosts::Column::ServiceUid.eq(service_uid))
            .filter(hosts::Column::Kind.eq(kind.as_str()))
            .exec(&self.db)
            .await?;
        self.take_hosts(service_uid, kind, wanted).await
    }

    async fn refuse_taken(&self, wanted: &[HostName]) -> Result<(), Error> {
        let taken = hosts::Entity::find()
            .find_also_related(services::Entity)
            .filter(hosts::Column::Host.is_in(wanted.iter().map(HostName::as_str)))
            .order_by_asc(hosts::Column::Host)
            .one(&self.db)
            .await?;
        let Some((row, owner)) = taken else {
            return Ok(());
        };
        let foreign = |reason: Reason| Error::Database(format!("hosts: {reason}"));
        let owner = owner.map(|owner| owner.name).unwrap_or_default();
        Err(Error::HostTaken {
            host: HostName::parse(row.host).map_err(foreign)?,
            owner: ServiceId::parse(owner).map_err(foreign)?,
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

    /// Derives default and tag hosts anew: they change with the domain.
    pub(super) async fn rebuild_hosts(&self) -> Result<(), Error> {
        hosts::Entity::delete_many()
            .filter(hosts::Column::Kind.ne(HostKind::Extra.as_str()))
            .exec(&self.db)
            .await?;
        for model in services::Entity::find().all(&self.db).await? {
            let row = ServiceRow::new(model, &self.inner.domain)?;
            let default = std::slice::from_ref(&row.service.default_host);
            self.take_hosts(&row.model.uid, HostKind::Default, default)
                .await?;
            self.take_hosts(&row.model.uid, HostKind::Tag, &self.tag_hosts(&row)?)
                .await?;
        }
        Ok(())
    }
}
