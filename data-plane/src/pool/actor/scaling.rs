//! The inputs of `scale::decide`, and the execution of its decisions.

use std::time::{Duration, Instant};

use super::PoolActor;
use super::verification::Verification;
use crate::instance::state::{Event, State};
use crate::scale::decide::{
    Limits, PausedInstance, RunningInstance, ScaleInputs, decide, next_due,
};

/// The longest time between two decisions of a pool with instances.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Time between two decisions of an empty pool without messages.
const EMPTY_WAIT: Duration = Duration::from_secs(3600);

/// Time that a load peak keeps the instances that it needed, unless the idle timeout is shorter.
const PEAK_WINDOW: Duration = Duration::from_secs(60);

struct Snapshot {
    running: Vec<RunningInstance>,
    paused: Vec<PausedInstance>,
    needed: u32,
}

impl PoolActor {
    pub(super) fn scale(&mut self, now: Instant) {
        let snapshot = self.snapshot(now);
        let decision = decide(&self.inputs(&snapshot, now), &self.limits());
        for _ in 0..decision.start {
            self.start_one();
        }
        for serial in decision.resume {
            self.apply(serial, Event::ResumeRequested);
        }
        for serial in decision.pause {
            self.pause(serial);
        }
        for serial in decision.reap {
            self.reap(serial);
        }
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        let limits = self.limits();
        let in_state = |state: State| self.instances.iter().filter(move |(_, e)| e.state == state);
        let peaks = in_state(State::Ready).map(|(_, entry)| entry.instance.take_peak() as usize);
        let load = peaks.sum::<usize>() + self.queue.len();
        let snapshot = Snapshot {
            running: in_state(State::Ready)
                .map(|(serial, entry)| RunningInstance {
                    id: *serial,
                    in_flight: entry.instance.admission.in_flight(),
                    idle_for: entry.instance.idle_for(now),
                })
                .collect(),
            paused: in_state(State::Paused)
                .map(|(serial, entry)| PausedInstance {
                    id: *serial,
                    idle_for: entry.instance.idle_for(now),
                })
                .collect(),
            needed: 0,
        };
        self.load.push(now, limits.instances_for(load));
        let needed = self.load.max(now, window(&limits));
        Snapshot { needed, ..snapshot }
    }

    fn inputs<'a>(&self, snapshot: &'a Snapshot, now: Instant) -> ScaleInputs<'a> {
        let verification = self.verification.as_ref();
        let needs_start = verification.is_some_and(Verification::needs_start);
        ScaleInputs {
            status: self.membership.status,
            queued: self.queue.len(),
            starting: self.count(|state| state.is_starting() || state == State::Resuming),
            pausing: self.count(|state| state == State::Pausing),
            running: &snapshot.running,
            paused: &snapshot.paused,
            needed: snapshot.needed,
            verification_pending: needs_start && !self.backoff.holds_waiters(now),
            refills_delayed: self.refill_in(now).is_some(),
            backing_off: self.backoff.remaining(now).is_some(),
            engine_unavailable: !self.availability.borrow().is_available(),
        }
    }

    fn limits(&self) -> Limits {
        let settings = &self.membership.settings;
        Limits {
            min_instances: match *self.drained.borrow() {
                true => 0,
                false => settings.min_instances,
            },
            max_instances: settings.max_instances,
            concurrency: settings.concurrency,
            idle_timeout: settings.idle_timeout,
            pause_after: settings.pause_after,
        }
    }

    /// The rest of the delay of refills; `None` if there is none.
    fn refill_in(&self, now: Instant) -> Option<Duration> {
        let left = self.refill_at?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Time until the next decision, if no message arrives.
    pub(super) fn next_wake(&mut self, now: Instant) -> Duration {
        let retry = self.backoff.remaining(now);
        let waits = retry.is_some() || self.refill_in(now).is_some();
        if self.instances.is_empty() && self.queue.is_empty() && !waits {
            return EMPTY_WAIT;
        }
        let limits = self.limits();
        let snapshot = self.snapshot(now);
        let due = next_due(&self.inputs(&snapshot, now), &limits);
        let several = snapshot.running.len() + snapshot.paused.len() > 1;
        let peak_ends = several.then(|| self.load.expires_in(now, window(&limits)));
        let refill = self.refill_in(now);
        [
            due,
            retry,
            refill,
            peak_ends.flatten(),
            self.grace_remaining(now),
        ]
        .into_iter()
        .flatten()
        .chain([MAX_WAIT])
        .min()
        .unwrap_or(MAX_WAIT)
        // An instance that is due but was just entered must not make this task spin.
        .max(Duration::from_millis(1))
    }
}

/// The span over which the load peak counts.
fn window(limits: &Limits) -> Duration {
    PEAK_WINDOW.min(limits.idle_timeout)
}
