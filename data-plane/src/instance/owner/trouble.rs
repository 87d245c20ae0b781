//! What an owner does about starts that fail, by whose fault that is.

use std::time::{Duration, Instant};

use super::Owner;
use super::tenant::{is_hopeful, is_starting};
use crate::instance::phases::Spent;
use crate::instance::pool::Refusal;
use crate::instance::report::FailureReason;
use crate::instance::state::State;
use crate::instance::trouble::Cause;

impl Owner {
    /// Leaves the version alone for a while. True if it is tried again by itself, without anybody
    /// being told.
    pub(super) fn back_off(&mut self, cause: Cause, now: Instant) -> bool {
        let again = cause == Cause::Engine && self.outage.borrow().refuses(now).is_none();
        match cause {
            Cause::Version => self.backoff.failed(now),
            Cause::Engine | Cause::Node => self.backoff.hindered(now, again),
        }
        again
    }

    /// What those in the queue are told, if there is nothing that they could wait for.
    pub(super) fn nothing_to_wait_for(&self, now: Instant) -> Option<Refusal> {
        // What is not ready needs the engine, whatever it is on its way to.
        if let Some(retry_after) = self.outage.borrow().refuses(now)
            && self.count(|state| state == State::Ready) == 0
        {
            return Some(Refusal::EngineAway { retry_after });
        }
        if self.count(is_hopeful) > 0 {
            return None;
        }
        let retry_after = self.backoff.refuses(now)?;
        Some(Refusal::BackingOff { retry_after })
    }

    /// How long until those in the queue are told, if the engine stays away.
    pub(super) fn patience_left(&self, now: Instant) -> Option<Duration> {
        let waits = !self.queue.is_empty();
        let left = self.outage.borrow().patience_left(now);
        left.filter(|_| waits)
    }

    /// Where the time of a start went that came to nothing.
    pub(super) fn spent(&self, serial: u64, reason: FailureReason, spent: &Spent) {
        let tenant = self.tenants.get(&serial);
        if tenant.is_some_and(|one| is_starting(one.state)) {
            let service = &self.member.version.service;
            self.around
                .metrics
                .spent(service, self.shared.key.number, reason, spent.phases());
        }
    }
}
