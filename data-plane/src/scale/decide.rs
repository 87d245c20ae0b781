//! How many instances to start, and which to reap: one pure function.
//!
//! A start is asked for when requests wait that no start in progress would absorb: each instance
//! that is starting will take `concurrency` of them. So a hundred requests at concurrency 100 cause
//! one start, and 101 cause two.
//!
//! Laws (tested below): never more than `max_instances`; an instance with work is never reaped;
//! `min_instances` stay while the version has traffic; deciding again after the decision is carried
//! out decides nothing.

use std::time::Duration;

/// What the route table says of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It gets a share of the traffic.
    InTraffic,
    /// It can be reached, by tag or for its proof.
    Reachable,
    /// It left the table: what it runs lives out its idle timeout, in case it comes back.
    Left,
    /// Its service is deleted: what it runs goes as soon as nothing is in flight.
    Deleted,
}

/// The settings that matter here.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Kept while the version has traffic.
    pub min_instances: u32,
    /// Never exceeded.
    pub max_instances: u32,
    /// Requests in one instance.
    pub concurrency: u32,
    /// How long an instance without requests is kept.
    pub idle_timeout: Duration,
}

/// One instance that can take requests.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// Which; returned in [`Decision::reap`].
    pub id: u64,
    /// Requests in it.
    pub in_flight: u32,
    /// How long it has had none.
    pub idle_for: Duration,
}

/// All that the decision depends on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// See [`Standing`].
    pub standing: Standing,
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Instances on their way to ready.
    pub starting: u32,
    /// Instances that are ready.
    pub running: &'a [Running],
    /// A proof is asked for and no start for it is in progress.
    pub proof_wanted: bool,
    /// Starts are failing: only a proof may try.
    pub backing_off: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Instances to start.
    pub start: u32,
    /// Instances to reap, if nothing entered them meanwhile.
    pub reap: Vec<u64>,
}

/// Decides. Pure: the same facts give the same decision.
pub fn decide(facts: &Facts<'_>, limits: &Limits) -> Decision {
    let alive = facts.starting + u32::try_from(facts.running.len()).unwrap_or(u32::MAX);
    Decision {
        start: starts(facts, limits, alive),
        reap: reaps(facts, limits, alive),
    }
}

fn starts(facts: &Facts<'_>, limits: &Limits, alive: u32) -> u32 {
    if facts.standing == Standing::Deleted {
        return 0;
    }
    let concurrency = limits.concurrency.max(1) as usize;
    let for_queue = u32::try_from(facts.waiting.div_ceil(concurrency))
        .unwrap_or(u32::MAX)
        .saturating_sub(facts.starting);
    let for_minimum = match facts.standing {
        Standing::InTraffic => limits.min_instances.saturating_sub(alive),
        _ => 0,
    };
    let wanted = if facts.backing_off {
        0
    } else {
        for_queue.max(for_minimum)
    };
    // A version that is running is proved by that; only one that is not needs a start for it.
    let for_proof = u32::from(facts.proof_wanted && alive == 0);
    let room = limits.max_instances.max(1).saturating_sub(alive);
    wanted.max(for_proof).min(room)
}

fn reaps(facts: &Facts<'_>, limits: &Limits, alive: u32) -> Vec<u64> {
    let (timeout, keep) = match facts.standing {
        Standing::InTraffic => (limits.idle_timeout, limits.min_instances),
        Standing::Reachable | Standing::Left => (limits.idle_timeout, 0),
        Standing::Deleted => (Duration::ZERO, 0),
    };
    if facts.waiting > 0 && facts.standing != Standing::Deleted {
        return Vec::new();
    }
    let mut idle: Vec<&Running> = facts
        .running
        .iter()
        .filter(|one| one.in_flight == 0 && one.idle_for >= timeout)
        .collect();
    // The longest idle first, so that the ones kept are the warmest.
    idle.sort_by_key(|one| (std::cmp::Reverse(one.idle_for), one.id));
    idle.truncate(alive.saturating_sub(keep) as usize);
    idle.iter().map(|one| one.id).collect()
}

/// How long until an instance may be reaped, if nothing changes before. One that is at work now may
/// be idle from now on. What is due already and stays, stays until something else changes.
pub fn next_reap(facts: &Facts<'_>, limits: &Limits) -> Option<Duration> {
    facts
        .running
        .iter()
        .map(|one| match one.in_flight {
            0 => limits.idle_timeout.saturating_sub(one.idle_for),
            _ => limits.idle_timeout,
        })
        .filter(|left| !left.is_zero())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        min_instances: 0,
        max_instances: 10,
        concurrency: 100,
        idle_timeout: Duration::from_secs(120),
    };

    fn facts(waiting: usize, starting: u32, running: &[Running]) -> Facts<'_> {
        Facts {
            standing: Standing::InTraffic,
            waiting,
            starting,

            running,
            proof_wanted: false,
            backing_off: false,
        }
    }

    #[test]
    fn a_hundred_waiters_at_concurrency_a_hundred_cause_one_start() {
        assert_eq!(decide(&facts(100, 0, &[]), &LIMITS).start, 1);
        assert_eq!(decide(&facts(100, 1, &[]), &LIMITS).start, 0);
        assert_eq!(decide(&facts(101, 0, &[]), &LIMITS).start, 2);
        assert_eq!(decide(&facts(101, 1, &[]), &LIMITS).start, 1);
    }

    #[test]
    fn a_proof_starts_one_even_while_backing_off_but_none_beside_a_running_one() {
        let mut proof = facts(0, 0, &[]);
        proof.proof_wanted = true;
        proof.backing_off = true;
        assert_eq!(decide(&proof, &LIMITS).start, 1);
        proof.starting = 1;
        assert_eq!(decide(&proof, &LIMITS).start, 0);
    }

    /// The end of a request tells the owner nothing, so it must look again by itself: it once did so
    /// only after ten seconds.
    #[test]
    fn an_instance_at_work_may_be_reaped_an_idle_timeout_from_now() {
        let at_work = Running {
            id: 0,
            in_flight: 1,
            idle_for: Duration::ZERO,
        };
        let running = [at_work];
        assert_eq!(
            next_reap(&facts(0, 0, &running), &LIMITS),
            Some(LIMITS.idle_timeout)
        );
    }

    /// A task that would wake at once, to find that it may not, would spin.
    #[test]
    fn an_instance_kept_although_idle_wakes_nobody() {
        let kept = Running {
            id: 0,
            in_flight: 0,
            idle_for: LIMITS.idle_timeout,
        };
        let running = [kept];
        assert_eq!(next_reap(&facts(0, 0, &running), &LIMITS), None);
    }

    fn standing() -> impl Strategy<Value = Standing> {
        prop_oneof![
            Just(Standing::InTraffic),
            Just(Standing::Reachable),
            Just(Standing::Left),
            Just(Standing::Deleted),
        ]
    }

    prop_compose! {
        fn running()(in_flight in 0u32..3, idle in 0u64..300) -> (u32, u64) { (in_flight, idle) }
    }

    proptest! {
        #[test]
        fn the_laws_hold(
            standing in standing(),
            waiting in 0usize..2000,
            starting in 0u32..4,
            running in proptest::collection::vec(running(), 0..8),
            min in 0u32..4,
            max in 1u32..12,
            concurrency in 1u32..200,
            proof_wanted: bool,
            backing_off: bool,
        ) {
            let running: Vec<Running> = running
                .into_iter()
                .enumerate()
                .map(|(id, (in_flight, idle))| Running {
                    id: id as u64,
                    in_flight,
                    idle_for: Duration::from_secs(if in_flight > 0 { 0 } else { idle }),
                })
                .collect();
            let limits = Limits {
                min_instances: min.min(max),
                max_instances: max,
                concurrency,
                idle_timeout: Duration::from_secs(120),
            };
            let facts = Facts {
                standing, waiting, starting, running: &running, proof_wanted, backing_off,
            };
            let decision = decide(&facts, &limits);
            let alive = starting + running.len() as u32;
            prop_assert!(decision.start == 0 || alive + decision.start <= max);
            for id in &decision.reap {
                prop_assert_eq!(running[*id as usize].in_flight, 0);
            }
            if standing == Standing::InTraffic && alive >= limits.min_instances {
                prop_assert!(alive - decision.reap.len() as u32 >= limits.min_instances);
            }
            if waiting > 0 && standing != Standing::Deleted {
                prop_assert!(decision.reap.is_empty(), "never to zero with work queued");
            }
            prop_assert_eq!(&decision, &decide(&facts, &limits));

            // Carried out, the decision leaves nothing to decide.
            let after: Vec<Running> = running
                .iter()
                .filter(|one| !decision.reap.contains(&one.id))
                .copied()
                .collect();
            let settled = Facts {
                starting: starting + decision.start, running: &after, ..facts.clone()
            };
            let again = decide(&settled, &limits);
            prop_assert_eq!(again, Decision::default());
        }
    }
}
