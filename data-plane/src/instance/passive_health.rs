//! When an instance that serves is to be looked at: after a few requests in a row that it did not
//! answer.
//!
//! A failed request is a connection that was refused, reset or not accepted in time, a response whose
//! head did not come within the request's time, or a caller that left after a long wait without one.
//! Suspicion costs a look and no more: whether the instance is taken out is the probe's verdict. So a
//! program that is slow, or busy with one long request at a time, is looked at and stays.
//!
//! Law: a look is asked for by every [`FAILURES_TO_LOOK`]th failure since the last answer, and by
//! nothing else; at most one look is under way.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Failures in a row: one may have met the moment at which a server reloads.
const FAILURES_TO_LOOK: u32 = 3;
/// A caller that left before this may have left for any reason; one that waited longer gave up.
pub(super) const PATIENT_CALLER: Duration = Duration::from_secs(10);

/// What requests have found of an instance.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    failures: AtomicU32,
    looking: AtomicBool,
}

impl Suspicion {
    /// A request was answered, whatever the answer.
    pub(super) fn answered(&self) {
        // Read first: the line is shared by every request of a busy instance.
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed; true if the instance is to be looked at.
    pub(super) fn failed(&self) -> bool {
        let failures = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        failures.is_multiple_of(FAILURES_TO_LOOK)
    }

    /// Begins a look; false if one is under way.
    pub(super) fn begin_look(&self) -> bool {
        !self.looking.swap(true, Ordering::AcqRel)
    }

    /// The look is over.
    pub(super) fn end_look(&self) {
        self.looking.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_look_at_a_time() {
        let suspicion = Suspicion::default();
        assert!(suspicion.begin_look() && !suspicion.begin_look());
        suspicion.end_look();
        assert!(suspicion.begin_look());
    }

    proptest! {
        #[test]
        fn a_look_is_asked_for_by_failures_in_a_row_alone(answers: Vec<bool>) {
            let suspicion = Suspicion::default();
            let mut row = 0;
            for answered in answers {
                if answered {
                    suspicion.answered();
                    row = 0;
                } else {
                    row += 1;
                    prop_assert_eq!(suspicion.failed(), row % FAILURES_TO_LOOK == 0);
                }
            }
        }
    }
}
