//! Where the time of a start goes, phase by phase, whether it succeeds or not. Pure.
//!
//! A start that failed has spent the rest of its time in the phase in which it failed, so that a pull
//! that ends after ten minutes shows as ten minutes of pulling. Law (tested below): what the phases
//! say adds up to no more than the whole, and to the whole of a start that failed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::report::{ColdStart, FailureReason};

/// The phases that are over, as a start goes on.
#[derive(Debug, Default)]
pub(super) struct Phases {
    pub(super) pull: Option<Duration>,
    pub(super) queue: Option<Duration>,
    pub(super) create: Option<Duration>,
    pub(super) start: Option<Duration>,
    pub(super) ready: Option<Duration>,
    /// The digest that this node resolved.
    pub(super) image_digest: Option<Arc<str>>,
    /// It was this start that did.
    pub(super) resolved_here: bool,
    /// What this start pulled.
    pub(super) pulled: BTreeSet<String>,
}

impl Phases {
    /// Of a start that made its instance ready.
    pub(super) fn of_ready(&self, total: Duration, at: SystemTime) -> ColdStart {
        ColdStart {
            pull: self.pull,
            queue: self.queue,
            create: self.create,
            start: self.start,
            ready: self.ready,
            total,
            at,
        }
    }

    /// Of a start that failed after `total`: the phase in which it did so gets what is left.
    pub(super) fn of_failed(&self, reason: FailureReason, total: Duration) -> Spent {
        let known = [self.pull, self.queue, self.create, self.start, self.ready];
        let known: Duration = known.into_iter().flatten().sum();
        let rest = total.saturating_sub(known);
        let failed_in = match (reason, self.create, self.start) {
            (FailureReason::Image, ..) => "pull",
            (_, None, _) => "create",
            (_, Some(_), None) => "start",
            (_, Some(_), Some(_)) => "ready",
        };
        let of = |phase, known: Option<Duration>| match phase == failed_in {
            true => Some(known.unwrap_or_default() + rest),
            false => known,
        };
        Spent(ColdStart {
            pull: of("pull", self.pull),
            queue: self.queue,
            create: of("create", self.create),
            start: of("start", self.start),
            ready: of("ready", self.ready),
            total,
            at: SystemTime::UNIX_EPOCH,
        })
    }
}

/// What a start that failed has spent its time on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spent(ColdStart);

impl Spent {
    /// Each phase that was begun, with its time; the whole last.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.0.phases().chain([("total", self.0.total)])
    }
}

impl ColdStart {
    /// The phases that there were, in their order, each with its time.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, Duration)> + use<> {
        [
            ("pull", self.pull),
            ("queue", self.queue),
            ("create", self.create),
            ("start", self.start),
            ("ready", self.ready),
        ]
        .into_iter()
        .filter_map(|(phase, took)| Some((phase, took?)))
    }
}

/// `create=12 start=270 ready=2`, in milliseconds, for a line of the log.
impl fmt::Display for ColdStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (phase, took)) in self.phases().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{phase}={:.1}", took.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_start_that_fails_has_spent_the_rest_on_the_phase_that_failed() {
        let phases = Phases {
            queue: Some(MS(5)),
            create: Some(MS(12)),
            start: Some(MS(270)),
            ..Phases::default()
        };
        let spent: Vec<_> = phases
            .of_failed(FailureReason::Exited, MS(300))
            .phases()
            .collect();
        let wanted = [
            ("queue", 5),
            ("create", 12),
            ("start", 270),
            ("ready", 13),
            ("total", 300),
        ];
        assert_eq!(spent, wanted.map(|(phase, ms)| (phase, MS(ms))));

        let spent: Vec<_> = Phases::default()
            .of_failed(FailureReason::Image, MS(900))
            .phases()
            .collect();
        assert_eq!(spent, [("pull", MS(900)), ("total", MS(900))]);
    }

    #[test]
    fn a_line_of_the_log_names_what_there_was() {
        let phases = Phases {
            create: Some(MS(12)),
            ready: Some(Duration::from_micros(1500)),
            ..Phases::default()
        };
        let line = phases.of_ready(MS(20), SystemTime::UNIX_EPOCH).to_string();
        assert_eq!(line, "create=12.0 ready=1.5");
    }

    proptest! {
        #[test]
        fn what_a_failed_start_spent_adds_up(
            known in proptest::array::uniform4(proptest::option::of(0u64..1000)),
            extra in 0u64..1000,
            reason in proptest::sample::select(vec![
                FailureReason::Image, FailureReason::Engine, FailureReason::Exited, FailureReason::NotReady,
            ]),
        ) {
            let [pull, queue, create, start] = known.map(|ms| ms.map(MS));
            let phases = Phases { pull, queue, create, start, ..Phases::default() };
            let total = known.into_iter().flatten().map(MS).sum::<Duration>() + MS(extra);
            let spent = phases.of_failed(reason, total);
            let sum: Duration = spent.phases().filter(|(phase, _)| *phase != "total").map(|(_, took)| took).sum();
            prop_assert_eq!(sum, total);
        }
    }
}
