//! Queries and writes of services.

use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect,
};
use uuid::Uuid;

use crate::domain::{
    self, Domain, HostName, Service, ServiceId, ServicePatch, TrafficSplit, Violations, name,
};

use super::audited_change::AuditedChange;
use super::entity::services;
use super::hosts::HostKind;
use super::idempotency::IdempotencyKey;
use super::row::{self, ServiceRow};
use super::types::{NewService, Page, WriteOptions, Written};
use super::write::{WriteOutcome, WriteTx, write_span};
use super::{Error, Store};

/// The resource type in errors.
const KIND: &str = "cless.v1.Service";

/// Finds a service with its traffic.
pub(super) async fn find(
    db: &impl ConnectionTrait,
    domain: &Domain,
    id: &ServiceId,
) -> Result<ServiceRow, Error> {
    let model = services::Entity::find()
        .filter(services::Column::Name.eq(id.as_str()))
        .one(db)
        .await?
        .ok_or_else(|| not_found(id))?;
    ServiceRow::new(model, domain)
}

pub(super) fn not_found(id: &ServiceId) -> Error {
    Error::NotFound {
        kind: KIND,
        name: name::service(id),
    }
}

/// Refuses a write based on an older state of the resource.
pub(super) fn check_etag(name: String, given: Option<&str>, found: &str) -> Result<(), Error> {
    if given.is_some_and(|given| given != found) {
        return Err(Error::EtagMismatch {
            name,
            found: found.to_owned(),
        });
    }
    Ok(())
}

/// Refuses extra hosts that repeat each other or belong to the services of the domain. Those that
/// the service holds already are kept.
fn check_extra(
    domain: &Domain,
    default: &HostName,
    extra: &[HostName],
    held: &[HostName],
) -> Result<(), domain::Error> {
    let mut violations = Violations::new();
    let mut seen = std::collections::BTreeSet::new();
    for (index, host) in extra.iter().enumerate() {
        if host == default {
            violations.push(
                format!("service.hosts[{index}]"),
                format!("{host} is the default host, which is always routed: leave it out"),
            );
        } else if domain.owns(host) && !held.contains(host) {
            violations.push(
                format!("service.hosts[{index}]"),
                format!(
                    "{host} belongs to the services of the domain {domain}, as `NAME.{domain}` and `TAG--NAME.{domain}`: create the service of that name, or choose a host outside"
                ),
            );
        } else if !seen.insert(host) {
            violations.push(
                format!("service.hosts[{index}]"),
                format!("{host} is given twice: leave one out"),
            );
        }
    }
    violations.finish()
}

impl WriteTx {
    pub(super) async fn service(&self, id: &ServiceId) -> Result<ServiceRow, Error> {
        find(&self.db, &self.inner.domain, id).await
    }

    /// Finds a service by uid; `id` names it in the error.
    pub(super) async fn service_by_uid(
        &self,
        uid: &str,
        id: &ServiceId,
    ) -> Result<ServiceRow, Error> {
        let model = services::Entity::find_by_id(uid)
            .one(&self.db)
            .await?
            .ok_or_else(|| not_found(id))?;
        ServiceRow::new(model, &self.inner.domain)
    }

    /// Refuses hosts that the scope of the principal does not permit. Those that the service holds
    /// already are kept.
    fn check_permitted(&self, hosts: &[HostName], held: &[HostName]) -> Result<(), Error> {
        let principal = &self.by.principal;
        let mut others = hosts.iter().filter(|host| !held.contains(host));
        match others.find(|host| !principal.allows_host(host)) {
            None => Ok(()),
            Some(host) => Err(Error::HostForbidden {
                host: host.clone(),
                principal: principal.to_string(),
            }),
        }
    }

    /// Updates the columns that are set, and the revision.
    pub(super) async fn save_service(
        &self,
        mut change: services::ActiveModel,
    ) -> Result<ServiceRow, Error> {
        change.revision = Set(self.revision());
        ServiceRow::new(change.update(&self.db).await?, &self.inner.domain)
    }

    async fn create_service(
        &mut self,
        new: NewService,
        key: Option<IdempotencyKey>,
    ) -> Result<WriteOutcome<Service>, Error> {
        if let Some(first) = self.first_result(key.as_ref()).await? {
            let row = self.service_by_uid(&first.service_uid, &new.id).await?;
            return Ok(WriteOutcome::Replayed(row.service, first.revision));
        }
        match self.service(&new.id).await {
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                return Err(Error::AlreadyExists {
                    kind: KIND,
                    name: name::service(&new.id),
                });
            }
        }
        let default = self.inner.domain.service_host(&new.id);
        check_extra(&self.inner.domain, &default, &new.hosts, &[])?;
        self.check_permitted(&new.hosts, &[])?;
        let model = services::Model {
            uid: Uuid::now_v7().to_string(),
            name: new.id.as_str().to_owned(),
            hosts: row::write(&new.hosts)?,
            settings: row::write(&new.settings)?,
            labels: row::write(&new.labels)?,
            etag: 1,
            create_time: self.now.micros(),
            update_time: self.now.micros(),
            revision: self.revision(),
            next_version: 1,
            traffic_revision: 0,
            traffic_time: self.now.micros(),
            traffic_feed_revision: self.revision(),
            targets: row::write(&TrafficSplit::default())?,
            slots: None,
        };
        services::Entity::insert(model.clone().into_active_model())
            .exec_without_returning(&self.db)
            .await?;
        self.claim_hosts(&model.uid, HostKind::Default, &[default])
            .await?;
        self.claim_hosts(&model.uid, HostKind::Extra, &new.hosts)
            .await?;
        self.save_first_result(key, &model.uid, 0).await?;
        let row = ServiceRow::new(model, &self.inner.domain)?;
        self.store_route(&row, Vec::new()).await?;
        let change = AuditedChange::service(&new.id, None, Some(&row.service))?;
        Ok(WriteOutcome::Changed(row.service, change))
    }

    async fn update_service(
        &mut self,
        id: &ServiceId,
        etag: Option<&str>,
        patch: ServicePatch,
        key: Option<IdempotencyKey>,
    ) -> Result<WriteOutcome<Service>, Error> {
        if let Some(first) = self.first_result(key.as_ref()).await? {
            let row = self.service_by_uid(&first.service_uid, id).await?;
            return Ok(WriteOutcome::Replayed(row.service, first.revision));
        }
        let row = self.service(id).await?;
        let before = row.service.clone();
        check_etag(name::service(id), etag, &row.service.etag)?;
        let mut change = services::ActiveModel {
            uid: Set(row.model.uid.clone()),
            etag: Set(row.model.etag + 1),
            update_time: Set(self.now.micros()),
            ..Default::default()
        };
        if let Some(settings) = &patch.settings {
            let settings = row.service.settings.patched("service.settings", settings)?;
            change.settings = Set(row::write(&settings)?);
        }
        if let Some(labels) = &patch.labels {
            change.labels = Set(row::write(labels)?);
        }
        if let Some(hosts) = &patch.hosts {
            let service = &row.service;
            check_extra(
                &self.inner.domain,
                &service.default_host,
                hosts,
                &service.hosts,
            )?;
            self.check_permitted(hosts, &service.hosts)?;
            self.replace_hosts(&row.model.uid, HostKind::Extra, hosts)
                .await?;
            change.hosts = Set(row::write(hosts)?);
        }
        let row = self.save_service(change).await?;
        self.save_first_result(key, &row.model.uid, 0).await?;
        self.refresh_route(&row).await?;
        let change = AuditedChange::service(id, Some(&before), Some(&row.service))?;
        Ok(WriteOutcome::Changed(row.service, change))
    }

    async fn delete_service(
        &mut self,
        id: &ServiceId,
        etag: Option<&str>,
        key: Option<IdempotencyKey>,
    ) -> Result<WriteOutcome<()>, Error> {
        if let Some(first) = self.first_result(key.as_ref()).await? {
            return Ok(WriteOutcome::Replayed((), first.revision));
        }
        let row = self.service(id).await?;
        check_etag(name::service(id), etag, &row.service.etag)?;
        self.remove_route(&row.service.uid).await?;
        self.save_first_result(key, &row.model.uid, 0).await?;
        // Foreign keys delete its hosts, versions and history.
        services::Entity::delete_by_id(row.model.uid.as_str())
            .exec(&self.db)
            .await?;
        let change = AuditedChange::service(id, Some(&row.service), None)?;
        Ok(WriteOutcome::Changed((), change))
    }
}

impl Store {
    /// Creates a service without traffic.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::HostTaken`], [`Error::Invalid`] (a repeated host),
    /// [`Error::RequestIdReused`], [`Error::RouteTooLarge`].
    pub async fn create_service(
        &self,
        new: NewService,
        options: WriteOptions,
    ) -> Result<Written<Service>, Error> {
        let content = (&new.id, &new.hosts, &new.settings, &new.labels);
        let key = IdempotencyKey::new(&options, "CreateService", &content)?;
        let span = write_span!("create_service", service = %new.id);
        self.write(span, options, move |tx| {
            Box::pin(tx.create_service(new, key))
        })
        .await
    }

    /// Reads a service.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_service(&self, id: &ServiceId) -> Result<Service, Error> {
        let row = find(self.reader(), &self.inner.domain, id).await?;
        Ok(row.service)
    }

    /// Lists services by id, at most `limit` of those after `after`.
    pub async fn list_services(
        &self,
        limit: u32,
        after: Option<&ServiceId>,
    ) -> Result<Page<Service>, Error> {
        let mut query = services::Entity::find().order_by_asc(services::Column::Name);
        if let Some(after) = after {
            query = query.filter(services::Column::Name.gt(after.as_str()));
        }
        let found = query.limit(u64::from(limit) + 1).all(self.reader()).await?;
        Page::cut(found, limit, |model| {
            Ok(ServiceRow::new(model, &self.inner.domain)?.service)
        })
    }

    /// Updates hosts, labels or settings.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], [`Error::HostTaken`], [`Error::Invalid`]
    /// (contradictory settings, a repeated host), [`Error::RouteTooLarge`].
    pub async fn update_service(
        &self,
        id: &ServiceId,
        etag: Option<&str>,
        patch: ServicePatch,
        options: WriteOptions,
    ) -> Result<Written<Service>, Error> {
        let content = (id, etag, &patch);
        let key = IdempotencyKey::new(&options, "UpdateService", &content)?;
        let span = write_span!("update_service", service = %id);
        let (id, etag) = (id.clone(), etag.map(str::to_owned));
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.update_service(&id, etag.as_deref(), patch, key).await })
        })
        .await
    }

    /// Deletes a service with its versions, traffic and history.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`].
    pub async fn delete_service(
        &self,
        id: &ServiceId,
        etag: Option<&str>,
        options: WriteOptions,
    ) -> Result<Written<()>, Error> {
        let key = IdempotencyKey::new(&options, "DeleteService", &(id, etag))?;
        let span = write_span!("delete_service", service = %id);
        let (id, etag) = (id.clone(), etag.map(str::to_owned));
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.delete_service(&id, etag.as_deref(), key).await })
        })
        .await
    }
}
