//! Maximum over a sliding time window. Pure: `now` is an argument.
//!
//! Scale-in uses the peak of the window rather than the current load, so that a short dip does not
//! remove instances that the next requests need.
//!
//! Law, tested below against a plain list: the maximum covers all values pushed within the last
//! `span`, and is zero if there are none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A monotonic queue: each value is greater than all later ones, so its length is bounded by the
/// number of distinct values.
#[derive(Debug, Clone, Default)]
pub struct Window {
    values: VecDeque<(Instant, u32)>,
}

impl Window {
    /// Adds a value observed at `now`, which must not precede an earlier `now`.
    pub fn push(&mut self, now: Instant, value: u32) {
        while self.values.back().is_some_and(|(_, last)| *last <= value) {
            self.values.pop_back();
        }
        self.values.push_back((now, value));
    }

    /// The maximum of the last `span`; drops expired values.
    pub fn max(&mut self, now: Instant, span: Duration) -> u32 {
        let old = |at: Instant| now.saturating_duration_since(at) >= span;
        while self.values.front().is_some_and(|(at, _)| old(*at)) {
            self.values.pop_front();
        }
        self.values.front().map_or(0, |(_, value)| *value)
    }

    /// Time until the current maximum expires; `None` if there is none.
    pub fn expires_in(&self, now: Instant, span: Duration) -> Option<Duration> {
        let (at, _) = self.values.front()?;
        Some((*at + span).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_peak_counts_until_it_leaves_the_window() {
        let (start, span) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::default();
        assert_eq!(window.max(start, span), 0);
        window.push(start, 7);
        window.push(at(30), 2);
        assert_eq!(
            window.expires_in(at(30), span),
            Some(Duration::from_secs(30))
        );
        assert_eq!(window.max(at(59), span), 7);
        assert_eq!(window.max(at(60), span), 2);
        assert_eq!(window.max(at(90), span), 0);
        assert_eq!(window.expires_in(at(90), span), None);
    }

    proptest! {
        #[test]
        fn it_equals_the_maximum_of_a_plain_list(
            steps in proptest::collection::vec((0u64..20, 0u32..6), 1..60),
            span in 1u64..50,
        ) {
            let span = Duration::from_secs(span);
            let mut window = Window::default();
            let mut all: Vec<(Instant, u32)> = Vec::new();
            let mut now = Instant::now();
            for (pause, value) in steps {
                now += Duration::from_secs(pause);
                window.push(now, value);
                all.push((now, value));
                let plain = all.iter().filter(|(at, _)| now - *at < span).map(|(_, v)| *v).max();
                prop_assert_eq!(window.max(now, span), plain.unwrap_or(0));
                prop_assert!(window.values.len() <= 6);
            }
        }
    }
}
