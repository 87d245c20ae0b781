//! Queries and writes of versions. Only the image that a version is resolved to, its verification
//! and whether it has carried traffic change.

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, IntoActiveModel,
    QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use crate::domain::{
    Domain, ImageDigest, ServiceId, Timestamp, Uid, Version, VersionNumber, VersionSpec, name,
};

use super::audited_change::AuditedChange;
use super::entity::{services, versions};
use super::idempotency::IdempotencyKey;
use super::row::{self, ServiceRow};
use super::services::{check_etag, find, not_found as service_not_found};
use super::types::{Page, Resolution, WriteOptions, Written};
use super::write::{WriteOutcome, WriteTx, write_span};
use super::{Error, Store, connection};

/// The resource type in errors.
pub(super) const KIND: &str = "cless.v1.Version";

pub(super) fn not_found(service: &ServiceId, number: VersionNumber) -> Error {
    Error::NotFound {
        kind: KIND,
        name: name::version(service, number),
    }
}

/// A version and its service.
pub(super) struct FoundVersion {
    pub(super) version: Version,
    pub(super) service: ServiceRow,
    pub(super) model: versions::Model,
}

fn from_rows(
    domain: &Domain,
    (model, service): (versions::Model, Option<services::Model>),
) -> Result<FoundVersion, Error> {
    let service = service
        .ok_or_else(|| Error::Database(format!("the version {} has no service", model.uid)))?;
    let service = ServiceRow::new(service, domain)?;
    Ok(FoundVersion {
        version: service.version(model.clone())?,
        service,
        model,
    })
}

async fn find_version(
    db: &impl ConnectionTrait,
    domain: &Domain,
    service: &ServiceId,
    number: VersionNumber,
) -> Result<FoundVersion, Error> {
    let rows = versions::Entity::find()
        .find_also_related(services::Entity)
        .filter(services::Column::Name.eq(service.as_str()))
        .filter(versions::Column::Number.eq(number.get()))
        .one(db)
        .await?
        .ok_or_else(|| not_found(service, number))?;
    from_rows(domain, rows)
}

/// Finds versions with a pending verification, nearest deadline first.
pub(super) async fn find_pending(
    db: &impl ConnectionTrait,
    domain: &Domain,
) -> Result<Vec<Version>, Error> {
    versions::Entity::find()
        .find_also_related(services::Entity)
        .filter(versions::Column::VerifyDeadline.is_not_null())
        .order_by_asc(versions::Column::VerifyDeadline)
        .all(db)
        .await?
        .into_iter()
        .map(|rows| Ok(from_rows(domain, rows)?.version))
        .collect()
}

impl WriteTx {
    pub(super) async fn version(
        &self,
        service: &ServiceId,
        number: VersionNumber,
    ) -> Result<FoundVersion, Error> {
        find_version(&self.db, &self.inner.domain, service, number).await
    }

    pub(super) async fn version_by_uid(&self, uid: &Uid) -> Result<FoundVersion, Error> {
        let rows = versions::Entity::find_by_id(uid.as_str())
            .find_also_related(services::Entity)
            .one(&self.db)
            .await?
            .ok_or_else(|| Error::NotFound {
                kind: KIND,
                name: format!("the version with the uid {uid}"),
            })?;
        from_rows(&self.inner.domain, rows)
    }

    /// Updates the columns that are set.
    pub(super) async fn save_version(
        &self,
        service: &ServiceRow,
        change: versions::ActiveModel,
    ) -> Result<Version, Error> {
        service.version(change.update(&self.db).await?)
    }

    /// Updates the revision of the service.
    pub(super) async fn touch_service(&self, service: &ServiceRow) -> Result<ServiceRow, Error> {
        self.save_service(services::ActiveModel {
            uid: Set(service.model.uid.clone()),
            ..Default::default()
        })
        .await
    }

    /// The version that the first request with this key wrote, if this one is a repeat.
    pub(super) async fn replayed_version(
        &self,
        service: &ServiceId,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<WriteOutcome<Version>>, Error> {
        let Some(first) = self.first_result(key).await? else {
            return Ok(None);
        };
        let row = self.service_by_uid(&first.service_uid, service).await?;
        let number = VersionNumber::new(first.number)
            .map_err(|reason| Error::Database(format!("request_ids.number: {reason}")))?;
        let version = versions::Entity::find()
            .filter(versions::Column::ServiceUid.eq(first.service_uid.as_str()))
            .filter(versions::Column::Number.eq(first.number))
            .one(&self.db)
            .await?
            .ok_or_else(|| not_found(service, number))?;
        Ok(Some(WriteOutcome::Replayed(
            row.version(version)?,
            first.revision,
        )))
    }

    async fn create_version(
        &mut self,
        service: &ServiceId,
        spec: VersionSpec,
        resolution: Option<Resolution>,
        key: Option<IdempotencyKey>,
    ) -> Result<WriteOutcome<Version>, Error> {
        if let Some(replayed) = self.replayed_version(service, key.as_ref()).await? {
            return Ok(replayed);
        }
        let (image, digest) = match resolution {
            Some(Resolution { image, digest }) => (Some(image), digest),
            None => (None, None),
        };
        // One statement finds the service and takes the number.
        let taken = services::Entity::update_many()
            .col_expr(
                services::Column::NextVersion,
                Expr::col(services::Column::NextVersion).add(1),
            )
            .col_expr(services::Column::Revision, Expr::value(self.revision()))
            .filter(services::Column::Name.eq(service.as_str()))
            .exec_with_returning(&self.db)
            .await?
            .pop()
            .ok_or_else(|| service_not_found(service))?;
        let row = ServiceRow::new(taken, &self.inner.domain)?;
        let model = versions::Model {
            uid: Uuid::now_v7().to_string(),
            service_uid: row.model.uid.clone(),
            number: row.model.next_version - 1,
            spec: row::write(&spec)?,
            image_digest: digest.map(|digest| digest.to_string()),
            etag: 1,
            create_time: self.now.micros(),
            verification: None,
            verify_deadline: None,
            carried_traffic: false,
            resolved_image: image.as_ref().map(row::write).transpose()?,
            image_generation: 0,
        };
        self.db
            .defer(versions::Entity::insert(model.clone().into_active_model()))
            .await?;
        self.save_first_result(key, &row.model.uid, model.number)
            .await?;
        // The new version is unreachable, so the route does not change.
        self.record_change(&row.service.uid, super::RouteOp::None);
        let version = row.version(model)?;
        let change = AuditedChange::version(&version, None, Some(&version))?;
        Ok(WriteOutcome::Changed(version, change))
    }

    async fn delete_version(
        &mut self,
        service: &ServiceId,
        number: VersionNumber,
        etag: Option<&str>,
        key: Option<IdempotencyKey>,
    ) -> Result<WriteOutcome<()>, Error> {
        if let Some(first) = self.first_result(key.as_ref()).await? {
            return Ok(WriteOutcome::Replayed((), first.revision));
        }
        let found = self.version(service, number).await?;
        let full_name = name::version(service, number);
        check_etag(full_name.clone(), etag, &found.version.etag)?;
        if !found.version.percent.is_zero() {
            return Err(Error::precondition(
                "VERSION_IN_USE",
                full_name.clone(),
                format!(
                    "{full_name} gets {} % of traffic: move it to other versions first",
                    found.version.percent
                ),
            ));
        }
        if let Some(tag) = found.version.tags.first() {
            return Err(Error::precondition(
                "VERSION_IN_USE",
                full_name.clone(),
                format!("the tag `{tag}` names {full_name}: remove it first"),
            ));
        }
        versions::Entity::delete_by_id(found.model.uid.as_str())
            .exec(&self.db)
            .await?;
        let row = self.touch_service(&found.service).await?;
        self.save_first_result(key, &row.model.uid, number.get())
            .await?;
        self.refresh_route(&row).await?;
        let change = AuditedChange::version(&found.version, Some(&found.version), None)?;
        Ok(WriteOutcome::Changed((), change))
    }

    async fn set_image_digest(
        &mut self,
        uid: &Uid,
        digest: ImageDigest,
        generation: u32,
    ) -> Result<WriteOutcome<Version>, Error> {
        let found = self.version_by_uid(uid).await?;
        let version = &found.version;
        if !version.needs_digest()
            || version.image_generation != generation
            || !version.is_reachable()
        {
            return Ok(WriteOutcome::Unchanged(found.version));
        }
        let change = versions::ActiveModel {
            uid: Set(found.model.uid.clone()),
            image_digest: Set(Some(digest.as_str().to_owned())),
            etag: Set(found.model.etag + 1),
            ..Default::default()
        };
        let version = self.save_version(&found.service, change).await?;
        let row = self.touch_service(&found.service).await?;
        self.refresh_route(&row).await?;
        let change = AuditedChange::version(&version, Some(&found.version), Some(&version))?;
        Ok(WriteOutcome::Changed(version, change))
    }

    async fn reset_version_image(
        &mut self,
        service: &ServiceId,
        number: VersionNumber,
        etag: Option<&str>,
        key: Option<IdempotencyKey>,
    ) -> Result<WriteOutcome<Version>, Error> {
        if let Some(replayed) = self.replayed_version(service, key.as_ref()).await? {
            return Ok(replayed);
        }
        let found = self.version(service, number).await?;
        check_etag(name::version(service, number), etag, &found.version.etag)?;
        let change = versions::ActiveModel {
            uid: Set(found.model.uid.clone()),
            image_digest: Set(None),
            resolved_image: Set(None),
            image_generation: Set(found.model.image_generation.saturating_add(1)),
            etag: Set(found.model.etag + 1),
            ..Default::default()
        };
        let version = self.save_version(&found.service, change).await?;
        self.save_first_result(key, &found.service.model.uid, number.get())
            .await?;
        let row = self.touch_service(&found.service).await?;
        self.refresh_route(&row).await?;
        let change = AuditedChange::version(&version, Some(&found.version), Some(&version))?;
        Ok(WriteOutcome::Changed(version, change))
    }
}

impl Store {
    /// Creates the next version of a service; no traffic reaches it yet. `resolution` is the image
    /// that a node found under its reference, if one was asked.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the service), [`Error::RequestIdReused`].
    pub async fn create_version(
        &self,
        service: &ServiceId,
        spec: VersionSpec,
        resolution: Option<Resolution>,
        options: WriteOptions,
    ) -> Result<Written<Version>, Error> {
        let key = IdempotencyKey::new(&options, "CreateVersion", &(service, &spec))?;
        let span = write_span!("create_version", %service);
        let service = service.clone();
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.create_version(&service, spec, resolution, key).await })
        })
        .await
    }

    /// Reads a version.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_version(
        &self,
        service: &ServiceId,
        number: VersionNumber,
    ) -> Result<Version, Error> {
        let db = self.reader();
        Ok(find_version(db, &self.inner.domain, service, number)
            .await?
            .version)
    }

    /// Lists versions of a service, newest first, at most `limit` of those before `before`.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the service).
    pub async fn list_versions(
        &self,
        service: &ServiceId,
        limit: u32,
        before: Option<VersionNumber>,
    ) -> Result<Page<Version>, Error> {
        let db = connection::begin_read(self.reader()).await?;
        let row = find(&db, &self.inner.domain, service).await?;
        let mut query = versions::Entity::find()
            .filter(versions::Column::ServiceUid.eq(row.model.uid.as_str()))
            .order_by_desc(versions::Column::Number);
        if let Some(before) = before {
            query = query.filter(versions::Column::Number.lt(before.get()));
        }
        let found = query.limit(u64::from(limit) + 1).all(&db).await?;
        db.rollback().await?;
        Page::cut(found, limit, |model| row.version(model))
    }

    /// Deletes a version without traffic and tag.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], [`Error::FailedPrecondition`]
    /// (`VERSION_IN_USE`).
    pub async fn delete_version(
        &self,
        service: &ServiceId,
        number: VersionNumber,
        etag: Option<&str>,
        options: WriteOptions,
    ) -> Result<Written<()>, Error> {
        let content = (service, number, etag);
        let key = IdempotencyKey::new(&options, "DeleteVersion", &content)?;
        let span = write_span!("delete_version", %service, version = %number);
        let (service, etag) = (service.clone(), etag.map(str::to_owned));
        self.write(span, options, move |tx| {
            Box::pin(async move {
                tx.delete_version(&service, number, etag.as_deref(), key)
                    .await
            })
        })
        .await
    }

    /// Stores the digest of an image that a node pulled or started, reported for this number of
    /// resets. A version that is resolved keeps its image. Without effect for a version that the
    /// feed does not carry: no node was asked to run it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RouteTooLarge`].
    pub async fn set_image_digest(
        &self,
        version_uid: &Uid,
        digest: ImageDigest,
        generation: u32,
        now: Timestamp,
    ) -> Result<Written<Version>, Error> {
        let span = write_span!("set_image_digest", %version_uid, %digest);
        let uid = version_uid.clone();
        let options = WriteOptions::system("set_image_digest", now);
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.set_image_digest(&uid, digest, generation).await })
        })
        .await
    }

    /// Clears what the image of a version was resolved to; nodes then drop what they have pinned.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], [`Error::RequestIdReused`],
    /// [`Error::RouteTooLarge`].
    pub async fn reset_version_image(
        &self,
        service: &ServiceId,
        number: VersionNumber,
        etag: Option<&str>,
        options: WriteOptions,
    ) -> Result<Written<Version>, Error> {
        let content = (service, number, etag);
        let key = IdempotencyKey::new(&options, "ResetVersionImage", &content)?;
        let span = write_span!("reset_version_image", %service, version = %number);
        let (service, etag) = (service.clone(), etag.map(str::to_owned));
        self.write(span, options, move |tx| {
            Box::pin(async move {
                tx.reset_version_image(&service, number, etag.as_deref(), key)
                    .await
            })
        })
        .await
    }
}
