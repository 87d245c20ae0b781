//! The route table as it is published: one immutable value per revision, shared by all streams.
//!
//! Routes are in a persistent map and the history in a persistent vector, so that the next
//! revision shares all but what changed, and a stream that still sends an older one holds only the
//! difference.

use crate::domain::Uid;
use crate::feed::stream::History;
use crate::feed::{Cursor, Digest};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Revisions a proxy may be behind and still get a delta: what the store keeps, too.
pub(crate) const HISTORY_MOST: usize = 10_000;

/// One service's route, as stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EncodedRoute {
    /// The service's uid.
    pub(crate) uid: Uid,
    /// The encoded `cless.v1.Route`.
    pub(crate) bytes: Bytes,
    /// SHA-256 of the bytes.
    pub(crate) sha256: [u8; 32],
}

/// One line of the store's change log: one a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The revision that the change made.
    pub(crate) revision: i64,
    /// Whose route changed, if any did.
    pub(crate) uid: Option<Uid>,
    /// The table's digest at that revision.
    pub(crate) digest: Digest,
}

/// All routes at one revision, and how it came from those before.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// Minted once per state.
    pub(crate) cluster: Arc<str>,
    head: Cursor,
    routes: imbl::OrdMap<Uid, Arc<EncodedRoute>>,
    /// Deltas can be computed from this point on.
    start: (i64, Digest),
    /// Changes after `start`, oldest first.
    log: imbl::Vector<Entry>,
}

/// What leads from one point, or from nothing, to a table.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Minted once per state.
    pub(crate) cluster: Arc<str>,
    /// Absent for a snapshot.
    pub(crate) from: Option<Cursor>,
    /// Where it leads.
    pub(crate) to: Cursor,
    /// Routes in the table then.
    pub(crate) count: u64,
    /// New or changed routes, in the order of their uids.
    pub(crate) upserts: Vec<Arc<EncodedRoute>>,
    /// Uids of routes that are gone.
    pub(crate) removed: Vec<Uid>,
}

/// The digest that the store recorded is not that of the routes it returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the digest recorded at revision {revision} is not that of the routes")]
pub(crate) struct DigestMismatch {
    /// The head in question.
    pub(crate) revision: i64,
}

impl Table {
    /// A table without history; refused if the digest is not that of the routes.
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

    /// The same table with the changes that led to it, so that proxies which were connected before
    /// a restart of this process resume by delta. `start` is the point before the first of them.
    pub(crate) fn with_history(
        mut self,
        start: (i64, Digest),
        log: impl IntoIterator<Item = Entry>,
    ) -> Self {
        self.start = start;
        self.log = log.into_iter().collect();
        self.shorten();
        self
    }

    /// The table after more changes; `upserts` and `removed` are their sum.
    pub(crate) fn next(
        &self,
        to: Cursor,
        upserts: impl IntoIterator<Item = EncodedRoute>,
        removed: impl IntoIterator<Item = Uid>,
        log: impl IntoIterator<Item = Entry>,
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
        next.shorten();
        Ok(next)
    }

    fn shorten(&mut self) {
        while self.log.len() > HISTORY_MOST {
            if let Some(oldest) = self.log.pop_front() {
                self.start = (oldest.revision, oldest.digest);
            }
        }
    }

    /// Everything, as a change from nothing.
    pub(crate) fn snapshot(&self) -> Change {
        Change {
            cluster: Arc::clone(&self.cluster),
            from: None,
            to: self.head.clone(),
            count: self.routes.len() as u64,
            upserts: self.routes.values().cloned().collect(),
            removed: Vec::new(),
        }
    }

    /// What changed since `from`, if the history reaches back to it.
    pub(crate) fn delta(&self, from: &Cursor) -> Option<Change> {
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
        Some(Change {
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
