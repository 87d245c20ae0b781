//! Whether the engine answers, as one value for all pools of a node. Pure: `now` is an argument.
//!
//! A call without a response begins an outage; the next response ends it. During an outage no
//! instance is started, resumed, paused or reaped, because none of that could be undone; ready
//! instances keep serving. Requests that need a start wait for [`GRACE`], because most outages are
//! restarts. After that they are refused at once.
//!
//! Laws (tested below): callers are refused only in an outage of at least [`GRACE`]; any response
//! ends an outage; a repeated failure changes nothing.

use std::time::{Duration, Instant};

/// Maximum time that callers wait for the engine. An engine restart took 1 to 4 s when measured.
pub const GRACE: Duration = Duration::from_secs(10);

/// `Retry-After` of refused callers.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Availability {
    /// Start of the present outage; `None` while the engine answers.
    down_since: Option<Instant>,
    outages: u64,
}

impl Availability {
    /// Records a call without a response. True if this begins an outage.
    pub fn record_failure(&mut self, now: Instant) -> bool {
        let begins = self.down_since.is_none();
        if begins {
            self.down_since = Some(now);
            self.outages += 1;
        }
        begins
    }

    /// Records a response. True if this ends an outage.
    pub fn record_answer(&mut self) -> bool {
        self.down_since.take().is_some()
    }

    /// Whether the engine answers.
    pub fn is_available(&self) -> bool {
        self.down_since.is_none()
    }

    /// Outages so far, including the present one.
    pub fn outages(&self) -> u64 {
        self.outages
    }

    /// `Retry-After` once the grace period is over; `None` while callers wait.
    pub fn refusal(&self, now: Instant) -> Option<Duration> {
        let lasted = now.saturating_duration_since(self.down_since?);
        (lasted >= GRACE).then_some(RETRY_AFTER)
    }

    /// The rest of the grace period; `None` if there is no outage, or the period is over.
    pub fn grace_remaining(&self, now: Instant) -> Option<Duration> {
        let lasted = now.saturating_duration_since(self.down_since?);
        GRACE.checked_sub(lasted).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn callers_are_refused_after_the_grace_period_and_an_answer_ends_the_outage(
            steps in proptest::collection::vec((0u64..8000, any::<bool>()), 1..40)
        ) {
            let mut availability = Availability::default();
            let mut now = Instant::now();
            let mut down_since: Option<Instant> = None;
            let mut outages = 0;
            for (pause, answers) in steps {
                now += Duration::from_millis(pause);
                if answers {
                    let ends = down_since.take().is_some();
                    prop_assert_eq!(availability.record_answer(), ends);
                } else {
                    let begins = down_since.is_none();
                    prop_assert_eq!(availability.record_failure(now), begins);
                    outages += u64::from(begins);
                    down_since = down_since.or(Some(now));
                }
                prop_assert_eq!(availability.is_available(), down_since.is_none());
                prop_assert_eq!(availability.outages(), outages);
                let long = down_since.is_some_and(|since| now - since >= GRACE);
                prop_assert_eq!(availability.refusal(now).is_some(), long);
                let waits = !availability.is_available() && !long;
                prop_assert_eq!(availability.grace_remaining(now).is_some(), waits);
            }
        }
    }
}
