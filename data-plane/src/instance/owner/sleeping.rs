//! Instances that sleep, wake, or do not answer any more.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Owner, Progress};
use crate::instance::owner::Message;
use crate::instance::report::{FailureReason, StartFailure};
use crate::instance::state::{Event, State};
use crate::instance::{failure, probe};

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

    /// An instance has refused a few connections in a row: asks it once, as when it started.
    pub(super) fn look_at(&mut self, serial: u64) {
        let Some(tenant) = self.tenants.get(&serial) else {
            return;
        };
        let (State::Ready, Some(address)) = (tenant.state, tenant.instance.address()) else {
            return;
        };
        let (pool, version) = (self.shared.clone(), self.member.version.clone());
        tokio::spawn(async move {
            let once = Instant::now();
            if let Err(found) = probe::until_ready(address, &version.spec.readiness, once).await {
                let failure = failure::new(
                    FailureReason::NotReady,
                    format!("the container stopped answering while it served: {found}"),
                );
                pool.tell(Message::Progress(serial, Progress::Deaf(Box::new(failure))));
            }
        });
    }

    /// Nobody enters it any more and another takes its place. What is in it may still be answered.
    pub(super) fn deaf(&mut self, serial: u64, failure: StartFailure) {
        if self
            .tenants
            .get(&serial)
            .is_some_and(|one| one.state == State::Ready)
        {
            warn!(
                service = %self.member.version.service, version = self.shared.key.number,
                message = failure.message, "an instance is taken out"
            );
            self.last_end = Some(failure);
        }
        self.apply(serial, Event::Deaf);
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
