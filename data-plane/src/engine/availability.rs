//! Whether the engine answers, as this node last saw: one value for all its pools.
//!
//! A call without an answer begins an outage, the next answer ends it. While it lasts nothing is
//! started, woken, put to sleep or reaped, for none of that could be undone; what is ready goes on
//! serving. Requests that need a start wait for the engine's return, for [`PATIENCE`]: most engines
//! that go away are being restarted. After that they are told at once.
//!
//! Pure: time comes in as `now`. Laws (tested below): callers are told only of an outage that has
//! lasted so long; an answer ends it at any time; to miss twice is as to miss once.

use std::time::{Duration, Instant};

/// How long callers wait for an engine to come back: a restart took 1 to 4 s where measured.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// When callers who are told so at once may try again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outage {
    since: Option<Instant>,
    count: u64,
}

impl Outage {
    /// A call got no answer. True if that is news.
    pub fn missed(&mut self, now: Instant) -> bool {
        let news = self.since.is_none();
        if news {
            self.since = Some(now);
            self.count += 1;
        }
        news
    }

    /// A call was answered. True if that is news.
    pub fn answered(&mut self) -> bool {
        self.since.take().is_some()
    }

    /// The engine does not answer.
    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// How many there were, this one included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// `Retry-After`, if callers are told at once.
    pub fn refuses(&self, now: Instant) -> Option<Duration> {
        let lasted = now.saturating_duration_since(self.since?);
        (lasted >= PATIENCE).then_some(TRY_AGAIN)
    }

    /// How long until callers are told at once, if they are not yet.
    pub fn patience_left(&self, now: Instant) -> Option<Duration> {
        let lasted = now.saturating_duration_since(self.since?);
        PATIENCE.checked_sub(lasted).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn callers_are_told_of_what_has_lasted_and_an_answer_ends_it(
            steps in proptest::collection::vec((0u64..8000, any::<bool>()), 1..40)
        ) {
            let mut outage = Outage::default();
            let mut now = Instant::now();
            // The plain truth: since when nothing was answered.
            let mut silent: Option<Instant> = None;
            let mut times = 0;
            for (pause, answers) in steps {
                now += Duration::from_millis(pause);
                if answers {
                    prop_assert_eq!(outage.answered(), silent.take().is_some());
                } else {
                    let news = silent.is_none();
                    prop_assert_eq!(outage.missed(now), news);
                    times += u64::from(news);
                    silent = silent.or(Some(now));
                }
                prop_assert_eq!(outage.is_on(), silent.is_some());
                prop_assert_eq!(outage.count(), times);
                let long = silent.is_some_and(|since| now - since >= PATIENCE);
                prop_assert_eq!(outage.refuses(now).is_some(), long);
                prop_assert_eq!(outage.patience_left(now).is_some(), outage.is_on() && !long);
            }
        }
    }
}
