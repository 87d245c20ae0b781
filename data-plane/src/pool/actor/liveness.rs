//! Instances that end by themselves, and those that stop answering.

use std::time::Instant;

use tracing::warn;

use super::{Owner, Progress};
use crate::instance::owner::Message;
use crate::instance::probe::Probe;
use crate::instance::report::{FailureReason, StartFailure};
use crate::instance::state::{Event, State};
use crate::instance::{backoff, failure};
use crate::route::Readiness;

impl Owner {
    /// An instance has failed a few requests in a row, or its HEALTHCHECK says that it is not well:
    /// it is asked by the probe that found it ready, and the answer decides.
    pub(super) fn look_at(&mut self, serial: u64) {
        let Some(tenant) = self.tenants.get(&serial) else {
            return;
        };
        let (State::Ready, Some(address)) = (tenant.state, tenant.instance.address()) else {
            return;
        };
        if !tenant.instance.suspicion.begin_look() {
            return;
        }
        let (pool, instance) = (self.shared.clone(), tenant.instance.clone());
        let runtime = self.around.engine.runtime.clone();
        let name = instance.name().to_owned();
        let probe = Probe::new(runtime, name, address, &self.member.version.spec);
        tokio::spawn(async move {
            if let Err(found) = probe.still_answers().await {
                let failure = StartFailure {
                    last_probe: Some(found.clone()),
                    ..failure::new(
                        FailureReason::NotReady,
                        format!("the container stopped answering while it served: {found}"),
                    )
                };
                pool.tell(Message::Progress(serial, Progress::Deaf(Box::new(failure))));
            }
            instance.suspicion.end_look();
        });
    }

    /// The engine says that a container's HEALTHCHECK fails. That decides only where the version made
    /// it its readiness.
    pub(super) fn unhealthy(&mut self, name: &str) {
        if self.member.version.spec.readiness != Readiness::Healthcheck {
            return;
        }
        let found = self
            .tenants
            .iter()
            .find(|(_, tenant)| tenant.instance.name() == name);
        if let Some((&serial, _)) = found {
            self.look_at(serial);
        }
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
            self.ended(serial);
        }
        self.apply(serial, Event::Deaf);
    }

    /// An instance has stopped serving by itself: soon after it became ready, that is a failed start,
    /// but for an engine that was away meanwhile, which ends what it runs when it starts anew.
    pub(super) fn ended(&mut self, serial: u64) {
        let outages = self.outage.borrow().count();
        let of_its_own = self
            .tenants
            .get(&serial)
            .filter(|one| one.outages == outages);
        let Some(ready_at) = of_its_own.and_then(|one| one.ready_at) else {
            return;
        };
        if self.backoff.ended(ready_at, Instant::now()) {
            warn!(
                service = %self.member.version.service, version = self.shared.key.number,
                failures = self.backoff.failures(), within = ?backoff::PROBATION,
                "an instance ended soon after it was ready, which counts as a failed start"
            );
        }
        self.dirty = true;
    }
}
