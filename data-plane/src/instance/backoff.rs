//! How long a version that fails to start is left alone.
//!
//! What is the version's own fault (it exits, its image is missing) backs off from 1 s, doubled each
//! time, to at most 5 min. What is the engine's or the node's backs off to 5 s at most and does not
//! count: when that is over, no version is punished for it.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// The same for what is not the version's fault.
const FIRST_HINDERED: Duration = Duration::from_millis(250);
const LONGEST_HINDERED: Duration = Duration::from_secs(5);

/// Failures in a row. A good start resets it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
    hindrances: u32,
    until: Option<Instant>,
    /// Who asks meanwhile waits, and is not refused.
    quiet: bool,
}

impl Backoff {
    /// A start failed at `now`, by the version's fault.
    pub fn failed(&mut self, now: Instant) {
        self.leave_alone(now, doubled(FIRST, self.failures, LONGEST));
        self.failures = self.failures.saturating_add(1);
        self.quiet = false;
    }

    /// A start failed at `now`, not by the version's fault. `quiet`: who asks is to wait for the next.
    pub fn hindered(&mut self, now: Instant, quiet: bool) {
        let pause = doubled(FIRST_HINDERED, self.hindrances, LONGEST_HINDERED);
        self.quiet = quiet && self.remaining(now).is_none_or(|_| self.quiet);
        self.leave_alone(now, pause);
        self.hindrances = self.hindrances.saturating_add(1);
    }

    fn leave_alone(&mut self, now: Instant, pause: Duration) {
        self.until = self.until.max(Some(now + pause));
    }

    /// A start succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Failures in a row, by the version's fault.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How long no start may be tried; `None` if one may.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// As [`Backoff::remaining`], if who asks meanwhile is refused.
    pub fn refuses(&self, now: Instant) -> Option<Duration> {
        self.remaining(now).filter(|_| !self.quiet)
    }

    /// No start may be tried now, not even for a proof: the last came to nothing by no fault of the
    /// version's, and who waits goes on waiting.
    pub fn is_quiet(&self, now: Instant) -> bool {
        self.quiet && self.remaining(now).is_some()
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_doubles_up_to_five_minutes_and_a_success_ends_it() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.remaining(now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            backoff.failed(now);
            assert_eq!(backoff.remaining(now), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(backoff.failures(), 11);
        assert_eq!(backoff.remaining(now + LONGEST), None);
        backoff.succeeded();
        assert_eq!((backoff.failures(), backoff.remaining(now)), (0, None));
    }

    #[test]
    fn a_version_is_not_punished_for_the_engine() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            backoff.hindered(now, true);
        }
        assert_eq!(backoff.remaining(now), Some(LONGEST_HINDERED));
        assert_eq!((backoff.failures(), backoff.refuses(now)), (0, None));
        let later = now + LONGEST_HINDERED;
        backoff.failed(later);
        assert_eq!(backoff.refuses(later), Some(FIRST), "its own first failure");
        backoff.hindered(later, true);
        assert_eq!(
            backoff.refuses(later),
            Some(LONGEST_HINDERED),
            "who is refused stays so"
        );
    }

    proptest! {
        #[test]
        fn a_wait_never_shrinks_and_is_bounded_by_whose_fault_it_is(
            steps in proptest::collection::vec((0u64..20_000, 0u8..3), 1..40)
        ) {
            let mut backoff = Backoff::default();
            let mut now = Instant::now();
            for (pause, what) in steps {
                now += Duration::from_millis(pause);
                let before = backoff.remaining(now);
                match what {
                    0 => backoff.failed(now),
                    1 => backoff.hindered(now, true),
                    _ => backoff.succeeded(),
                }
                let after = backoff.remaining(now);
                if what == 2 {
                    prop_assert_eq!(after, None);
                } else {
                    prop_assert!(after >= before && after.is_some());
                    let bound = if backoff.failures() == 0 { LONGEST_HINDERED } else { LONGEST };
                    prop_assert!(after <= Some(bound));
                }
                prop_assert!(!(backoff.is_quiet(now) && backoff.refuses(now).is_some()));
            }
        }
    }
}
