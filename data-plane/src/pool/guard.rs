//! A request's slot in an instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::Message;
use super::shared::Shared;
use crate::instance::Instance;
use crate::report::ColdStart;

/// A request's slot in an instance, held until both bodies end, or the tunnel closes. An instance
/// with a slot taken is neither reaped nor stopped.
#[derive(Debug)]
pub struct Guard {
    instance: Arc<Instance>,
    pool: Arc<Shared>,
    /// When the request entered the queue and how long it waited; `None` if it did not wait.
    waited: Option<(Instant, Duration)>,
}

impl Guard {
    /// Takes a free slot, if there is one.
    pub(super) fn claim(pool: &Arc<Shared>) -> Option<Self> {
        let instance = pool.claim()?;
        Some(Self {
            instance,
            pool: pool.clone(),
            waited: None,
        })
    }

    /// Owns the slot that the actor claimed for a request that waited since `since`.
    pub(super) fn after_wait(instance: Arc<Instance>, pool: &Arc<Shared>, since: Instant) -> Self {
        Self {
            instance,
            pool: pool.clone(),
            waited: Some((since, since.elapsed())),
        }
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Records that the instance responded, whatever the status.
    pub fn answered(&self) {
        self.instance.passive_health.record_answer();
    }

    /// Records that the instance refused, reset, or did not respond in time. Several failures in a
    /// row cause a health check.
    pub fn failed(&self) {
        if self.instance.passive_health.record_failure() {
            self.request_check();
        }
    }

    /// Records that the caller left after it waited so long for a response. A long wait counts as a
    /// failure, because callers have time limits of their own.
    pub fn abandoned(&self, waited: Duration) {
        if self.instance.passive_health.record_abandoned(waited) {
            self.request_check();
        }
    }

    /// Records that the instance sent a malformed response, which `cause` describes in text that is
    /// safe to show. If it is to be logged, returns the number of those before it that were not.
    pub fn malformed(&self, cause: &str) -> Option<u64> {
        let suppressed = self.pool.malformed.lock().record(Instant::now())?;
        self.pool.send(Message::Malformed(format!(
            "an instance sent a malformed response: {cause}; its callers got 502, or a cut response"
        )));
        Some(suppressed)
    }

    fn request_check(&self) {
        let serial = self.instance.serial();
        self.pool.send(Message::CheckHealth(serial));
    }

    /// The most concurrent requests in one instance.
    pub fn concurrency(&self) -> u32 {
        self.pool.concurrency()
    }

    /// Time in the queue; `None` if a slot was free at once.
    pub fn waited(&self) -> Option<Duration> {
        self.waited.map(|(_, waited)| waited)
    }

    /// The instance's start, if it became ready while the request waited.
    pub fn waited_for_start(&self) -> Option<&ColdStart> {
        let (since, _) = self.waited?;
        self.instance.started_since(since)
    }

    /// The duration of the engine's unpause call, if the instance resumed while the request waited.
    pub fn waited_for_resume(&self) -> Option<Duration> {
        let (since, _) = self.waited?;
        self.instance.resumed_since(since)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.pool.release(&self.instance);
    }
}
