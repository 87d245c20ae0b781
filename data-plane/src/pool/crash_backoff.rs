//! The delay between starts of a version that does not stay up: 1 s, doubled each time, at most 5
//! min.
//!
//! ```text
//!               failed                            ready: on probation
//!   (none) ───────────────────────► backing off ────────────────────► serving
//!      ▲                                  ▲     starts may be tried       │ │
//!      │                                  └───────────────────────────────┘ │
//!      │                                    ended within PROBATION          │
//!      └────────────────────────────────────────────────────────────────────┘
//!                            ready for PROBATION: a successful start
//! ```
//!
//! A ready instance admits callers at once, but its start counts as successful only after
//! [`PROBATION`]. A program that listens and then dies, again and again, is a crash loop like one
//! that never listens. The first early exit in a row is replaced at once; the second waits.
//!
//! Laws (tested below), for the n-th failure since the last successful start: a failed start delays
//! the next by 2^(n-1) s. An early exit delays it by 2^(n-2) s, or by nothing if it is the first.
//! Both are at most 5 min, so delays never shrink within a row. A successful start resets the count;
//! readiness ends a delay and never begins one.
//!
//! Failures of the engine or the node delay the next start by 5 s at most and do not count: no
//! version is punished for them.
//!
//! There is no jitter: callers receive the remaining time, and the start limiter spreads the
//! starts.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(300);
/// Time that an instance must stay up for its start to be successful. A program that fails at its
/// first request or its first database connection does so within seconds.
pub(super) const PROBATION: Duration = Duration::from_secs(10);

const NODE_FIRST: Duration = Duration::from_millis(250);
const NODE_MAX: Duration = Duration::from_secs(5);

/// The failures of a version in a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CrashBackoff {
    failures: u32,
    node_failures: u32,
    /// No start before this time; `None` if one may be tried.
    until: Option<Instant>,
    /// Callers wait during the delay instead of being refused.
    hold: bool,
    /// When the last start became ready; `None` once its instance has exited early.
    ready_at: Option<Instant>,
}

impl CrashBackoff {
    pub(super) fn record_failure(&mut self, now: Instant) {
        let before = self.count(now);
        self.delay(now, doubled(FIRST, before, MAX));
        self.hold = false;
    }

    /// Records a failed start that the engine or the node caused. `hold`: callers wait during the
    /// delay.
    pub(super) fn record_node_failure(&mut self, now: Instant, hold: bool) {
        let delay = doubled(NODE_FIRST, self.node_failures, NODE_MAX);
        self.hold = hold && self.remaining(now).is_none_or(|_| self.hold);
        self.delay(now, delay);
        self.node_failures = self.node_failures.saturating_add(1);
    }

    /// Counts a failure and returns the number of those before it in the row.
    fn count(&mut self, now: Instant) -> u32 {
        if self.is_successful(now) {
            self.failures = 0;
            self.ready_at = None;
        }
        let before = self.failures;
        self.failures = before.saturating_add(1);
        before
    }

    fn delay(&mut self, now: Instant, delay: Duration) {
        self.until = self.until.max(Some(now + delay));
    }

    pub(super) fn record_ready(&mut self, now: Instant) {
        if self.is_successful(now) {
            self.failures = 0;
        }
        self.until = None;
        self.node_failures = 0;
        self.hold = false;
        self.ready_at = Some(now);
    }

    /// Records that an instance, ready since `ready_at`, ended by itself. True if that was so early
    /// that it counts as a failed start.
    pub(super) fn record_exit(&mut self, ready_at: Instant, now: Instant) -> bool {
        let early = now.saturating_duration_since(ready_at) < PROBATION;
        if early {
            let before = self.count(now);
            self.ready_at = None;
            if let Some(doublings) = before.checked_sub(1) {
                self.delay(now, doubled(FIRST, doublings, MAX));
                self.hold = false;
            }
        }
        early
    }

    /// Whether the last start has survived its probation.
    fn is_successful(&self, now: Instant) -> bool {
        self.ready_at
            .is_some_and(|at| now.saturating_duration_since(at) >= PROBATION)
    }

    /// Failures in a row; 0 while the last start is ready.
    pub(super) fn failures(&self) -> u32 {
        match self.ready_at {
            Some(_) if self.until.is_none() => 0,
            _ => self.failures,
        }
    }

    /// The rest of the delay; `None` if a start may be tried.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The rest of the delay, if callers are refused during it.
    pub(super) fn refusal(&self, now: Instant) -> Option<Duration> {
        self.remaining(now).filter(|_| !self.hold)
    }

    /// Whether callers wait for the end of a delay. A verification waits too then.
    pub(super) fn holds_waiters(&self, now: Instant) -> bool {
        self.hold && self.remaining(now).is_some()
    }
}

fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wait(backoff: &CrashBackoff, now: Instant) -> Option<u64> {
        backoff.remaining(now).map(|left| left.as_secs())
    }

    #[test]
    fn it_doubles_up_to_five_minutes_and_a_successful_start_resets_it() {
        let mut now = Instant::now();
        let mut backoff = CrashBackoff::default();
        assert_eq!(backoff.remaining(now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            backoff.record_failure(now);
            assert_eq!(wait(&backoff, now), Some(seconds));
        }
        assert_eq!(backoff.failures(), 11);
        assert_eq!(backoff.remaining(now + MAX), None);
        backoff.record_ready(now);
        assert_eq!((backoff.failures(), backoff.remaining(now)), (0, None));
        now += PROBATION;
        backoff.record_failure(now);
        assert_eq!(wait(&backoff, now), Some(1));
    }

    #[test]
    fn becoming_ready_and_dying_again_and_again_is_a_crash_loop() {
        let mut now = Instant::now();
        let mut backoff = CrashBackoff::default();
        for seconds in [0, 1, 2, 4, 8] {
            backoff.record_ready(now);
            assert_eq!((backoff.failures(), backoff.remaining(now)), (0, None));
            let ready_at = now;
            now += SECOND;
            assert!(backoff.record_exit(ready_at, now));
            let left = (seconds > 0).then_some(seconds);
            assert_eq!(
                wait(&backoff, now),
                left,
                "the first early exit has no delay"
            );
            now += Duration::from_secs(seconds);
        }
        backoff.record_ready(now);
        assert!(!backoff.record_exit(now, now + PROBATION), "it stayed up");
        assert_eq!(
            backoff.remaining(now + PROBATION),
            None,
            "the next start has no delay"
        );
    }

    #[test]
    fn the_exit_of_an_old_instance_is_no_failed_start() {
        let born = Instant::now();
        let mut backoff = CrashBackoff::default();
        backoff.record_ready(born);
        assert!(!backoff.record_exit(born, born + 1000 * SECOND));
        assert_eq!(backoff.failures(), 0);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Failed,
        /// Ready, with an exit after so many seconds.
        Served(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
        let step = prop_oneof![
            Just(Step::Failed),
            (0u64..PROBATION.as_secs()).prop_map(Step::Served),
            (PROBATION.as_secs()..500).prop_map(Step::Served),
        ];
        proptest::collection::vec((step, 0u64..400), 0..40)
    }

    proptest! {
        /// The laws of the module, by a count of failures since the last successful start.
        #[test]
        fn the_wait_is_two_to_the_failures_since_the_last_good_start(steps in steps()) {
            let mut now = Instant::now();
            let mut backoff = CrashBackoff::default();
            let (mut row, mut longest) = (0u32, None);
            let power = |n: u32| Some(300.min(1u64 << n.min(16)));
            for (step, pause) in steps {
                let expected = match step {
                    Step::Failed => {
                        backoff.record_failure(now);
                        row += 1;
                        power(row - 1)
                    }
                    Step::Served(seconds) => {
                        let ready_at = now;
                        backoff.record_ready(ready_at);
                        prop_assert_eq!((backoff.remaining(now), backoff.failures()), (None, 0));
                        now += Duration::from_secs(seconds);
                        let early = backoff.record_exit(ready_at, now);
                        prop_assert_eq!(early, seconds < PROBATION.as_secs());
                        row = if early { row + 1 } else { 0 };
                        row.checked_sub(2).and_then(power)
                    }
                };
                prop_assert_eq!(wait(&backoff, now), expected);
                longest = if row == 0 { None } else { longest };
                prop_assert!(expected >= longest, "a wait shrank within a row");
                longest = expected;
                if row > 0 {
                    prop_assert_eq!(backoff.failures(), row);
                }
                now += Duration::from_secs(pause);
            }
        }
    }

    #[test]
    fn a_version_is_not_punished_for_the_engine() {
        let now = Instant::now();
        let mut backoff = CrashBackoff::default();
        for _ in 0..50 {
            backoff.record_node_failure(now, true);
        }
        assert_eq!(backoff.remaining(now), Some(NODE_MAX));
        assert_eq!((backoff.failures(), backoff.refusal(now)), (0, None));
        let later = now + NODE_MAX;
        backoff.record_failure(later);
        assert_eq!(backoff.refusal(later), Some(FIRST), "its own first failure");
        backoff.record_node_failure(later, true);
        assert_eq!(
            backoff.refusal(later),
            Some(NODE_MAX),
            "callers stay refused"
        );
    }

    proptest! {
        #[test]
        fn a_delay_never_shrinks_and_is_bounded_by_its_cause(
            steps in proptest::collection::vec((0u64..20_000, 0u8..3), 1..40)
        ) {
            let mut backoff = CrashBackoff::default();
            let mut now = Instant::now();
            for (pause, kind) in steps {
                now += Duration::from_millis(pause);
                let before = backoff.remaining(now);
                match kind {
                    0 => backoff.record_failure(now),
                    1 => backoff.record_node_failure(now, true),
                    _ => backoff.record_ready(now),
                }
                let after = backoff.remaining(now);
                if kind == 2 {
                    prop_assert_eq!(after, None);
                } else {
                    prop_assert!(after >= before && after.is_some());
                    let bound = if backoff.failures() == 0 { NODE_MAX } else { MAX };
                    prop_assert!(after <= Some(bound));
                }
                prop_assert!(!(backoff.holds_waiters(now) && backoff.refusal(now).is_some()));
            }
        }
    }
}
