//! Conversion between rows and domain types.
//!
//! Values were checked before they were written. A value that cannot be read is an
//! [`Error::Database`] that names the column.

use sea_orm::ActiveValue::Set;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::{
    Domain, ImageDigest, Percent, ResolvedImage, Service, ServiceId, Slots, Timestamp, Traffic,
    TrafficRevision, TrafficSplit, Uid, Verification, Version, VersionNumber,
};

use super::Error;
use super::entity::{routes, services, traffic_revisions, versions};
use super::types::StoredRoute;

/// A service with its current traffic.
#[derive(Debug, Clone)]
pub(super) struct ServiceRow {
    pub(super) service: Service,
    pub(super) split: TrafficSplit,
    pub(super) slots: Option<Slots>,
    pub(super) model: services::Model,
}

pub(super) fn read<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text)
        .map_err(|error| Error::Database(format!("the column {column} cannot be read: {error}")))
}

pub(super) fn write<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::Database(format!("a value cannot be written: {error}")))
}

fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Database(format!("a row was not written by this program: {error}"))
}

pub(super) fn digest(column: Option<String>) -> Result<Option<ImageDigest>, Error> {
    column.map(ImageDigest::parse).transpose().map_err(corrupt)
}

pub(super) fn resolved_image(column: Option<String>) -> Result<Option<ResolvedImage>, Error> {
    column
        .map(|text| read("versions.resolved_image", &text))
        .transpose()
}

pub(super) fn generation(column: i32) -> Result<u32, Error> {
    u32::try_from(column).map_err(corrupt)
}

pub(super) fn bytes32(column: &str, bytes: Vec<u8>) -> Result<[u8; 32], Error> {
    bytes
        .try_into()
        .map_err(|_| Error::Database(format!("the column {column} does not hold 32 bytes")))
}

/// A counter with a part of the uid, so that the etag of a deleted resource of the same name never
/// matches.
fn etag(uid: &str, counter: i64) -> String {
    let tail = uid.rsplit('-').next().unwrap_or(uid);
    format!("{counter}-{tail}")
}

impl ServiceRow {
    pub(super) fn new(model: services::Model, domain: &Domain) -> Result<Self, Error> {
        let id = ServiceId::parse(model.name.as_str()).map_err(corrupt)?;
        let split: TrafficSplit = read("services.targets", &model.targets)?;
        let slots: Option<Slots> = model
            .slots
            .as_deref()
            .map(|slots| read("services.slots", slots))
            .transpose()?;
        let service = Service {
            uid: Uid::parse(model.uid.as_str()).map_err(corrupt)?,
            default_host: domain.service_host(&id),
            id,
            hosts: read("services.hosts", &model.hosts)?,
            settings: read("services.settings", &model.settings)?,
            labels: read("services.labels", &model.labels)?,
            etag: etag(&model.uid, model.etag),
            create_time: Timestamp::from_micros(model.create_time),
            update_time: Timestamp::from_micros(model.update_time),
            revision: model.revision,
            in_traffic: split.weights().map(|(version, _)| version).collect(),
        };
        Ok(Self {
            service,
            split,
            slots,
            model,
        })
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            service: self.service.id.clone(),
            service_uid: self.service.uid.clone(),
            split: self.split.clone(),
            etag: etag(&self.model.uid, i64::from(self.model.traffic_revision)),
            revision: self.model.traffic_revision,
            update_time: Timestamp::from_micros(self.model.traffic_time),
            feed_revision: self.model.traffic_feed_revision,
        }
    }

    pub(super) fn traffic_revision(
        &self,
        row: traffic_revisions::Model,
    ) -> Result<TrafficRevision, Error> {
        Ok(TrafficRevision {
            service: self.service.id.clone(),
            number: row.number,
            split: read("traffic_revisions.targets", &row.targets)?,
            actor: row.actor,
            reason: row.reason,
            create_time: Timestamp::from_micros(row.time),
            rolled_back_from: row.rolled_back_from,
            feed_revision: row.feed_revision,
        })
    }

    pub(super) fn version(&self, row: versions::Model) -> Result<Version, Error> {
        let number = VersionNumber::new(row.number).map_err(corrupt)?;
        let target = self.split.target(number);
        let verification: Option<Verification> = row
            .verification
            .as_deref()
            .map(|text| read("versions.verification", text))
            .transpose()?;
        Ok(Version {
            etag: etag(&row.uid, row.etag),
            uid: Uid::parse(row.uid).map_err(corrupt)?,
            service: self.service.id.clone(),
            service_uid: self.service.uid.clone(),
            number,
            spec: read("versions.spec", &row.spec)?,
            image_digest: digest(row.image_digest)?,
            resolved_image: resolved_image(row.resolved_image)?,
            image_generation: generation(row.image_generation)?,
            carried_traffic: row.carried_traffic,
            create_time: Timestamp::from_micros(row.create_time),
            verification,
            percent: target.map_or(Percent::ZERO, |target| target.percent),
            tags: target
                .and_then(|target| target.tag.clone())
                .into_iter()
                .collect(),
        })
    }
}

/// Sets the columns of a verification.
pub(super) fn verification_columns(
    row: &mut versions::ActiveModel,
    verification: &Verification,
) -> Result<(), Error> {
    row.verification = Set(Some(write(verification)?));
    row.verify_deadline = Set(verification
        .is_pending()
        .then(|| verification.deadline().micros()));
    Ok(())
}

pub(super) fn stored_route(row: routes::Model) -> Result<StoredRoute, Error> {
    Ok(StoredRoute {
        service_uid: Uid::parse(row.service_uid).map_err(corrupt)?,
        service: ServiceId::parse(row.service).map_err(corrupt)?,
        revision: row.revision,
        sha256: bytes32("routes.digest", row.digest)?,
        body: row.body.into(),
    })
}
