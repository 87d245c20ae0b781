//! When to look again: 1 ms after the first look, then half as long again each time, up to a limit.
//!
//! Laws: pauses never shrink, never are over the limit, and reach it.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(1);

/// The pauses between looks. Pure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cadence {
    next: Duration,
    longest: Duration,
}

impl Cadence {
    pub(super) fn up_to(longest: Duration) -> Self {
        Self {
            next: FIRST.min(longest),
            longest,
        }
    }

    /// How long to wait before the next look.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause + pause / 2 + Duration::from_micros(500)).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn most_servers_are_met_within_milliseconds() {
        let mut cadence = Cadence::up_to(Duration::from_millis(50));
        let first: Vec<u128> = (0..4).map(|_| cadence.pause().as_micros()).collect();
        assert_eq!(first, [1000, 2000, 3500, 5750]);
    }

    proptest! {
        #[test]
        fn pauses_grow_to_the_limit_and_never_over_it(longest_us in 1_000u64..60_000_000) {
            let longest = Duration::from_micros(longest_us);
            let mut cadence = Cadence::up_to(longest);
            let mut before = Duration::ZERO;
            for _ in 0..40 {
                let pause = cadence.pause();
                prop_assert!(before <= pause && pause <= longest);
                before = pause;
            }
            prop_assert_eq!(before, longest);
        }
    }
}
