//! Arguments and results of the store.

use std::sync::Arc;

use bytes::Bytes;

use super::Error;
use crate::domain::{
    Domain, HostName, ImageDigest, Labels, Origin, RequestId, ResolvedImage, Route, ServiceId,
    Settings, Timestamp, Uid,
};

/// Encodes a route for the feed. Equal routes must give equal bytes, because the digest is over
/// them.
pub type RouteCodec = Arc<dyn Fn(&Route) -> Vec<u8> + Send + Sync>;

/// Options of [`Store::open`](super::Store::open).
#[derive(Clone)]
pub struct StoreOptions {
    /// `sqlite://PATH?mode=rwc`, `sqlite::memory:` or `postgres://…`.
    pub url: String,
    /// The domain of default and tag hosts.
    pub domain: Domain,
    /// The encoding of routes.
    pub codec: RouteCodec,
    /// Whether a control plane serves from it: a SQLite file then refuses another one.
    pub serving: bool,
}

/// Options of one write.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// The time of the write.
    pub now: Timestamp,
    /// Run the write, then roll it back (AIP-163).
    pub validate_only: bool,
    /// Idempotency key (AIP-155); `None` if the caller gave none.
    pub request_id: Option<RequestId>,
    /// The origin of the write, for the audit log. Request ids belong to its principal.
    pub by: Origin,
}

impl WriteOptions {
    /// A write of a task of the control plane.
    #[must_use]
    pub fn system(task: &str, now: Timestamp) -> Self {
        Self {
            now,
            validate_only: false,
            request_id: None,
            by: Origin::system(task),
        }
    }
}

/// The image that a node found under the reference of a version to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The image.
    pub image: ResolvedImage,
    /// Its digest; `None` if it was never in a registry.
    pub digest: Option<ImageDigest>,
}

/// The result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    /// The resource after the write.
    pub resource: T,
    /// The feed revision of the write; with `validate_only`, the one it would have had.
    pub revision: i64,
    /// Whether an earlier request with the same id did the write.
    pub replayed: bool,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The resources, in the order of the list.
    pub items: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

/// A service to create.
#[derive(Debug, Clone)]
pub struct NewService {
    /// The last segment of the resource name.
    pub id: ServiceId,
    /// Extra hosts, besides the default host.
    pub hosts: Vec<HostName>,
    /// Its settings.
    pub settings: Settings,
    /// Its labels.
    pub labels: Labels,
}

/// The state of the route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Generated once per database; containers are labelled with it.
    pub cluster: String,
    /// Generated when the database is created or restored. Revisions compare only within an epoch.
    pub epoch: String,
    /// The newest committed revision.
    pub revision: i64,
    /// The oldest revision that a delta can start from.
    pub compacted_revision: i64,
    /// The sum modulo 2^256 of SHA-256 over the bytes of each route, big-endian.
    pub digest: [u8; 32],
}

/// An encoded route of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRoute {
    /// The uid of the service.
    pub service_uid: Uid,
    /// The id of the service.
    pub service: ServiceId,
    /// The revision that last changed it.
    pub revision: i64,
    /// The encoded route.
    pub body: Bytes,
    /// SHA-256 of `body`.
    pub sha256: [u8; 32],
}

/// The effect of a revision on the route table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteOp {
    /// A route was added or changed.
    Upsert,
    /// A route was removed.
    Remove,
    /// The table is unchanged.
    None,
}

/// A revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// The revision number, without gaps.
    pub revision: i64,
    /// The service; `None` if the revision concerns no service.
    pub service_uid: Option<Uid>,
    /// The effect on the table.
    pub op: RouteOp,
    /// The digest of the table after the revision.
    pub digest: [u8; 32],
}

/// All revisions after a given one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The head; `changes` ends there.
    pub head: Head,
    /// Ascending, without gaps.
    pub changes: Vec<RouteChange>,
    /// The current routes of the services that `changes` upserts. A service without a route here
    /// was removed later.
    pub routes: Vec<StoredRoute>,
}

/// The result of [`changes_since`](crate::store::feed::FeedSource::changes_since).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// The changes since the given revision.
    Changes(Changes),
    /// The revision is older than the change log: load the whole table.
    Compacted(Head),
    /// The revision is newer than the database.
    Ahead(Head),
}

impl<T> Page<T> {
    /// Builds a page from rows queried with a limit of `limit + 1`.
    pub(crate) fn cut<R>(
        mut rows: Vec<R>,
        limit: u32,
        read: impl FnMut(R) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok(Self {
            items: rows.into_iter().map(read).collect::<Result<_, _>>()?,
            more,
        })
    }
}
