//! The intervals between probes: 1 ms at first, growing by half each time, up to a limit. Pure.
//!
//! Laws (tested below): intervals never shrink, never exceed the limit, and reach it.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(1);

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
    fn the_first_attempts_are_milliseconds_apart() {
        let mut cadence = Cadence::up_to(Duration::from_millis(50));
        let first: Vec<u128> = (0..4).map(|_| cadence.pause().as_micros()).collect();
        assert_eq!(first, [1000, 2000, 3500, 5750]);
    }

    proptest! {
        #[test]
        fn intervals_grow_to_the_limit_and_not_beyond(longest_us in 1_000u64..60_000_000) {
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
