//! The verification of a version on this node: one instance must become ready.

use crate::report::{ColdStart, StartFailure, VerifyResult};

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

    pub(super) fn fail(&mut self, failure: &StartFailure) {
        if self.started && self.is_pending() {
            self.result = VerifyResult::Failed(failure.clone());
        }
    }
}
