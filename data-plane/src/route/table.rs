//! The immutable route table, produced by [`Table::apply`] and read by every request.
//!
//! The table holds each route twice: the received bytes, for the digest and the disk cache, and the
//! decoded form. An unusable route is *quarantined*: its bytes still count in the digest, and its
//! last good value, if any, keeps serving.
//!
//! Laws:
//! - A good route owns all its hosts, and a host belongs to one route only.
//! - A quarantined route serves its last good value on those hosts that no good route owns. It is
//!   retried with every change, because the conflict may be resolved.
//! - A chain of deltas yields the table of the snapshot.
//! - A change of k routes among n copies each of the two maps at most once.

mod apply;

use super::host_map::HostMap;
use super::{Digest, Route, Version, VersionKey};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// A point in the history of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Created with the state and by each restore; revisions compare only within one epoch. Empty
    /// in a node's initial table.
    pub epoch: String,
    /// Increases with every change.
    pub revision: i64,
    /// Digest of the table at this point.
    pub digest: Digest,
}

/// The target of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// The route of the service.
    pub route: Arc<Route>,
    /// The tag's version if this is the host of a tag.
    pub tag: Option<Arc<Version>>,
}

/// A value of a route that has served, with its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastGood {
    /// The bytes as received.
    pub received: Bytes,
    /// The decoded route.
    pub route: Arc<Route>,
}

/// A route of the table, good or quarantined.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    received: Bytes,
    digest: Digest,
    state: EntryState,
}

#[derive(Clone, Debug)]
enum EntryState {
    Good(Arc<Route>),
    Quarantined {
        /// The decoded route if it is valid but conflicts with the hosts of another.
        decoded: Option<Arc<Route>>,
        last_good: Option<LastGood>,
    },
}

/// A route that is not in use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Uid of the service.
    pub service_uid: Arc<str>,
    /// Name of the service; empty if it was never decoded.
    pub service: Arc<str>,
    /// The decoding error or the conflict.
    pub reason: Arc<str>,
}

/// A route to insert into the table.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Uid of the service.
    pub service_uid: Arc<str>,
    /// The bytes as received. They live as long as the table, so they must not be a slice of a
    /// larger buffer.
    pub received: Bytes,
    /// Digest of `received`.
    pub digest: Digest,
    /// The decoded route or the decoding error.
    pub decoded: Result<Arc<Route>, Arc<str>>,
    /// The value to fall back on; `None` uses that of the previous table.
    pub last_good: Option<LastGood>,
}

/// Extent of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The complete table: all routes absent from the upserts are removed.
    Snapshot,
    /// Only the named routes.
    Delta,
}

/// A committed change. It names each uid at most once.
#[derive(Clone, Debug)]
pub struct Change {
    /// Id of the control plane's state, written on containers as a label.
    pub cluster: Arc<str>,
    /// Cursor of the table after the change.
    pub cursor: Cursor,
    /// Extent of the change.
    pub scope: Scope,
    /// New or modified routes.
    pub upserts: Vec<Candidate>,
    /// Uids of removed services.
    pub removed: Vec<Arc<str>>,
}

/// The route table at one revision. `default()` is the initial table without a revision.
#[derive(Clone, Debug, Default)]
pub struct Table {
    cluster: Arc<str>,
    cursor: Cursor,
    hosts: HostMap<HostEntry>,
    entries: HashMap<Arc<str>, Arc<RouteEntry>>,
    quarantined: Vec<Quarantined>,
}

impl Table {
    /// Id of the cluster; empty in the initial table.
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Position of this table in the history.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether this is the initial table, before any change.
    pub fn is_initial(&self) -> bool {
        self.cursor.epoch.is_empty()
    }

    /// The target of a host normalised by [`super::normalize`].
    #[inline]
    pub fn lookup(&self, host: &str) -> Option<&HostEntry> {
        self.hosts.get(host)
    }

    /// A reachable version and its route.
    pub fn version(&self, key: &VersionKey) -> Option<(&Arc<Route>, &Arc<Version>)> {
        let route = self.route(&key.service_uid)?;
        Some((route, route.version(key.number)?))
    }

    /// The serving route of a service.
    pub fn route(&self, service_uid: &str) -> Option<&Arc<Route>> {
        self.entries.get(service_uid)?.serving()
    }

    /// All serving routes in arbitrary order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.entries.values().filter_map(|entry| entry.serving())
    }

    /// All received routes with the uid of their service, in arbitrary order.
    pub fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<RouteEntry>)> {
        self.entries.iter()
    }

    /// The received route of a service.
    pub fn entry(&self, service_uid: &str) -> Option<&Arc<RouteEntry>> {
        self.entries.get(service_uid)
    }

    /// Number of received routes, including quarantined ones.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table has no routes.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The quarantined routes.
    pub fn quarantined(&self) -> &[Quarantined] {
        &self.quarantined
    }
}

impl RouteEntry {
    /// The bytes as received.
    pub fn received(&self) -> &Bytes {
        &self.received
    }

    /// SHA-256 of [`RouteEntry::received`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The serving route: the received one, or else the last good one.
    pub fn serving(&self) -> Option<&Arc<Route>> {
        match &self.state {
            EntryState::Good(route) => Some(route),
            EntryState::Quarantined { last_good, .. } => last_good.as_ref().map(|good| &good.route),
        }
    }

    /// Whether the received route serves.
    pub fn is_good(&self) -> bool {
        matches!(self.state, EntryState::Good(_))
    }

    /// The last value that served, with its encoding.
    pub fn last_good(&self) -> Option<LastGood> {
        match &self.state {
            EntryState::Good(route) => Some(LastGood {
                received: self.received.clone(),
                route: route.clone(),
            }),
            EntryState::Quarantined { last_good, .. } => last_good.clone(),
        }
    }

    fn decoded(&self) -> Option<&Arc<Route>> {
        match &self.state {
            EntryState::Good(route) => Some(route),
            EntryState::Quarantined { decoded, .. } => decoded.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests;
