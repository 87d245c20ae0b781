//! The only place that knows SQL.

mod error;
mod types;

pub use error::{Error, Precondition};
pub use types::{
    Changes, Head, NewService, Page, RouteChange, RouteCodec, RouteOp, Since, StoreOptions,
    StoredRoute, WriteOptions, Written,
};

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::domain::{
    ChangeNote, ImageDigest, NodeName, Service, ServiceId, ServicePatch, Timestamp, Traffic,
    TrafficRevision, TrafficSplit, Uid, VerificationEvent, Version, VersionNumber, VersionSpec,
};

/// The state of a cluster.
#[derive(Clone)]
pub struct Store;

#[expect(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::unimplemented,
    clippy::unused_async,
    unused_variables,
    reason = "signatures only, for minutes"
)]
impl Store {
    pub async fn open(options: StoreOptions) -> Result<Self, Error> {
        unimplemented!()
    }
    pub async fn close(&self) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn ping(&self) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn head(&self) -> Result<Head, Error> {
        unimplemented!()
    }
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        unimplemented!()
    }
    pub async fn load_table(&self) -> Result<(Head, Vec<StoredRoute>), Error> {
        unimplemented!()
    }
    pub async fn changes_since(&self, revision: i64) -> Result<Since, Error> {
        unimplemented!()
    }
    pub async fn digest_at(&self, revision: i64) -> Result<Option<[u8; 32]>, Error> {
        unimplemented!()
    }
    pub async fn new_epoch(&self, now: Timestamp) -> Result<Head, Error> {
        unimplemented!()
    }
    pub async fn create_service(
        &self,
        new: NewService,
        how: WriteOptions,
    ) -> Result<Written<Service>, Error> {
        unimplemented!()
    }
    pub async fn get_service(&self, id: &ServiceId) -> Result<Service, Error> {
        unimplemented!()
    }
    pub async fn list_services(
        &self,
        limit: u32,
        after: Option<&ServiceId>,
    ) -> Result<Page<Service>, Error> {
        unimplemented!()
    }
    pub async fn update_service(
        &self,
        id: &ServiceId,
        etag: Option<&str>,
        patch: ServicePatch,
        how: WriteOptions,
    ) -> Result<Written<Service>, Error> {
        unimplemented!()
    }
    pub async fn delete_service(
        &self,
        id: &ServiceId,
        etag: Option<&str>,
        how: WriteOptions,
    ) -> Result<Written<()>, Error> {
        unimplemented!()
    }
    pub async fn create_version(
        &self,
        service: &ServiceId,
        spec: VersionSpec,
        how: WriteOptions,
    ) -> Result<Written<Version>, Error> {
        unimplemented!()
    }
    pub async fn get_version(
        &self,
        service: &ServiceId,
        number: VersionNumber,
    ) -> Result<Version, Error> {
        unimplemented!()
    }
    pub async fn list_versions(
        &self,
        service: &ServiceId,
        limit: u32,
        before: Option<VersionNumber>,
    ) -> Result<Page<Version>, Error> {
        unimplemented!()
    }
    pub async fn delete_version(
        &self,
        service: &ServiceId,
        number: VersionNumber,
        etag: Option<&str>,
        how: WriteOptions,
    ) -> Result<Written<()>, Error> {
        unimplemented!()
    }
    pub async fn begin_verification(
        &self,
        service: &ServiceId,
        number: VersionNumber,
        id: String,
        asked: BTreeSet<NodeName>,
        deadline: Timestamp,
        how: WriteOptions,
    ) -> Result<Written<Version>, Error> {
        unimplemented!()
    }
    pub async fn apply_verification(
        &self,
        version_uid: &Uid,
        event: VerificationEvent,
        now: Timestamp,
    ) -> Result<Written<Version>, Error> {
        unimplemented!()
    }
    pub async fn pending_verifications(&self) -> Result<Vec<Version>, Error> {
        unimplemented!()
    }
    pub async fn set_image_digest(
        &self,
        version_uid: &Uid,
        digest: ImageDigest,
        now: Timestamp,
    ) -> Result<Written<Version>, Error> {
        unimplemented!()
    }
    pub async fn get_traffic(&self, service: &ServiceId) -> Result<Traffic, Error> {
        unimplemented!()
    }
    pub async fn update_traffic(
        &self,
        service: &ServiceId,
        split: TrafficSplit,
        etag: Option<&str>,
        note: ChangeNote,
        how: WriteOptions,
    ) -> Result<Written<Traffic>, Error> {
        unimplemented!()
    }
    pub async fn list_traffic_revisions(
        &self,
        service: &ServiceId,
        limit: u32,
        before: Option<i32>,
    ) -> Result<Page<TrafficRevision>, Error> {
        unimplemented!()
    }
    pub async fn rollback_traffic(
        &self,
        service: &ServiceId,
        to: Option<i32>,
        etag: Option<&str>,
        note: ChangeNote,
        how: WriteOptions,
    ) -> Result<Written<Traffic>, Error> {
        unimplemented!()
    }
}
