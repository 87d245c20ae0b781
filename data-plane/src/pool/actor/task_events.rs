//! What the tasks of starts, sleeps and removals tell, and what follows from it.

use std::time::Instant;

use tracing::warn;

use super::{Owner, Progress, is_starting};
use crate::instance::pool::Refusal;
use crate::instance::report::{StartFailure, VerifyResult};
use crate::instance::start::Started;
use crate::instance::state::Event;
use crate::instance::trouble::Cause;

impl Owner {
    pub(super) fn progress(&mut self, serial: u64, progress: Progress) {
        self.dirty = true;
        match progress {
            Progress::Pulling(line) => self.pull_progress = line,
            Progress::Pulled => self.pulled = true,
            Progress::Resolved(digest) => self.resolved(serial, digest),
            Progress::Created(id) => {
                if let Some(tenant) = self.tenants.get_mut(&serial) {
                    tenant.container = id.chars().take(12).collect();
                }
                self.apply(serial, Event::Created);
            }
            Progress::Started => self.apply(serial, Event::Started),
            Progress::Answered(started) => self.answered(serial, *started),
            Progress::Failed(failure, cause) => self.failed(serial, *failure, cause),
            Progress::Spent(reason, spent) => self.spent(serial, reason, &spent),
            Progress::Explained(failure) => self.last_end = Some(*failure),
            Progress::Paused(took) => self.paused(serial, took),
            Progress::Awake => self.apply(serial, Event::StillAwake),
            Progress::Resumed(took) => self.resumed(serial, took),
            Progress::Stuck(failure) => self.stuck(serial, *failure),
            Progress::Deaf(failure) => self.deaf(serial, *failure),
            Progress::Removed => self.apply(serial, Event::Removed),
        }
    }

    fn answered(&mut self, serial: u64, started: Started) {
        let Some(tenant) = self.tenants.get_mut(&serial) else {
            return;
        };
        let now = Instant::now();
        tenant
            .instance
            .answered(started.address, started.cold_start.clone(), now);
        // One that was taken over has been up for longer than this process knows.
        tenant.outages = self.outage.borrow().count();
        tenant.ready_at = started.cold_start.is_some().then_some(now);
        self.port = Some(started.address.port());
        self.backoff.ready(now);
        self.last_failure = None;
        if let Some(cold_start) = started.cold_start {
            self.looked = true;
            let service = &self.member.version.service;
            self.around
                .metrics
                .cold_start(service, self.shared.key.number, &cold_start);
            self.last_cold_start = Some(cold_start);
        }
        self.apply(serial, Event::Answered);
    }

    fn failed(&mut self, serial: u64, failure: StartFailure, cause: Cause) {
        let wanted = self
            .tenants
            .get(&serial)
            .is_some_and(|tenant| is_starting(tenant.state));
        if wanted {
            warn!(
                service = %self.member.version.service, version = self.shared.key.number,
                reason = ?failure.reason, message = failure.message, ?cause, "a start failed"
            );
            let again = self.back_off(cause, Instant::now());
            let service = &self.member.version.service;
            self.around
                .metrics
                .start_failed(service, self.shared.key.number, failure.reason);
            if let Some(proof) = &mut self.proof
                && proof.tried
                && proof.result == VerifyResult::Pending
            {
                match again {
                    true => proof.tried = false,
                    false => proof.result = VerifyResult::Failed(failure.clone()),
                }
            }
            self.last_failure = Some(failure);
        }
        self.apply(serial, Event::StartFailed);
        match self.nothing_to_wait_for(Instant::now()) {
            Some(Refusal::BackingOff { retry_after }) => {
                self.refuse_all(Refusal::StartFailed { retry_after });
            }
            Some(refusal) => self.refuse_all(refusal),
            None => {}
        }
    }
}
