//! The malformed responses of a version: told at most once a minute, and counted meanwhile. Pure.
//!
//! Law: each response is told, or counted in the next one that is told.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct MalformedResponses {
    /// The last one that was told; `None` before the first.
    told: Option<Instant>,
    suppressed: u64,
}

impl MalformedResponses {
    /// Records one at `now`. If it is to be told, returns the number of those since the last one
    /// that were not.
    pub(super) fn record(&mut self, now: Instant) -> Option<u64> {
        let is_due = |told: Instant| now.saturating_duration_since(told) >= INTERVAL;
        if self.told.is_none_or(is_due) {
            self.told = Some(now);
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_is_told_or_counted_and_one_a_minute_is_told(
            pauses in proptest::collection::vec(0u64..90, 1..60),
        ) {
            let mut responses = MalformedResponses::default();
            let (mut now, mut told_at, mut accounted, mut waiting) = (Instant::now(), None, 0, 0);
            for (index, pause) in pauses.into_iter().enumerate() {
                now += Duration::from_secs(pause);
                match responses.record(now) {
                    Some(suppressed) => {
                        prop_assert!(told_at.is_none_or(|at| now - at >= INTERVAL));
                        told_at = Some(now);
                        accounted += suppressed + 1;
                        waiting = 0;
                    }
                    None => waiting += 1,
                }
                prop_assert_eq!(accounted + waiting, index as u64 + 1);
            }
        }
    }
}
