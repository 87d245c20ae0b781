//! The route table: immutable, made whole by [`Table::apply`], read by every request.
//!
//! The table holds each route twice: the bytes as received, over which the digest is taken and
//! which the disk cache keeps, and decoded, for use. A route that cannot be used is *quarantined*:
//! its bytes count in the digest all the same, while its last good value, if it has one, serves on.
//!
//! Laws:
//! - a good route owns all its hosts, and a host leads to one route only;
//! - a quarantined route serves its last good value on those of its hosts that no good route has,
//!   and is tried again with every change, since what stood in its way may have gone;
//! - a chain of deltas gives the table of the snapshot;
//! - a change of k routes in n copies each of the two maps at most once.

mod apply;

use super::hosts::HostMap;
use super::{Digest, Route, Version, VersionKey};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// A point in the history of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Minted when the state is created or restored; revisions compare only within one. Empty in
    /// the table that a node has before its first.
    pub epoch: String,
    /// Grows with every change.
    pub revision: i64,
    /// Of the table at this point.
    pub digest: Digest,
}

/// Where a host leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// The service.
    pub route: Arc<Route>,
    /// The version that the host alone reaches, if it is a tag's host.
    pub tag: Option<Arc<Version>>,
}

/// A value of a route that has served, with the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastGood {
    /// As received.
    pub received: Bytes,
    /// Decoded.
    pub route: Arc<Route>,
}

/// A route of the table, good or not.
#[derive(Clone, Debug)]
pub struct Entry {
    received: Bytes,
    digest: Digest,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Good(Arc<Route>),
    Quarantined {
        /// Decodes, but its hosts are another's.
        wanted: Option<Arc<Route>>,
        last_good: Option<LastGood>,
    },
}

/// A route that is kept from use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The service's uid.
    pub service_uid: Arc<str>,
    /// Its name; empty if it was never known.
    pub service: Arc<str>,
    /// What is wrong with it.
    pub reason: Arc<str>,
}

/// A route to be put in the table.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The service's uid.
    pub service_uid: Arc<str>,
    /// As received; held for as long as the table, so it should pin nothing larger.
    pub received: Bytes,
    /// Of `received`.
    pub digest: Digest,
    /// What the bytes say, or why they say nothing.
    pub decoded: Result<Arc<Route>, Arc<str>>,
    /// What to fall back on; `None`: what the table before has.
    pub last_good: Option<LastGood>,
}

/// What a change covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole table: what is not among the upserts is gone.
    Snapshot,
    /// Only what it names.
    Delta,
}

/// One committed change. No uid is named twice in it.
#[derive(Clone, Debug)]
pub struct Change {
    /// Names the control plane's state; containers are labelled with it.
    pub cluster: Arc<str>,
    /// The table after the change.
    pub cursor: Cursor,
    /// What it covers.
    pub scope: Scope,
    /// Routes that are new or differ.
    pub upserts: Vec<Candidate>,
    /// Service uids.
    pub removed: Vec<Arc<str>>,
}

/// The route table at one revision. `default()` is the table before the first.
#[derive(Clone, Debug, Default)]
pub struct Table {
    cluster: Arc<str>,
    cursor: Cursor,
    hosts: HostMap<HostEntry>,
    entries: HashMap<Arc<str>, Arc<Entry>>,
    quarantined: Vec<Quarantined>,
}

impl Table {
    /// The cluster's name, minted once per state; empty before the first table.
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Where in history this table is.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether this is the table before the first.
    pub fn is_initial(&self) -> bool {
        self.cursor.epoch.is_empty()
    }

    /// Where a host leads; `host` as [`super::normalize`] gives it.
    #[inline]
    pub fn lookup(&self, host: &str) -> Option<&HostEntry> {
        self.hosts.get(host)
    }

    /// A version that can be reached, by its key.
    pub fn version(&self, key: &VersionKey) -> Option<(&Arc<Route>, &Arc<Version>)> {
        let route = self.route(&key.service_uid)?;
        Some((route, route.version(key.number)?))
    }

    /// The route that serves for a service.
    pub fn route(&self, service_uid: &str) -> Option<&Arc<Route>> {
        self.entries.get(service_uid)?.serving()
    }

    /// Every route that serves, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.entries.values().filter_map(|entry| entry.serving())
    }

    /// Every route as received, with its service's uid, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Entry>)> {
        self.entries.iter()
    }

    /// A route as received.
    pub fn entry(&self, service_uid: &str) -> Option<&Arc<Entry>> {
        self.entries.get(service_uid)
    }

    /// Routes received, quarantined ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no route was received.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The routes that are kept from use.
    pub fn quarantined(&self) -> &[Quarantined] {
        &self.quarantined
    }
}

impl Entry {
    /// The bytes as received.
    pub fn received(&self) -> &Bytes {
        &self.received
    }

    /// SHA-256 of [`Entry::received`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The route that serves: the one received, or the last good one.
    pub fn serving(&self) -> Option<&Arc<Route>> {
        match &self.state {
            State::Good(route) => Some(route),
            State::Quarantined { last_good, .. } => last_good.as_ref().map(|good| &good.route),
        }
    }

    /// Whether what was received serves.
    pub fn is_good(&self) -> bool {
        matches!(self.state, State::Good(_))
    }

    /// The last value that served, with its bytes.
    pub fn last_good(&self) -> Option<LastGood> {
        match &self.state {
            State::Good(route) => Some(LastGood {
                received: self.received.clone(),
                route: route.clone(),
            }),
            State::Quarantined { last_good, .. } => last_good.clone(),
        }
    }

    fn wanted(&self) -> Option<&Arc<Route>> {
        match &self.state {
            State::Good(route) => Some(route),
            State::Quarantined { wanted, .. } => wanted.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests;
