//! The time limits of one request. Pure: times in, a deadline out.
//!
//! `request_timeout` bounds silence: the time in which neither body brings a byte, and the time to
//! the response's head. `total_timeout` bounds the whole.
//!
//! The path of a byte reads no clock: it notes the time of the worker's last tick. Law (tested
//! below): a request is never cut before its limits, and at most a [`TICK`] after them.

use std::time::{Duration, Instant};

use crate::proxy::client::TICK;
use crate::route::Settings;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The start of the current silence, or up to a tick later.
    silent_since: Instant,
    silence: Duration,
    /// The end of the whole; `None`: no limit.
    total: Option<Instant>,
}

impl Deadline {
    /// The limits of a request that began at `began`.
    pub(crate) fn new(began: Instant, settings: &Settings) -> Self {
        Self {
            silent_since: began,
            silence: settings.request_timeout,
            total: settings.total_timeout.map(|total| began + total),
        }
    }

    /// Notes a byte that passed less than a tick after `tick`.
    pub(crate) fn note_byte(&mut self, tick: Instant) {
        self.silent_since = self.silent_since.max(tick + TICK);
    }

    /// The time at which the request is late, if nothing passes before.
    pub(crate) fn at(&self) -> Instant {
        let silent = self.silent_since + self.silence;
        self.total.map_or(silent, |total| total.min(silent))
    }

    /// The limit of the whole; `None`: no limit.
    pub(crate) fn total(&self) -> Option<Instant> {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// All times are milliseconds after the request.
        #[test]
        fn a_request_is_cut_at_its_limits_and_at_most_a_tick_later(
            silence in 1_000_u64..10_000,
            total in proptest::option::of(1_000_u64..20_000),
            pauses in proptest::collection::vec(0_u64..12_000, 0..20),
            phase in 0_u64..500,
        ) {
            let ms = Duration::from_millis;
            let began = Instant::now();
            let settings = Settings {
                request_timeout: ms(silence),
                total_timeout: total.map(ms),
                ..Settings::default()
            };
            let mut deadline = Deadline::new(began, &settings);
            let mut last = 0;
            for pause in pauses {
                let now = last + pause;
                if began + ms(now) >= deadline.at() {
                    break;
                }
                // The worker ticks at `phase`, and then once in each tick.
                let since = (now + 500 - phase) % 500;
                deadline.note_byte((began + ms(now)).checked_sub(ms(since)).expect("a time"));
                last = now;
            }
            let exact = (last + silence).min(total.unwrap_or(u64::MAX));
            let cut = deadline.at();
            prop_assert!(cut >= began + ms(exact));
            prop_assert!(cut <= began + ms(exact) + TICK);
            if total == Some(exact) {
                prop_assert_eq!(cut, began + ms(exact));
            }
        }
    }
}
