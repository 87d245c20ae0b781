//! The other end of a connection, in the extensions of each of its requests.

use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time for the first call of a connection.
const FIRST_CALL: Duration = Duration::from_secs(60);
/// Time without a call after which a connection is closed. Clients dial again for their next call.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// The other end of a connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// The client certificate, verified against the authorities of the cluster when the connection
    /// began. `None`: none was presented, or it was not accepted.
    pub(crate) certificate: Option<Arc<CertificateDer<'static>>>,
    /// The reason why a client certificate that was presented is not accepted.
    pub(crate) refusal: Option<Arc<str>>,
    calls: Arc<parking_lot::Mutex<Calls>>,
}

impl Peer {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            certificate: None,
            refusal: None,
            calls: Arc::new(parking_lot::Mutex::new(Calls::new(Instant::now()))),
        }
    }

    /// Counts a call until the guard is dropped.
    pub(super) fn begin_call(&self) -> CallInProgress {
        self.calls.lock().begin();
        CallInProgress(Arc::clone(&self.calls))
    }

    /// The time at which the connection is idle for too long, if no call comes.
    pub(super) fn idle_at(&self, now: Instant) -> Instant {
        self.calls.lock().idle_at(now)
    }
}

/// A call; dropping it ends it.
pub(super) struct CallInProgress(Arc<parking_lot::Mutex<Calls>>);

impl Drop for CallInProgress {
    fn drop(&mut self) {
        self.0.lock().end(Instant::now());
    }
}

/// The calls of a connection. PURE.
#[derive(Debug)]
struct Calls {
    open: usize,
    /// The time from which the connection is without a call.
    since: Instant,
    /// Whether it ever had one.
    called: bool,
}

impl Calls {
    fn new(now: Instant) -> Self {
        Self {
            open: 0,
            since: now,
            called: false,
        }
    }

    fn begin(&mut self) {
        self.open += 1;
        self.called = true;
    }

    fn end(&mut self, now: Instant) {
        self.open = self.open.saturating_sub(1);
        self.since = now;
    }

    /// With open calls the earliest possible time.
    fn idle_at(&self, now: Instant) -> Instant {
        match (self.open, self.called) {
            (0, false) => self.since + FIRST_CALL,
            (0, true) => self.since + IDLE,
            _ => now + IDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_after_its_last_call() {
        let start = Instant::now();
        let mut calls = Calls::new(start);
        assert_eq!(calls.idle_at(start), start + FIRST_CALL);
        calls.begin();
        calls.begin();
        let later = start + IDLE * 3;
        assert_eq!(calls.idle_at(later), later + IDLE);
        calls.end(later);
        assert_eq!(calls.idle_at(later), later + IDLE);
        calls.end(later + IDLE);
        assert_eq!(calls.idle_at(later + IDLE * 9), later + IDLE * 2);
    }
}
