//! How long a version that fails to start is left alone: 1 s, doubled each time, at most 5 min.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row. A good start resets it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// A start failed at `now`.
    pub fn failed(&mut self, now: Instant) {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let wait = FIRST.saturating_mul(1 << doublings).min(LONGEST);
        self.until = Some(now + wait);
    }

    /// A start succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How long no start may be tried; `None` if one may.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
