//! An instance as requests see it, and the place that a request holds in one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Refused};
use super::pool::Shared;
use super::report::ColdStart;

/// One instance. Its life is in the hands of the pool's owner task; this is what is shared.
#[derive(Debug)]
pub struct Instance {
    serial: u64,
    name: String,
    born: Instant,
    /// When the last request left, in ms after `born`.
    idle_since: AtomicU64,
    pub(super) admission: Admission,
    address: OnceLock<SocketAddr>,
    cold_start: OnceLock<ColdStart>,
    retired: CancellationToken,
}

impl Instance {
    pub(super) fn new(name: String, born: Instant) -> Self {
        /// Names instances within the process; addresses are reused, these are not.
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            name,
            born,
            idle_since: AtomicU64::new(0),
            admission: Admission::default(),
            address: OnceLock::new(),
            cold_start: OnceLock::new(),
            retired: CancellationToken::new(),
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

    pub(super) fn answered(
        &self,
        address: SocketAddr,
        cold_start: Option<ColdStart>,
        now: Instant,
    ) {
        let _ = self.address.set(address);
        if let Some(cold_start) = cold_start {
            let _ = self.cold_start.set(cold_start);
        }
        self.touch(now);
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

/// A request's place in an instance. Held until both its bodies are done, and in tunnels until they
/// close; while one is held the instance is neither reaped nor stopped.
#[derive(Debug)]
pub struct Guard {
    instance: Arc<Instance>,
    pool: Arc<Shared>,
    waited: Option<Duration>,
}

impl Guard {
    /// Takes a place in `instance`, if there is one.
    pub(super) fn enter(instance: &Arc<Instance>, pool: &Arc<Shared>) -> Result<Self, Refused> {
        instance.admission.enter(pool.concurrency())?;
        Ok(Self {
            instance: instance.clone(),
            pool: pool.clone(),
            waited: None,
        })
    }

    pub(super) fn set_waited(&mut self, waited: Duration) {
        self.waited = Some(waited);
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// How long the request stood in the queue; `None` if it found a place at once.
    pub fn waited(&self) -> Option<Duration> {
        self.waited
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
