//! Delay before the next attempt: exponential backoff with full jitter. Pure.
//!
//! Full jitter (a uniform draw from zero to the ceiling) spreads a thousand nodes that lose their
//! control plane at the same instant. Only a response resets it: an accepted connection that is
//! then dropped says nothing about health.

use rand::RngExt as _;
use std::time::Duration;

/// The upper bound of the delay starts at `floor` and doubles with each failure up to `ceiling`.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    floor: Duration,
    ceiling: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(floor: Duration, ceiling: Duration) -> Self {
        Self {
            floor,
            ceiling,
            failures: 0,
        }
    }

    /// Records a failure and draws the delay before the next attempt.
    pub(crate) fn next(&mut self, rng: &mut impl rand::Rng) -> Duration {
        let factor = 2u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let most = self.floor.saturating_mul(factor).min(self.ceiling);
        most.mul_f64(rng.random_range(0.0..=1.0))
    }

    /// Records a response.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::SmallRng};

    proptest! {
        #[test]
        fn stays_under_a_ceiling_that_doubles(seed: u64, failures in 1u32..80) {
            let (floor, ceiling) = (Duration::from_millis(100), Duration::from_secs(30));
            let mut backoff = Backoff::new(floor, ceiling);
            let mut rng = SmallRng::seed_from_u64(seed);
            for failure in 0..failures {
                let most = floor.saturating_mul(1 << failure.min(20)).min(ceiling);
                prop_assert!(backoff.next(&mut rng) <= most);
            }
            backoff.reset();
            prop_assert!(backoff.next(&mut rng) <= floor);
        }
    }
}
