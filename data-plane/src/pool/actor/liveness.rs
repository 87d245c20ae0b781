//! Instances that end by themselves, or stop answering.

use std::time::Instant;

use tracing::{info, warn};

use super::PoolActor;
use crate::instance::state::{Event, State};
use crate::lifecycle::event::TaskEvent;
use crate::lifecycle::failure;
use crate::lifecycle::probe::Probe;
use crate::pool::crash_backoff::PROBATION;
use crate::report::{FailureReason, StartFailure};
use crate::route::Readiness;

impl PoolActor {
    /// Probes a ready instance, after failed requests or a failed HEALTHCHECK. The result decides
    /// whether it is taken out.
    pub(super) fn check_health(&mut self, serial: u64) {
        let Some(entry) = self.instances.get(&serial) else {
            return;
        };
        let (State::Ready, Some(address)) = (entry.state, entry.instance.address()) else {
            return;
        };
        if !entry.instance.passive_health.begin_check() {
            return;
        }
        let (events, instance) = (entry.events.clone(), entry.instance.clone());
        let runtime = self.context.engine.runtime.clone();
        let name = instance.name().to_owned();
        let probe = Probe::new(runtime, name, address, &self.membership.version);
        tokio::spawn(async move {
            if let Err(found) = probe.still_answers().await {
                let message = format!("the container stopped answering while it served: {found}");
                let failure = StartFailure {
                    last_probe: Some(found),
                    ..failure::new(FailureReason::NotReady, message)
                };
                events.send(TaskEvent::Unresponsive(Box::new(failure)));
            }
            instance.passive_health.end_check();
        });
    }

    /// Handles a failed HEALTHCHECK, which matters only if it is the version's readiness probe.
    pub(super) fn unhealthy(&mut self, name: &str) {
        if self.membership.version.spec.readiness != Readiness::Healthcheck {
            return;
        }
        if let Some(serial) = self.serial_of(name) {
            self.check_health(serial);
        }
    }

    /// Takes an unresponsive instance out. Requests in it may still be answered.
    pub(super) fn unresponsive(&mut self, serial: u64, failure: StartFailure) {
        let entry = self.instances.get(&serial);
        if entry.is_some_and(|entry| entry.state == State::Ready) {
            warn!(
                message = failure.message,
                "replacing an unresponsive instance"
            );
            self.last_exit = Some(failure);
            self.record_exit(serial);
        }
        self.apply(serial, Event::Unresponsive);
    }

    /// Shows a malformed response in the version's status.
    pub(super) fn malformed(&mut self, message: String) {
        self.last_exit = Some(failure::new(FailureReason::MalformedResponse, message));
        self.dirty = true;
    }

    pub(super) fn died(&mut self, name: &str, exit_code: Option<i32>) {
        let Some(serial) = self.serial_of(name) else {
            return;
        };
        let Some(entry) = self.instances.get(&serial) else {
            return;
        };
        if exit_code == Some(0) && entry.state == State::Ready && entry.is_idle() {
            return self.exited_idle(serial);
        }
        // A start finds the reason itself and reports it.
        entry.died.cancel();
        if !entry.state.is_starting() {
            if entry.state.is_active() {
                self.record_exit(serial);
            }
            self.apply(serial, Event::Died);
        }
    }

    /// Removes an instance that exited with 0 while nothing was in flight, which is no crash. The
    /// next caller starts another one at once; a refill waits, so that a program that always exits
    /// does not start all the time.
    fn exited_idle(&mut self, serial: u64) {
        let now = Instant::now();
        let ready_at = self.instances.get(&serial).and_then(|entry| entry.ready_at);
        let early = ready_at.is_some_and(|at| now.saturating_duration_since(at) < PROBATION);
        if early {
            self.refill_at = Some(now + PROBATION);
        }
        info!("an idle instance exited with code 0");
        self.apply(serial, Event::Drain);
    }

    /// Handles the loss of a container's network. Starts and adoptions have a token for it.
    pub(super) fn network_lost(&mut self, name: &str) {
        if let Some(serial) = self.serial_of(name)
            && let Some(entry) = self.instances.get(&serial)
            && !entry.state.is_starting()
        {
            self.apply(serial, Event::Died);
        }
    }

    /// Counts an early end of an instance as a failed start, unless an outage in between explains
    /// it: a restarting engine ends its containers.
    fn record_exit(&mut self, serial: u64) {
        let outages = self.availability.borrow().outages();
        let entry = self.instances.get(&serial);
        let own = entry.filter(|entry| entry.outages == outages);
        let Some(ready_at) = own.and_then(|entry| entry.ready_at) else {
            return;
        };
        if self.backoff.record_exit(ready_at, Instant::now()) {
            warn!(
                failures = self.backoff.failures(), within = ?PROBATION,
                "an instance ended soon after it was ready, which counts as a failed start"
            );
        }
        self.dirty = true;
    }

    pub(super) fn serial_of(&self, name: &str) -> Option<u64> {
        let mut entries = self.instances.iter();
        let found = entries.find(|(_, entry)| entry.instance.name() == name);
        found.map(|(serial, _)| *serial)
    }
}
