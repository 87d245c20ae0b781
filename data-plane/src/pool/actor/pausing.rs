//! Instances that sleep and wake.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Owner;
use crate::instance::report::StartFailure;
use crate::instance::state::{Event, State};

impl Owner {
    /// Puts an instance to sleep, unless a request has just entered it.
    pub(super) fn pause(&mut self, serial: u64) {
        let Some(tenant) = self.tenants.get(&serial) else {
            return;
        };
        if tenant.instance.fall_asleep() {
            info!(
                service = %self.member.version.service, version = self.shared.key.number,
                container = tenant.instance.name(), "pausing an idle instance"
            );
            self.apply(serial, Event::Closed);
        }
    }

    pub(super) fn paused(&mut self, serial: u64, took: Duration) {
        let service = &self.member.version.service;
        self.around
            .metrics
            .paused(service, self.shared.key.number, took);
        self.apply(serial, Event::Paused);
    }

    pub(super) fn wake(&mut self, serial: u64) {
        self.apply(serial, Event::Wake);
    }

    pub(super) fn resumed(&mut self, serial: u64, took: Duration) {
        let service = &self.member.version.service;
        let number = self.shared.key.number;
        self.around.metrics.woken(service, number, took);
        info!(
            service = %service, version = number, unpause_ms = took.as_millis(),
            "an instance is awake"
        );
        if let Some(tenant) = self.tenants.get(&serial) {
            tenant.instance.woke(Instant::now(), took);
        }
        self.apply(serial, Event::Resumed);
    }

    /// The engine could not freeze or thaw it: of no use, whatever it is now.
    pub(super) fn stuck(&mut self, serial: u64, failure: StartFailure) {
        let turning = |state| matches!(state, State::Pausing | State::Resuming);
        if self
            .tenants
            .get(&serial)
            .is_some_and(|one| turning(one.state))
        {
            warn!(
                service = %self.member.version.service, version = self.shared.key.number,
                message = failure.message, "an instance is taken out"
            );
            self.last_end = Some(failure);
        }
        self.apply(serial, Event::Stuck);
    }

    /// The node stops and leaves its containers: what sleeps is woken, what is awake is let go.
    pub(super) fn leave_awake(&mut self) {
        for serial in self.serials(|state| state == State::Paused) {
            self.wake(serial);
        }
        let before = self.tenants.len();
        self.tenants.retain(|_, one| one.state != State::Ready);
        self.dirty |= self.tenants.len() != before;
    }
}
