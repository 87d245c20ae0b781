//! An instance as requests see it, and the place that a request holds in one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::admission::{Admission, Refused};
use super::owner::Message;
use super::pool::Shared;
use super::report::ColdStart;
use super::suspicion::{PATIENT_CALLER, Suspicion};

/// One instance. Its life is in the hands of the pool's owner task; this is what is shared.
#[derive(Debug)]
pub struct Instance {
    serial: u64,
    name: String,
    born: Instant,
    /// When the last request left, in ms after `born`.
    idle_since: AtomicU64,
    pub(super) admission: Admission,
    /// The most requests at once since [`Instance::take_peak`].
    peak: AtomicU32,
    /// What requests have found of it.
    pub(super) suspicion: Suspicion,
    address: OnceLock<SocketAddr>,
    cold_start: OnceLock<ColdStart>,
    ready_at: OnceLock<Instant>,
    /// The end of its last wake, and what the engine took for it.
    woke: Mutex<Option<(Instant, Duration)>>,
    retired: CancellationToken,
    /// New connections that it does not answer, perhaps because it waits on an idle one.
    hungry: AtomicU32,
    /// How often it was put to sleep.
    sleeps: AtomicU64,
    falls_asleep: watch::Sender<()>,
    connections: TaskTracker,
}

impl Instance {
    pub(super) fn new(name: String, born: Instant) -> Self {
        /// Names instances within the process; addresses are reused, these are not.
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let connections = TaskTracker::new();
        // So that waiting ends when there is none; new ones are counted all the same.
        connections.close();
        Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            name,
            born,
            idle_since: AtomicU64::new(0),
            admission: Admission::default(),
            peak: AtomicU32::new(0),
            suspicion: Suspicion::default(),
            address: OnceLock::new(),
            cold_start: OnceLock::new(),
            ready_at: OnceLock::new(),
            woke: Mutex::default(),
            retired: CancellationToken::new(),
            hungry: AtomicU32::new(0),
            sleeps: AtomicU64::new(0),
            falls_asleep: watch::Sender::new(()),
            connections,
        }
    }

    /// Unique within the process and never reused: what upstream connections are keyed by.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens. Known once it is ready, so always known to who holds a [`Guard`].
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// Where the time of its start went; unknown for one that was adopted.
    pub fn cold_start(&self) -> Option<&ColdStart> {
        self.cold_start.get()
    }

    /// Cancelled when no further request enters it: idle connections to it are dropped then.
    pub fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// Whether [`Instance::retired`] is cancelled.
    pub fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// How often it was put to sleep. A connection made before the last time is not used again: who
    /// sleeps through its own time limits closes it on waking.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.load(Ordering::Acquire)
    }

    /// Changes each time it is put to sleep, after [`Instance::sleeps`] has: idle connections to it
    /// are dropped then.
    pub fn falls_asleep(&self) -> watch::Receiver<()> {
        self.falls_asleep.subscribe()
    }

    /// Held as long as a connection to it is open. It is frozen only when none is.
    pub fn connection(&self) -> TaskTrackerToken {
        self.connections.token()
    }

    /// Connections to it that are open.
    pub fn connections_open(&self) -> usize {
        self.connections.len()
    }

    /// Whether a new connection to it waits for an answer for long: no idle one is kept then, or a
    /// server that takes one connection at a time would be left waiting on it.
    pub fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed) > 0
    }

    /// It [is hungry](Self::is_hungry) until the returned value is dropped.
    pub fn hungers(&self) -> Hunger<'_> {
        self.hungry.fetch_add(1, Ordering::Relaxed);
        Hunger(self)
    }

    /// Lets nobody in, so that it may sleep, and has its idle connections dropped. False if a
    /// request is in it, or it is not open.
    pub(super) fn fall_asleep(&self) -> bool {
        let asleep = self.admission.freeze();
        if asleep {
            self.sleeps.fetch_add(1, Ordering::AcqRel);
            self.falls_asleep.send_replace(());
        }
        asleep
    }

    /// Waits until no connection to it is open.
    pub(super) async fn disconnected(&self) {
        self.connections.wait().await;
    }

    /// The most requests it had at once since this was last asked.
    pub(super) fn take_peak(&self) -> u32 {
        let now = self.admission.in_flight();
        self.peak.swap(now, Ordering::Relaxed).max(now)
    }

    pub(super) fn answered(
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

    pub(super) fn woke(&self, now: Instant, took: Duration) {
        *self.woke.lock() = Some((now, took));
    }

    pub(super) fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.born).as_millis();
        self.idle_since
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        now.saturating_duration_since(self.born)
            .saturating_sub(since)
    }
}

/// See [`Instance::hungers`].
#[derive(Debug)]
pub struct Hunger<'a>(&'a Instance);

impl Drop for Hunger<'_> {
    fn drop(&mut self) {
        self.0.hungry.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's place in an instance. Held until both its bodies are done, and in tunnels until they
/// close; while one is held the instance is neither reaped nor stopped.
#[derive(Debug)]
pub struct Guard {
    instance: Arc<Instance>,
    pool: Arc<Shared>,
    /// Since when the request stood in the queue, and for how long.
    waited: Option<(Instant, Duration)>,
}

impl Guard {
    /// Takes a place in `instance`, if there is one.
    pub(super) fn enter(instance: &Arc<Instance>, pool: &Arc<Shared>) -> Result<Self, Refused> {
        let taken = instance.admission.enter(pool.concurrency())?;
        if taken > instance.peak.load(Ordering::Relaxed) {
            instance.peak.fetch_max(taken, Ordering::Relaxed);
        }
        Ok(Self {
            instance: instance.clone(),
            pool: pool.clone(),
            waited: None,
        })
    }

    pub(super) fn set_waited(&mut self, since: Instant) {
        self.waited = Some((since, since.elapsed()));
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The instance answered a request, whatever it said.
    pub fn answered(&self) {
        self.instance.suspicion.answered();
    }

    /// The instance did not answer a request: it refused, reset, or was silent. After a few in a row it
    /// is looked at, and taken out if it does not answer its probe.
    pub fn failed(&self) {
        if self.instance.suspicion.failed() {
            self.pool.tell(Message::Suspected(self.instance.serial()));
        }
    }

    /// The caller left after it waited for an answer so long: after a long wait that counts as a
    /// failure, for callers have time limits of their own.
    pub fn abandoned(&self, waited: Duration) {
        if waited >= PATIENT_CALLER {
            self.failed();
        }
    }

    /// The most requests at once in one instance.
    pub fn concurrency(&self) -> u32 {
        self.pool.concurrency()
    }

    /// How long the request stood in the queue; `None` if it found a place at once.
    pub fn waited(&self) -> Option<Duration> {
        self.waited.map(|(_, waited)| waited)
    }

    /// The start of the instance, if it became ready while the request waited.
    pub fn waited_for_start(&self) -> Option<&ColdStart> {
        let (since, _) = self.waited?;
        let ready = *self.instance.ready_at.get()?;
        self.instance.cold_start().filter(|_| ready >= since)
    }

    /// What the engine took to wake the instance, if it woke while the request waited.
    pub fn waited_for_wake(&self) -> Option<Duration> {
        let (since, _) = self.waited?;
        let (at, took) = (*self.instance.woke.lock())?;
        (at >= since).then_some(took)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before the place is given back, so that the reaper never sees an empty instance with an
        // old time.
        self.instance.touch(Instant::now());
        let emptied = self.instance.admission.leave();
        self.pool.left(&self.instance, emptied);
    }
}
