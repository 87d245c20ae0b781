//! What one worker counts of its connections and requests; a scrape adds the workers up.
//!
//! Apart from those of others in memory, so that no two cores write to one line of it.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

/// One worker's counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests in progress.
    active: AtomicI64,
    /// Open connections of clients.
    connections: AtomicI64,
    /// Upgraded connections.
    tunnels: AtomicI64,
    /// Connections that the proxy refused or ended, by reason: all of the rare path.
    closed: Mutex<Vec<(&'static str, u64)>>,
}

/// The counts of a worker at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests in progress.
    pub active: i64,
    /// Open connections of clients.
    pub connections: i64,
    /// Upgraded connections.
    pub tunnels: i64,
    /// Connections that the proxy refused or ended, by reason.
    pub closed: Vec<(&'static str, u64)>,
}

impl Stats {
    pub(super) fn request_began(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn request_ended(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connection(&self, more: i64) {
        self.connections.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn tunnel(&self, more: i64) {
        self.tunnels.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn closed(&self, reason: &'static str) {
        let mut closed = self.closed.lock();
        match closed.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => closed.push((reason, 1)),
        }
    }

    /// The counts now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            active: self.active.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            tunnels: self.tunnels.load(Ordering::Relaxed),
            closed: self.closed.lock().clone(),
        }
    }
}
