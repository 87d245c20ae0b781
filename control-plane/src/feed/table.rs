//! The published route table: one immutable value per revision, shared by all streams.
//!
//! Routes are in a persistent map and the history in a persistent vector. The next revision shares
//! everything that did not change, and a stream that still sends an older table costs only the
//! difference.

use crate::domain::Uid;
use crate::feed::stream::History;
use crate::feed::{Cursor, Digest};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Maximum number of revisions in the history, here and in the store. A node further behind gets a
/// snapshot.
pub(crate) const HISTORY_MAX: usize = 10_000;

/// A stored route of one service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EncodedRoute {
    /// Uid of the service.
    pub(crate) uid: Uid,
    /// The encoded `cless.v1.Route`.
    pub(crate) bytes: Bytes,
    /// SHA-256 of the bytes.
    pub(crate) sha256: [u8; 32],
}

/// One revision in the store's change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// The revision after the change.
    pub(crate) revision: i64,
    /// Service whose route changed. `None`: no route changed.
    pub(crate) uid: Option<Uid>,
    /// Digest of the table at that revision.
    pub(crate) digest: Digest,
}

/// All routes at one revision, with the history that led to it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// Id of the cluster, minted when the database is created.
    pub(crate) cluster: Arc<str>,
    head: Cursor,
    routes: imbl::OrdMap<Uid, Arc<EncodedRoute>>,
    /// Revision and digest of the oldest table a delta can start from.
    start: (i64, Digest),
    /// Changes after `start`, oldest first.
    log: imbl::Vector<LogEntry>,
}

/// A change to the head, from a cursor or from nothing.
#[derive(Debug, Clone)]
pub(crate) struct TableChange {
    /// Id of the cluster, minted when the database is created.
    pub(crate) cluster: Arc<str>,
    /// Start of the change. `None` for a snapshot.
    pub(crate) from: Option<Cursor>,
    /// The table after the change.
    pub(crate) to: Cursor,
    /// Number of routes in the table after the change.
    pub(crate) count: u64,
    /// New or changed routes, in the order of their uids.
    pub(crate) upserts: Vec<Arc<EncodedRoute>>,
    /// Uids of the removed routes.
    pub(crate) removed: Vec<Uid>,
}

/// The recorded digest does not match the routes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the digest recorded at revision {revision} does not match the routes")]
pub(crate) struct DigestMismatch {
    /// The revision of the mismatch.
    pub(crate) revision: i64,
}

impl Table {
    /// A table without history. Fails if the digest does not match the routes.
    pub(crate) fn new(
        cluster: Arc<str>,
        head: Cursor,
        routes: impl IntoIterator<Item = EncodedRoute>,
    ) -> Result<Self, DigestMismatch> {
        let routes: imbl::OrdMap<Uid, Arc<EncodedRoute>> = routes
            .into_iter()
            .map(|route| (route.uid.clone(), Arc::new(route)))
            .collect();
        let digest = routes
            .values()
            .fold(Digest::ZERO, |sum, route| sum.plus(&route.sha256));
        if digest != head.digest {
            return Err(DigestMismatch {
                revision: head.revision,
            });
        }
        let start = (head.revision, head.digest);
        Ok(Self {
            cluster,
            head,
            routes,
            start,
            log: imbl::Vector::new(),
        })
    }

    /// Adds the changes that led to this table, so that nodes resume by delta after a restart of
    /// this process. `start` is the table before the first of them.
    pub(crate) fn with_history(
        mut self,
        start: (i64, Digest),
        log: impl IntoIterator<Item = LogEntry>,
    ) -> Self {
        self.start = start;
        self.log = log.into_iter().collect();
        self.truncate_history();
        self
    }

    /// The table after the changes in `log`. `upserts` and `removed` are their net effect.
    pub(crate) fn next(
        &self,
        to: Cursor,
        upserts: impl IntoIterator<Item = EncodedRoute>,
        removed: impl IntoIterator<Item = Uid>,
        log: impl IntoIterator<Item = LogEntry>,
    ) -> Result<Self, DigestMismatch> {
        let mut next = self.clone();
        let mut digest = self.head.digest;
        for uid in removed {
            if let Some(old) = next.routes.remove(&uid) {
                digest = digest.minus(&old.sha256);
            }
        }
        for route in upserts {
            digest = digest.plus(&route.sha256);
            if let Some(old) = next.routes.insert(route.uid.clone(), Arc::new(route)) {
                digest = digest.minus(&old.sha256);
            }
        }
        if digest != to.digest {
            return Err(DigestMismatch {
                revision: to.revision,
            });
        }
        next.head = to;
        next.log.extend(log);
        next.truncate_history();
        Ok(next)
    }

    fn truncate_history(&mut self) {
        while self.log.len() > HISTORY_MAX {
            if let Some(oldest) = self.log.pop_front() {
                self.start = (oldest.revision, oldest.digest);
            }
        }
    }

    /// The whole table as a change from nothing.
    pub(crate) fn snapshot(&self) -> TableChange {
        TableChange {
            cluster: Arc::clone(&self.cluster),
            from: None,
            to: self.head.clone(),
            count: self.routes.len() as u64,
            upserts: self.routes.values().cloned().collect(),
            removed: Vec::new(),
        }
    }

    /// The change since `from`; `None` if the history does not reach back to it.
    pub(crate) fn delta(&self, from: &Cursor) -> Option<TableChange> {
        if !self.holds(from) {
            return None;
        }
        let (mut upserts, mut removed) = (Vec::new(), Vec::new());
        for uid in self.changed_since(from.revision) {
            match self.routes.get(uid) {
                Some(route) => upserts.push(Arc::clone(route)),
                None => removed.push(uid.clone()),
            }
        }
        Some(TableChange {
            cluster: Arc::clone(&self.cluster),
            from: Some(from.clone()),
            to: self.head.clone(),
            count: self.routes.len() as u64,
            upserts,
            removed,
        })
    }

    fn changed_since(&self, revision: i64) -> BTreeSet<&Uid> {
        let newer = self
            .log
            .iter()
            .rev()
            .take_while(|entry| entry.revision > revision);
        newer.filter_map(|entry| entry.uid.as_ref()).collect()
    }

    fn digest_at(&self, revision: i64) -> Option<Digest> {
        if revision < self.start.0 || revision > self.head.revision {
            return None;
        }
        let after = self
            .log
            .iter()
            .rev()
            .find(|entry| entry.revision <= revision);
        Some(after.map_or(self.start.1, |entry| entry.digest))
    }
}

impl History for Table {
    fn head(&self) -> &Cursor {
        &self.head
    }

    fn holds(&self, cursor: &Cursor) -> bool {
        cursor.epoch == self.head.epoch && self.digest_at(cursor.revision) == Some(cursor.digest)
    }
}

#[cfg(test)]
mod tests;
