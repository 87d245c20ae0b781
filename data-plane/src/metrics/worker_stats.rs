//! Connection and request counts of one proxy worker; a scrape adds the workers up.
//!
//! Each worker has its own counts, so that no two cores write to one cache line.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

/// The counts of one worker.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Requests in progress.
    active: AtomicI64,
    /// Open client connections.
    connections: AtomicI64,
    /// Upgraded connections.
    tunnels: AtomicI64,
    /// Connections that the proxy refused or closed, by reason. A lock is fine: this is rare.
    closed: Mutex<Vec<(&'static str, u64)>>,
}

/// The counts of a worker at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests in progress.
    pub active: i64,
    /// Open client connections.
    pub connections: i64,
    /// Upgraded connections.
    pub tunnels: i64,
    /// Connections that the proxy refused or closed, by reason.
    pub closed: Vec<(&'static str, u64)>,
}

impl WorkerStats {
    pub(crate) fn request_began(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn connection(&self, more: i64) {
        self.connections.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn tunnel(&self, more: i64) {
        self.tunnels.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, reason: &'static str) {
        let mut closed = self.closed.lock();
        match closed.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => closed.push((reason, 1)),
        }
    }

    /// The present counts.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            active: self.active.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            tunnels: self.tunnels.load(Ordering::Relaxed),
            closed: self.closed.lock().clone(),
        }
    }
}
