//! Pausing and resuming instances.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::PoolActor;
use crate::instance::state::{Event, State};
use crate::lifecycle::pause::check_paused;
use crate::report::StartFailure;

impl PoolActor {
    /// Pauses an instance, unless a request has just entered it.
    pub(super) fn pause(&mut self, serial: u64) {
        let Some(entry) = self.instances.get(&serial) else {
            return;
        };
        if entry.instance.begin_pause() {
            info!(
                container = entry.instance.name(),
                "pausing an idle instance"
            );
            self.apply(serial, Event::PauseRequested);
        }
    }

    pub(super) fn paused(&mut self, serial: u64, took: Duration) {
        let (service, version) = (&self.shared.service, self.shared.key.number);
        self.context.metrics.paused(service, version, took);
        self.apply(serial, Event::Paused);
    }

    pub(super) fn resumed(&mut self, serial: u64, took: Duration) {
        let (service, version) = (&self.shared.service, self.shared.key.number);
        self.context.metrics.resumed(service, version, took);
        info!(unpause_ms = took.as_millis(), "an instance is resumed");
        if let Some(entry) = self.instances.get(&serial) {
            entry.instance.set_resumed(Instant::now(), took);
        }
        self.apply(serial, Event::Resumed);
    }

    /// Checks a container that was paused although it is to run, or resumed although it is paused.
    /// The node's own pauses are reported too, and fit the state.
    pub(super) fn pause_changed(&mut self, name: &str, paused: bool) {
        let serial = self.serial_of(name);
        let Some(entry) = serial.and_then(|serial| self.instances.get(&serial)) else {
            return;
        };
        let differs = match entry.state {
            State::Starting | State::Probing | State::Ready | State::Draining => paused,
            State::Paused => !paused,
            _ => false,
        };
        if differs {
            let (engine, events) = (self.context.engine.clone(), entry.events.clone());
            tokio::spawn(check_paused(engine, events, name.to_owned(), paused));
        }
    }

    pub(super) fn thawed(&mut self, failure: StartFailure) {
        warn!(message = failure.message, "an instance is resumed");
        self.last_exit = Some(failure);
    }

    /// Takes out an instance that the engine could not pause or resume.
    pub(super) fn pause_failed(&mut self, serial: u64, failure: StartFailure) {
        let entry = self.instances.get(&serial);
        if entry.is_some_and(|one| matches!(one.state, State::Pausing | State::Resuming)) {
            warn!(
                message = failure.message,
                "replacing an instance whose pause failed"
            );
            self.last_exit = Some(failure);
        }
        self.apply(serial, Event::PauseFailed);
    }

    /// Resumes paused instances and releases ready ones: the node stops and leaves its containers.
    pub(super) fn release_ready(&mut self) {
        for serial in self.serials(|state| state == State::Paused) {
            self.apply(serial, Event::ResumeRequested);
        }
        let before = self.instances.len();
        self.instances.retain(|_, one| one.state != State::Ready);
        self.dirty |= self.instances.len() != before;
    }
}
