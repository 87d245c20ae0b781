//! The verification of a version on this node: one instance must become ready.
//!
//! The version fails it only by its own fault. Trouble of the node, such as an engine that does not
//! answer, ends it at once without a verdict. If the control plane withdraws the order, the instance
//! that was started only for it is removed.

use crate::engine::error_class::Cause;
use crate::instance::state::{Event, State};
use crate::lifecycle::failure;
use crate::report::{ColdStart, FailureReason, StartFailure, VerifyResult};

use super::PoolActor;

pub(super) struct Verification {
    pub(super) id: String,
    pub(super) result: VerifyResult,
    /// A start has begun, whose outcome decides.
    started: bool,
}

impl Verification {
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            result: VerifyResult::Pending,
            started: false,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.result == VerifyResult::Pending
    }

    /// Whether it is pending and no start has begun.
    pub(super) fn needs_start(&self) -> bool {
        self.is_pending() && !self.started
    }

    pub(super) fn begin_start(&mut self) {
        self.started = true;
    }

    /// Requires another start, if it is pending.
    pub(super) fn retry(&mut self) {
        if self.is_pending() {
            self.started = false;
        }
    }

    pub(super) fn succeed(&mut self, cold_start: ColdStart) {
        self.result = VerifyResult::Verified(cold_start);
    }

    /// Ends it by a failed start.
    pub(super) fn fail(&mut self, failure: &StartFailure, cause: Cause) {
        if self.started && self.is_pending() {
            self.result = match cause {
                Cause::Version => VerifyResult::Failed(failure.clone()),
                Cause::Engine | Cause::Node => VerifyResult::Unverified(failure.clone()),
            };
        }
    }
}

impl PoolActor {
    /// Begins the verification that the route table orders, and withdraws any other. A drained node
    /// verifies nothing.
    pub(super) fn follow_verification(&mut self) {
        let order = self.membership.version.verify.as_ref();
        let order = order.filter(|_| !*self.drained.borrow_and_update());
        match order.map(|order| order.id.clone()) {
            Some(id) if !self.verifies(&id) => {
                self.withdraw_verification();
                self.verification = Some(Verification::new(id));
                self.dirty = true;
            }
            Some(_) => {}
            None => self.withdraw_verification(),
        }
    }

    fn verifies(&self, id: &str) -> bool {
        self.verification.as_ref().is_some_and(|one| one.id == id)
    }

    /// Ends a pending verification without a verdict, if the engine does not answer.
    pub(super) fn end_verification_without_engine(&mut self) {
        if self.availability.borrow().is_available() {
            return;
        }
        let Some(verification) = self.verification.as_mut().filter(|one| one.is_pending()) else {
            return;
        };
        let error = self.context.engine.answer.lock().clone().err();
        let error = error.map_or_else(String::new, |error| format!(": {error}"));
        let failure = StartFailure {
            engine_error: Some(error.trim_start_matches(": ").to_owned()),
            ..failure::new(
                FailureReason::Engine,
                format!("the container engine of this node does not answer{error}"),
            )
        };
        verification.result = VerifyResult::Unverified(failure);
        self.dirty = true;
    }

    /// Ends a pending verification whose order is gone, and removes the instance that was started
    /// only for it.
    pub(super) fn withdraw_verification(&mut self) {
        if !self
            .verification
            .as_ref()
            .is_some_and(Verification::is_pending)
        {
            return;
        }
        self.verification = None;
        self.dirty = true;
        if !self.queue.is_empty() {
            return;
        }
        let unused: Vec<u64> = self
            .instances
            .iter()
            .filter(|(_, one)| one.for_verification)
            .filter(|(_, one)| {
                let is_idle = one.instance.admission.in_flight() == 0;
                one.state.is_starting() || (one.state == State::Ready && is_idle)
            })
            .map(|(serial, _)| *serial)
            .collect();
        for serial in unused {
            self.apply(serial, Event::Drain);
        }
    }
}
