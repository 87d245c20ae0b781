//! An instance as requests, connections and the pool's actor share it.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::admission::{Admission, Refused};
use super::passive_health::PassiveHealth;
use crate::report::ColdStart;

/// One instance. The pool's actor owns its [state](super::state); this is the shared part.
#[derive(Debug)]
pub struct Instance {
    serial: u64,
    name: String,
    created: Instant,
    /// When the last request left, in ms after `created`.
    idle_since: AtomicU64,
    pub(crate) admission: Admission,
    peak: AtomicU32,
    pub(crate) passive_health: PassiveHealth,
    address: OnceLock<SocketAddr>,
    cold_start: OnceLock<ColdStart>,
    ready_at: OnceLock<Instant>,
    /// When the last resume ended, and how long the engine took for it.
    resumed: Mutex<Option<(Instant, Duration)>>,
    retired: CancellationToken,
    /// New connections that wait for an answer, perhaps because an idle one occupies the server.
    starved: AtomicU32,
    pauses: AtomicU64,
    pausing: watch::Sender<()>,
    connections: TaskTracker,
}

impl Instance {
    pub(crate) fn new(name: String, now: Instant) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let connections = TaskTracker::new();
        // A closed tracker still counts new connections, and its `wait` ends when there is none.
        connections.close();
        Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            name,
            created: now,
            idle_since: AtomicU64::new(0),
            admission: Admission::default(),
            peak: AtomicU32::new(0),
            passive_health: PassiveHealth::default(),
            address: OnceLock::new(),
            cold_start: OnceLock::new(),
            ready_at: OnceLock::new(),
            resumed: Mutex::default(),
            retired: CancellationToken::new(),
            starved: AtomicU32::new(0),
            pauses: AtomicU64::new(0),
            pausing: watch::Sender::new(()),
            connections,
        }
    }

    /// Unique within the process and never reused, unlike addresses: the key of upstream
    /// connections.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address it listens on; `None` until it is ready, so always known to a request in it.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// The phases of its start; `None` until it is ready, and for an adopted instance.
    pub fn cold_start(&self) -> Option<&ColdStart> {
        self.cold_start.get()
    }

    /// Cancelled when no further request enters: idle connections are closed then.
    pub fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// Whether [`Instance::retired`] is cancelled.
    pub fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// Number of pauses so far. A connection from before the last pause is not reused: a server
    /// whose time limits expired during the pause closes it on resuming.
    pub fn pause_count(&self) -> u64 {
        self.pauses.load(Ordering::Acquire)
    }

    /// Changes at each pause, after [`Instance::pause_count`]: idle connections are closed then.
    pub fn watch_pauses(&self) -> watch::Receiver<()> {
        self.pausing.subscribe()
    }

    /// Held while a connection is open; a pause waits until none is.
    pub fn connection(&self) -> TaskTrackerToken {
        self.connections.token()
    }

    /// Open connections.
    pub fn connections_open(&self) -> usize {
        self.connections.len()
    }

    /// Whether a new connection has waited long for an answer. No idle connection is kept then: a
    /// server that handles one connection at a time would wait on it.
    pub fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed) > 0
    }

    /// Marks it [starved](Self::is_starved) until the returned value is dropped.
    pub fn mark_starved(&self) -> Starvation<'_> {
        self.starved.fetch_add(1, Ordering::Relaxed);
        Starvation(self)
    }

    pub(crate) fn enter(&self, limit: u32) -> Result<(), Refused> {
        let taken = self.admission.enter(limit)?;
        if taken > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(taken, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns a slot. True if this was the last one of a draining instance, which is now shut.
    pub(crate) fn leave(&self, now: Instant) -> bool {
        // Before the slot is free: the reaper never sees an empty instance with an old time.
        self.touch(now);
        self.admission.leave()
    }

    /// Stops admission for a pause and has idle connections closed. False if it has a request or is
    /// not open; nothing changes then.
    pub(crate) fn begin_pause(&self) -> bool {
        let frozen = self.admission.freeze();
        if frozen {
            self.pauses.fetch_add(1, Ordering::AcqRel);
            self.pausing.send_replace(());
        }
        frozen
    }

    pub(crate) async fn disconnected(&self) {
        self.connections.wait().await;
    }

    /// The most concurrent requests since the last call.
    pub(crate) fn take_peak(&self) -> u32 {
        let now = self.admission.in_flight();
        self.peak.swap(now, Ordering::Relaxed).max(now)
    }

    pub(crate) fn set_ready(
        &self,
        address: SocketAddr,
        cold_start: Option<ColdStart>,
        now: Instant,
    ) {
        let _ = self.address.set(address);
        let _ = self.ready_at.set(now);
        if let Some(cold_start) = cold_start {
            let _ = self.cold_start.set(cold_start);
        }
        self.touch(now);
    }

    /// Records the end of a resume, which took the engine `took`.
    pub(crate) fn set_resumed(&self, now: Instant, took: Duration) {
        *self.resumed.lock() = Some((now, took));
    }

    /// The phases of its start, if it became ready after `since`.
    pub(crate) fn started_since(&self, since: Instant) -> Option<&ColdStart> {
        let ready = *self.ready_at.get()?;
        self.cold_start().filter(|_| ready >= since)
    }

    /// The duration of the engine's last unpause call, if it ended after `since`.
    pub(crate) fn resumed_since(&self, since: Instant) -> Option<Duration> {
        let (at, took) = (*self.resumed.lock())?;
        (at >= since).then_some(took)
    }

    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        now.saturating_duration_since(self.created)
            .saturating_sub(since)
    }

    fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.created).as_millis();
        self.idle_since
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Marks an instance as starved; see [`Instance::mark_starved`].
#[derive(Debug)]
pub struct Starvation<'a>(&'a Instance);

impl Drop for Starvation<'_> {
    fn drop(&mut self) {
        self.0.starved.fetch_sub(1, Ordering::Relaxed);
    }
}
