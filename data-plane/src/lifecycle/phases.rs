//! The time that each phase of a start took. Pure.
//!
//! A failed start spent the rest of its time in the phase in which it failed: a pull that fails
//! after ten minutes counts as ten minutes of pulling. Law (tested below): the phases of a failed
//! start add up to its total.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::report::{ColdStart, FailureReason};

/// The phases of a start so far; `None` for a phase that has not ended.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    pub(crate) pull: Option<Duration>,
    pub(crate) queue: Option<Duration>,
    pub(crate) create: Option<Duration>,
    pub(crate) start: Option<Duration>,
    pub(crate) ready: Option<Duration>,
    /// The digest that this node resolved.
    pub(crate) image_digest: Option<Arc<str>>,
    /// Whether this start resolved it.
    pub(crate) resolved_here: bool,
    /// The id of the image that the version runs, if it has no digest.
    pub(crate) image_id: Option<Arc<str>>,
    pub(crate) pulled: BTreeSet<String>,
}

impl Phases {
    pub(crate) fn of_ready(&self, total: Duration, at: SystemTime) -> ColdStart {
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

    /// The phases of a start that failed after `total`.
    pub(crate) fn of_failed(&self, reason: FailureReason, total: Duration) -> FailedPhases {
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
        FailedPhases(ColdStart {
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

/// The phases of a failed start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedPhases(ColdStart);

impl FailedPhases {
    /// Each phase that began, with its time; `total` comes last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.0.phases().chain([("total", self.0.total)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_failed_start_spent_the_rest_of_its_time_in_the_phase_that_failed() {
        let phases = Phases {
            queue: Some(MS(5)),
            create: Some(MS(12)),
            start: Some(MS(270)),
            ..Phases::default()
        };
        let spent: Vec<_> = phases
            .of_failed(FailureReason::Exited, MS(300))
            .iter()
            .collect();
        let expected = [
            ("queue", 5),
            ("create", 12),
            ("start", 270),
            ("ready", 13),
            ("total", 300),
        ];
        assert_eq!(spent, expected.map(|(phase, ms)| (phase, MS(ms))));

        let spent: Vec<_> = Phases::default()
            .of_failed(FailureReason::Image, MS(900))
            .iter()
            .collect();
        assert_eq!(spent, [("pull", MS(900)), ("total", MS(900))]);
    }

    proptest! {
        #[test]
        fn the_phases_of_a_failed_start_add_up_to_its_total(
            known in proptest::array::uniform4(proptest::option::of(0u64..1000)),
            extra in 0u64..1000,
            reason in proptest::sample::select(vec![
                FailureReason::Image, FailureReason::Engine, FailureReason::Exited, FailureReason::NotReady,
                FailureReason::NotAllowed,
            ]),
        ) {
            let [pull, queue, create, start] = known.map(|ms| ms.map(MS));
            let phases = Phases { pull, queue, create, start, ..Phases::default() };
            let total = known.into_iter().flatten().map(MS).sum::<Duration>() + MS(extra);
            let spent = phases.of_failed(reason, total);
            let sum: Duration = spent.iter().filter(|(phase, _)| *phase != "total").map(|(_, took)| took).sum();
            prop_assert_eq!(sum, total);
        }
    }
}
