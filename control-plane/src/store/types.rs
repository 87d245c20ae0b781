//! What goes into the store's methods and comes out of them.

use std::sync::Arc;

use bytes::Bytes;

use super::Error;
use crate::domain::{
    Domain, HostName, Labels, RequestId, Route, ServiceId, Settings, Timestamp, Uid,
};

/// Encodes a route as the feed carries it. The same route gives the same bytes, always: the digest is over them.
pub type RouteCodec = Arc<dyn Fn(&Route) -> Vec<u8> + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// `sqlite://PATH?mode=rwc`, `sqlite::memory:` or `postgres://…`.
    pub url: String,
    /// What default and tag hosts end with.
    pub domain: Domain,
    /// How routes are encoded.
    pub codec: RouteCodec,
}

/// How one write is done.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// The time it is done at.
    pub now: Timestamp,
    /// Do everything, then roll back (AIP-163).
    pub validate_only: bool,
    /// A repeat under the same id answers as the first did (AIP-155). Only creates and traffic changes read it.
    pub request_id: Option<RequestId>,
}

impl WriteOptions {
    /// A plain write.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            validate_only: false,
            request_id: None,
        }
    }
}

/// A write that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    /// The resource after it.
    pub resource: T,
    /// The feed revision that carries it. With `validate_only`, the one it would have had.
    pub revision: i64,
    /// Whether this repeats an earlier request, so that nothing was done now.
    pub replayed: bool,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// Whether there are more after these.
    pub more: bool,
}

/// A service to create.
#[derive(Debug, Clone)]
pub struct NewService {
    /// The last segment of its name.
    pub id: ServiceId,
    /// More hosts than the default one.
    pub hosts: Vec<HostName>,
    /// How it scales, sleeps and is called.
    pub settings: Settings,
    /// Free-form.
    pub labels: Labels,
}

/// Where the route table stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Minted once per state; containers are labelled with it.
    pub cluster: String,
    /// Minted when the state is created or restored; revisions compare only within one.
    pub epoch: String,
    /// The newest committed revision.
    pub revision: i64,
    /// Changes are known from here on; deltas start at this revision or later.
    pub compacted_revision: i64,
    /// Sum modulo 2^256 of SHA-256 over each route's bytes, big-endian.
    pub digest: [u8; 32],
}

/// An encoded route of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRoute {
    /// Whose.
    pub service_uid: Uid,
    /// Its id.
    pub service: ServiceId,
    /// The revision that last changed it.
    pub revision: i64,
    /// As the feed carries it.
    pub body: Bytes,
    /// SHA-256 of `body`.
    pub sha256: [u8; 32],
}

/// What a revision did to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteOp {
    /// A route is new or has changed.
    Upsert,
    /// A route is gone.
    Remove,
    /// The table stayed as it was.
    None,
}

/// One revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// Its number; there are no gaps.
    pub revision: i64,
    /// Whose route, unless `op` is [`RouteOp::None`] and it concerns none.
    pub service_uid: Option<Uid>,
    /// What it did.
    pub op: RouteOp,
    /// The digest of the table after it.
    pub digest: [u8; 32],
}

/// All revisions after one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Where the table stands; `changes` ends there.
    pub head: Head,
    /// Ascending, without gaps.
    pub changes: Vec<RouteChange>,
    /// The routes, as they are now, of the services that `changes` upserts. A service upserted and not here was removed
    /// later on.
    pub routes: Vec<StoredRoute>,
}

/// The answer to [`changes_since`](super::Store::changes_since).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// What happened.
    Changes(Changes),
    /// The start is no longer known: take the whole table.
    Compacted(Head),
    /// The start is ahead of this database.
    Ahead(Head),
}

impl<T> Page<T> {
    /// A page of rows of which one more than `limit` was asked for.
    pub(super) fn cut<R>(
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
