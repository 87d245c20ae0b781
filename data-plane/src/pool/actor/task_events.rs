//! The effect of the events that lifecycle tasks report.

use std::time::Instant;

use tracing::warn;

use super::PoolActor;
use crate::engine::error_class::Cause;
use crate::instance::state::Event;
use crate::lifecycle::event::{Started, TaskEvent};
use crate::lifecycle::phases::FailedPhases;
use crate::pool::refusal::Refusal;
use crate::report::{FailureReason, StartFailure};

impl PoolActor {
    pub(super) fn task_event(&mut self, serial: u64, event: TaskEvent) {
        if matches!(event, TaskEvent::StartUnconfirmed) {
            return self.check_health(serial);
        }
        self.dirty = true;
        match event {
            TaskEvent::StartUnconfirmed => {}
            TaskEvent::Pulling(line) => self.pull_progress = line,
            TaskEvent::Pulled => self.image_pulled = true,
            TaskEvent::Port(port) => self.port_in_force = Some(port),
            TaskEvent::Runs(digest) => self.runs_digest(serial, digest),
            TaskEvent::DigestConfirmed(digest, cold_start) => {
                self.digest_confirmed(digest, cold_start.map(|one| *one));
            }
            TaskEvent::ImageWarning(warning) => self.image_warning = warning,
            TaskEvent::Created(id) => {
                if let Some(entry) = self.instances.get_mut(&serial) {
                    entry.set_container_id(&id);
                }
                self.apply(serial, Event::Created);
            }
            TaskEvent::Started => self.apply(serial, Event::Started),
            TaskEvent::Answered(started) => self.answered(serial, *started),
            TaskEvent::Failed(failure, cause) => self.start_failed(serial, *failure, cause),
            TaskEvent::FailedPhases(reason, phases) => self.failed_phases(serial, reason, &phases),
            TaskEvent::Exited(failure) => self.last_exit = Some(*failure),
            TaskEvent::Paused(took) => self.paused(serial, took),
            TaskEvent::PauseSkipped => self.apply(serial, Event::PauseSkipped),
            TaskEvent::Resumed(took) => self.resumed(serial, took),
            TaskEvent::PauseFailed(failure) => self.pause_failed(serial, *failure),
            TaskEvent::Unresponsive(failure) => self.unresponsive(serial, *failure),
            TaskEvent::Thawed(failure) => self.thawed(*failure),
            TaskEvent::RunsAgain => self.apply(serial, Event::ResumeRequested),
            TaskEvent::Removed => self.apply(serial, Event::Removed),
        }
    }

    fn answered(&mut self, serial: u64, started: Started) {
        let Some(entry) = self.instances.get_mut(&serial) else {
            return;
        };
        let now = Instant::now();
        entry
            .instance
            .set_ready(started.address, started.cold_start.clone(), now);
        entry.outages = self.availability.borrow().outages();
        // The age of an adopted instance is unknown.
        entry.ready_at = started.cold_start.is_some().then_some(now);
        self.port = Some(started.address.port());
        self.port_in_force = self.port;
        self.backoff.record_ready(now);
        self.last_failure = None;
        if let Some(cold_start) = started.cold_start {
            self.image_inspected = true;
            let (service, version) = (&self.shared.service, self.shared.key.number);
            let metrics = &self.context.metrics;
            metrics.cold_start(service, version, &cold_start);
            self.last_cold_start = Some(cold_start);
        }
        self.apply(serial, Event::Answered);
    }

    fn start_failed(&mut self, serial: u64, failure: StartFailure, cause: Cause) {
        if self.is_starting(serial) {
            warn!(
                reason = ?failure.reason, message = failure.message, ?cause, "a start failed"
            );
            self.back_off(cause, Instant::now());
            let (service, version) = (&self.shared.service, self.shared.key.number);
            let metrics = &self.context.metrics;
            metrics.start_failed(service, version, failure.reason);
            if let Some(verification) = &mut self.verification {
                verification.fail(&failure, cause);
            }
            self.last_failure = Some(failure);
        }
        self.apply(serial, Event::StartFailed);
        match self.refusal(Instant::now()) {
            Some(Refusal::BackingOff { retry_after }) => {
                self.refuse_all(Refusal::StartFailed { retry_after });
            }
            Some(refusal) => self.refuse_all(refusal),
            None => {}
        }
    }

    /// Delays the next start.
    fn back_off(&mut self, cause: Cause, now: Instant) {
        let in_grace = self.availability.borrow().refusal(now).is_none();
        let holds = cause == Cause::Engine && in_grace;
        match cause {
            Cause::Version => self.backoff.record_failure(now),
            Cause::Engine | Cause::Node => self.backoff.record_node_failure(now, holds),
        }
    }

    fn failed_phases(&self, serial: u64, reason: FailureReason, phases: &FailedPhases) {
        if self.is_starting(serial) {
            let (service, version) = (&self.shared.service, self.shared.key.number);
            let metrics = &self.context.metrics;
            metrics.failed_phases(service, version, reason, phases.iter());
        }
    }

    fn is_starting(&self, serial: u64) -> bool {
        let entry = self.instances.get(&serial);
        entry.is_some_and(|entry| entry.state.is_starting())
    }
}
