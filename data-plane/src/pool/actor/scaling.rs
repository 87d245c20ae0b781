//! What an owner asks `scale::decide`, and carries out.

use std::time::{Duration, Instant};

use super::Owner;
use super::tenant::is_starting;
use crate::instance::state::State;
use crate::scale::decide::{Facts, Limits, Running, Sleeper, decide, next_due};

/// The longest a pool with instances goes without looking at them.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How long a pool with nothing in it sleeps unless it is told something.
const ASLEEP: Duration = Duration::from_secs(3600);

/// How long a peak of load keeps the instances that it needed, unless the idle timeout is shorter.
const STABLE: Duration = Duration::from_secs(60);

/// The instances that a decision is about.
struct Census {
    running: Vec<Running>,
    asleep: Vec<Sleeper>,
    needed: u32,
}

impl Owner {
    /// Decides, and starts, wakes, puts to sleep and reaps.
    pub(super) fn scale(&mut self, now: Instant) {
        let census = self.census(now);
        let decision = decide(&self.facts(&census, now), &self.limits());
        for _ in 0..decision.start {
            self.start_one();
        }
        for serial in decision.wake {
            self.wake(serial);
        }
        for serial in decision.pause {
            self.pause(serial);
        }
        for serial in decision.reap {
            self.reap(serial);
        }
    }

    fn census(&mut self, now: Instant) -> Census {
        let limits = self.limits();
        let of_state = |wanted: State| self.tenants.iter().filter(move |(_, t)| t.state == wanted);
        let peaks = of_state(State::Ready).map(|(_, t)| t.instance.take_peak() as usize);
        let load = peaks.sum::<usize>() + self.queue.len();
        let census = Census {
            running: of_state(State::Ready)
                .map(|(serial, tenant)| Running {
                    id: *serial,
                    in_flight: tenant.instance.admission.in_flight(),
                    idle_for: tenant.instance.idle_for(now),
                })
                .collect(),
            asleep: of_state(State::Paused)
                .map(|(serial, tenant)| Sleeper {
                    id: *serial,
                    idle_for: tenant.instance.idle_for(now),
                })
                .collect(),
            needed: 0,
        };
        self.load.push(now, limits.instances_for(load));
        let needed = self.load.max(now, window(&limits));
        Census { needed, ..census }
    }

    fn facts<'a>(&self, census: &'a Census, now: Instant) -> Facts<'a> {
        let proof_wanted = self.proof.as_ref().is_some_and(super::Proof::wants_a_start);
        let proof_wanted = proof_wanted && !self.backoff.is_quiet(now);
        Facts {
            standing: self.member.standing,
            waiting: self.queue.len(),
            coming: self.count(|state| is_starting(state) || state == State::Resuming),
            pausing: self.count(|state| state == State::Pausing),
            running: &census.running,
            asleep: &census.asleep,
            needed: census.needed,
            proof_wanted,
            backing_off: self.backoff.remaining(now).is_some(),
            engine_away: self.outage.borrow().is_on(),
        }
    }

    fn limits(&self) -> Limits {
        let settings = &self.member.settings;
        Limits {
            min_instances: settings.min_instances,
            max_instances: settings.max_instances,
            concurrency: settings.concurrency,
            idle_timeout: settings.idle_timeout,
            pause_after: settings.pause_after,
        }
    }

    /// How long there is nothing to do, unless it is told something.
    pub(super) fn next_wake(&mut self, now: Instant) -> Duration {
        let retry = self.backoff.remaining(now);
        if self.tenants.is_empty() && self.queue.is_empty() && retry.is_none() {
            return ASLEEP;
        }
        let limits = self.limits();
        let census = self.census(now);
        let due = next_due(&self.facts(&census, now), &limits);
        let several = census.running.len() + census.asleep.len() > 1;
        let less_load = several.then(|| self.load.stands_for(now, window(&limits)));
        [due, retry, less_load.flatten(), self.patience_left(now)]
            .into_iter()
            .flatten()
            .chain([LOOK_AGAIN])
            .min()
            .unwrap_or(LOOK_AGAIN)
            // An instance that may be reaped but just was entered must not spin this task.
            .max(Duration::from_millis(1))
    }
}

/// Over how long the greatest load counts.
fn window(limits: &Limits) -> Duration {
    STABLE.min(limits.idle_timeout)
}
