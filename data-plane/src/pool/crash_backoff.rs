//! How long a version that does not stay up is left alone: 1 s, doubled each time, at most 5 min.
//!
//! ```text
//!               failed: left alone                ready: on probation
//!   (quiet) ───────────────────────► backing off ────────────────────► serving
//!      ▲                                  ▲     starts may be tried       │ │
//!      │                                  └───────────────────────────────┘ │
//!      │                                    ended within PROBATION          │
//!      └────────────────────────────────────────────────────────────────────┘
//!                            ready for PROBATION: a good start
//! ```
//!
//! A start that becomes ready lets callers in at once, but counts as good only when it has stayed up
//! for [`PROBATION`]: a program that listens and then dies, again and again, is a crash loop like one
//! that never listens, and must not be started as fast as the engine can. One early end is an
//! accident, and the instance is replaced at once; the second in a row waits.
//!
//! Laws (tested below), for the n-th failure in a row with no good start between: a start that failed
//! leaves the version alone for 2^(n-1) s, an early end for 2^(n-2) s and for nothing if it is the
//! first, both at most 5 min, whatever starts became ready for a moment meanwhile; so waits never
//! shrink within a row. A good start forgets them all; readiness ends a wait and never begins one.
//!
//! What is the engine's or the node's fault backs off to 5 s at most and does not count: when that is
//! over, no version is punished for it.
//!
//! There is no jitter: callers are told the time that is left, and a node has the starts of its
//! versions pass one gate.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// How long an instance must stay up for its start to count as good. A program that fails at its
/// first request or its first connection to a database does so within seconds.
pub const PROBATION: Duration = Duration::from_secs(10);

/// The same for what is not the version's fault.
const FIRST_HINDERED: Duration = Duration::from_millis(250);
const LONGEST_HINDERED: Duration = Duration::from_secs(5);

/// Failures in a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
    hindrances: u32,
    until: Option<Instant>,
    /// Who asks meanwhile waits, and is not refused.
    quiet: bool,
    /// When the last start became ready, until its instance ends early.
    ready_at: Option<Instant>,
}

impl Backoff {
    /// A start failed at `now`, by the version's fault.
    pub fn failed(&mut self, now: Instant) {
        let before = self.count(now);
        self.leave_alone(now, doubled(FIRST, before, LONGEST));
        self.quiet = false;
    }

    /// A start failed at `now`, not by the version's fault. `quiet`: who asks is to wait for the next.
    pub fn hindered(&mut self, now: Instant, quiet: bool) {
        let pause = doubled(FIRST_HINDERED, self.hindrances, LONGEST_HINDERED);
        self.quiet = quiet && self.remaining(now).is_none_or(|_| self.quiet);
        self.leave_alone(now, pause);
        self.hindrances = self.hindrances.saturating_add(1);
    }

    /// One failure more; gives how many there were before it in the row.
    fn count(&mut self, now: Instant) -> u32 {
        if self.proved(now) {
            self.failures = 0;
            self.ready_at = None;
        }
        let before = self.failures;
        self.failures = before.saturating_add(1);
        before
    }

    fn leave_alone(&mut self, now: Instant, pause: Duration) {
        self.until = self.until.max(Some(now + pause));
    }

    /// A start became ready at `now`.
    pub fn ready(&mut self, now: Instant) {
        if self.proved(now) {
            self.failures = 0;
        }
        self.until = None;
        self.hindrances = 0;
        self.quiet = false;
        self.ready_at = Some(now);
    }

    /// An instance that was ready from `ready_at` ended by itself at `now`. True if that was so soon
    /// that it counts as a failed start.
    pub fn ended(&mut self, ready_at: Instant, now: Instant) -> bool {
        let early = now.saturating_duration_since(ready_at) < PROBATION;
        if early {
            let before = self.count(now);
            self.ready_at = None;
            if let Some(doublings) = before.checked_sub(1) {
                self.leave_alone(now, doubled(FIRST, doublings, LONGEST));
                self.quiet = false;
            }
        }
        early
    }

    fn proved(&self, now: Instant) -> bool {
        self.ready_at
            .is_some_and(|at| now.saturating_duration_since(at) >= PROBATION)
    }

    /// Failures in a row; none while the last start is ready.
    pub fn failures(&self) -> u32 {
        match self.ready_at {
            Some(_) if self.until.is_none() => 0,
            _ => self.failures,
        }
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

    const SECOND: Duration = Duration::from_secs(1);

    fn wait(backoff: &Backoff, now: Instant) -> Option<u64> {
        backoff.remaining(now).map(|left| left.as_secs())
    }

    #[test]
    fn it_doubles_up_to_five_minutes_and_a_good_start_ends_it() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.remaining(now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            backoff.failed(now);
            assert_eq!(wait(&backoff, now), Some(seconds));
        }
        assert_eq!(backoff.failures(), 11);
        assert_eq!(backoff.remaining(now + LONGEST), None);
        backoff.ready(now);
        assert_eq!((backoff.failures(), backoff.remaining(now)), (0, None));
        now += PROBATION;
        backoff.failed(now);
        assert_eq!(wait(&backoff, now), Some(1));
    }

    #[test]
    fn becoming_ready_and_dying_again_and_again_is_a_crash_loop() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        for seconds in [0, 1, 2, 4, 8] {
            backoff.ready(now);
            assert_eq!((backoff.failures(), backoff.remaining(now)), (0, None));
            let ready_at = now;
            now += SECOND;
            assert!(backoff.ended(ready_at, now));
            let left = (seconds > 0).then_some(seconds);
            assert_eq!(wait(&backoff, now), left, "the first is an accident");
            now += Duration::from_secs(seconds);
        }
        backoff.ready(now);
        assert!(!backoff.ended(now, now + PROBATION), "it stayed up");
        assert_eq!(
            backoff.remaining(now + PROBATION),
            None,
            "so another is started at once"
        );
    }

    #[test]
    fn an_old_instance_that_ends_says_nothing_of_new_starts() {
        let born = Instant::now();
        let mut backoff = Backoff::default();
        backoff.ready(born);
        assert!(!backoff.ended(born, born + 1000 * SECOND));
        assert_eq!(backoff.failures(), 0);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Failed,
        /// Ready, and gone after so many seconds.
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
        /// The laws of the module, by a count of failures since the last good start.
        #[test]
        fn the_wait_is_two_to_the_failures_since_the_last_good_start(steps in steps()) {
            let mut now = Instant::now();
            let mut backoff = Backoff::default();
            let (mut row, mut longest) = (0u32, None);
            let power = |n: u32| Some(300.min(1u64 << n.min(16)));
            for (step, pause) in steps {
                let expected = match step {
                    Step::Failed => {
                        backoff.failed(now);
                        row += 1;
                        power(row - 1)
                    }
                    Step::Served(seconds) => {
                        let ready_at = now;
                        backoff.ready(ready_at);
                        prop_assert_eq!((backoff.remaining(now), backoff.failures()), (None, 0));
                        now += Duration::from_secs(seconds);
                        let early = backoff.ended(ready_at, now);
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
                    _ => backoff.ready(now),
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
