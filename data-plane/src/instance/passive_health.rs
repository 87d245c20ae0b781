//! Passive health: a few failed requests in a row cause a health check.
//!
//! A request fails if its connection is refused, reset or not accepted in time, if its response head
//! exceeds the request's timeout, or if its caller leaves after a long wait. The probe decides
//! whether the instance is taken out, so a slow program, or one busy with a long request, stays.
//!
//! Law: every [`FAILURES_TO_CHECK`]th failure since the last answer requests a check, and nothing
//! else does; at most one check runs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Failures in a row before a check. A single one may have met a server that reloads.
const FAILURES_TO_CHECK: u32 = 3;
/// A caller that leaves earlier may leave for any reason; a later one did not get its answer.
const ABANDONED_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct PassiveHealth {
    failures: AtomicU32,
    checking: AtomicBool,
}

impl PassiveHealth {
    /// Records a response, whatever its status.
    pub(crate) fn record_answer(&self) {
        // Read first: all requests of a busy instance share this cache line.
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Records a failed request. True if a health check is due.
    pub(crate) fn record_failure(&self) -> bool {
        let failures = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        failures.is_multiple_of(FAILURES_TO_CHECK)
    }

    /// Whether a request has failed since the last answer.
    pub(crate) fn has_failures(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 0
    }

    /// Records a caller that left after `waited`. True if a health check is due.
    pub(crate) fn record_abandoned(&self, waited: Duration) -> bool {
        waited >= ABANDONED_AFTER && self.record_failure()
    }

    /// False if a check runs already.
    pub(crate) fn begin_check(&self) -> bool {
        !self.checking.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end_check(&self) {
        self.checking.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_check_at_a_time() {
        let health = PassiveHealth::default();
        assert!(health.begin_check() && !health.begin_check());
        health.end_check();
        assert!(health.begin_check());
    }

    proptest! {
        #[test]
        fn only_failures_in_a_row_ask_for_a_check(answers: Vec<bool>) {
            let health = PassiveHealth::default();
            let mut row = 0;
            for answered in answers {
                if answered {
                    health.record_answer();
                    row = 0;
                } else {
                    row += 1;
                    prop_assert_eq!(health.record_failure(), row % FAILURES_TO_CHECK == 0);
                }
            }
        }
    }
}
