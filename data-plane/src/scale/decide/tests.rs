//! The laws of [`decide`], and the cases that name them.

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    min_instances: 0,
    max_instances: 10,
    concurrency: 100,
    idle_timeout: Duration::from_secs(120),
    pause_after: Some(Duration::from_secs(20)),
};

fn facts<'a>(waiting: usize, coming: u32, running: &'a [Running]) -> ScaleInputs<'a> {
    ScaleInputs {
        standing: VersionStatus::InTraffic,
        waiting,
        coming,
        pausing: 0,
        running,
        asleep: &[],
        needed: 0,
        proof_wanted: false,
        backing_off: false,
        engine_away: false,
    }
}

fn idle(id: u64, seconds: u64) -> Running {
    Running {
        id,
        in_flight: 0,
        idle_for: Duration::from_secs(seconds),
    }
}

fn sleeper(id: u64, seconds: u64) -> Sleeper {
    Sleeper {
        id,
        idle_for: Duration::from_secs(seconds),
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
    proof.coming = 1;
    assert_eq!(decide(&proof, &LIMITS).start, 0);
}

#[test]
fn a_queue_wakes_the_last_to_fall_asleep_before_it_starts_another() {
    let asleep = [sleeper(1, 90), sleeper(2, 30)];
    let mut queue = facts(100, 0, &[]);
    queue.asleep = &asleep;
    queue.backing_off = true;
    assert_eq!(decide(&queue, &LIMITS).wake, [2]);
    queue.waiting = 300;
    queue.backing_off = false;
    let decision = decide(&queue, &LIMITS);
    assert_eq!((decision.wake, decision.start), (vec![2, 1], 1));
}

#[test]
fn who_comes_while_the_only_one_falls_asleep_waits_for_that_one() {
    let mut queue = facts(1, 0, &[]);
    queue.pausing = 1;
    assert_eq!(decide(&queue, &LIMITS), Decision::default());
}

#[test]
fn an_idle_instance_sleeps_and_then_goes() {
    let running = [idle(1, 19)];
    assert_eq!(decide(&facts(0, 0, &running), &LIMITS), Decision::default());
    let due = next_due(&facts(0, 0, &running), &LIMITS);
    assert_eq!(due, Some(Duration::from_secs(1)));
    let running = [idle(1, 20)];
    assert_eq!(decide(&facts(0, 0, &running), &LIMITS).pause, [1]);
    let asleep = [sleeper(1, 120)];
    let mut facts = facts(0, 0, &[]);
    facts.asleep = &asleep;
    assert_eq!(decide(&facts, &LIMITS).reap, [1]);
}

#[test]
fn those_kept_warm_do_not_sleep_and_are_woken_if_they_do() {
    let limits = Limits {
        min_instances: 1,
        ..LIMITS
    };
    let running = [idle(1, 500), idle(2, 30)];
    let mut facts = facts(0, 0, &running);
    facts.needed = 2;
    let decision = decide(&facts, &limits);
    assert_eq!((decision.reap, decision.pause), (vec![1], vec![]));
    assert_eq!(next_due(&facts, &limits), Some(Duration::from_secs(90)));
    let asleep = [sleeper(1, 500)];
    (facts.running, facts.asleep) = (&[], &asleep);
    let decision = decide(&facts, &limits);
    assert_eq!((decision.wake, decision.reap), (vec![1], vec![]));
}

#[test]
fn what_the_load_did_not_need_goes_when_idle_all_but_one() {
    let busy = Running {
        in_flight: 3,
        ..idle(3, 0)
    };
    let running = [idle(1, 4), idle(2, 5), busy];
    let mut facts = facts(0, 0, &running);
    facts.needed = 2;
    assert_eq!(decide(&facts, &LIMITS).reap, [2]);
    facts.needed = 0;
    assert_eq!(decide(&facts, &LIMITS).reap, [2, 1]);
    facts.running = &running[..2];
    assert_eq!(decide(&facts, &LIMITS).reap, [2], "one lives out its time");
    facts.standing = VersionStatus::Left;
    assert_eq!(
        decide(&facts, &LIMITS).reap,
        [0u64; 0],
        "a rollback finds all"
    );
}

#[test]
fn a_maximum_that_was_lowered_is_kept_as_instances_become_idle() {
    let limits = Limits {
        max_instances: 1,
        ..LIMITS
    };
    let running = [idle(1, 0), idle(2, 1)];
    let mut facts = facts(0, 0, &running);
    facts.needed = 2;
    assert_eq!(decide(&facts, &limits).reap, [2]);
}

/// The end of a request tells the owner nothing, so it must look again by itself: it once did so
/// only after ten seconds.
#[test]
fn an_instance_at_work_may_be_due_an_idle_timeout_from_now() {
    let at_work = [Running {
        id: 0,
        in_flight: 1,
        idle_for: Duration::ZERO,
    }];
    let limits = Limits {
        pause_after: None,
        ..LIMITS
    };
    assert_eq!(
        next_due(&facts(0, 0, &at_work), &limits),
        Some(LIMITS.idle_timeout)
    );
}

/// A task that would wake at once, to find that it may not, would spin.
#[test]
fn an_instance_kept_although_idle_wakes_nobody() {
    let kept = [idle(0, LIMITS.idle_timeout.as_secs())];
    assert_eq!(next_due(&facts(0, 0, &kept), &LIMITS), None);
}

/// It once was reaped, and another started for the proof at once.
#[test]
fn the_only_one_stays_while_a_proof_has_yet_to_look_at_it() {
    for pause_after in [None, LIMITS.pause_after] {
        let limits = Limits {
            pause_after,
            ..LIMITS
        };
        let running = [idle(1, 500)];
        let mut facts = facts(0, 0, &running);
        facts.standing = VersionStatus::Reachable;
        facts.proof_wanted = true;
        assert_eq!(decide(&facts, &limits), Decision::default());
    }
}

fn standing() -> impl Strategy<Value = VersionStatus> {
    prop_oneof![
        3 => Just(VersionStatus::InTraffic),
        1 => Just(VersionStatus::Reachable),
        1 => Just(VersionStatus::Left),
        1 => Just(VersionStatus::Deleted),
    ]
}

prop_compose! {
    fn limits()(
        min in 0u32..4, max in 1u32..12, concurrency in 1u32..200,
        pause_after in proptest::option::of(1u64..120),
    ) -> Limits {
        Limits {
            min_instances: min.min(max),
            max_instances: max,
            concurrency,
            idle_timeout: Duration::from_secs(120),
            pause_after: pause_after.map(Duration::from_secs),
        }
    }
}

/// ScaleInputs that own what they refer to.
#[derive(Debug, Clone)]
struct Case {
    standing: VersionStatus,
    waiting: usize,
    coming: u32,
    pausing: u32,
    running: Vec<Running>,
    asleep: Vec<Sleeper>,
    needed: u32,
    proof_wanted: bool,
    backing_off: bool,
}

impl Case {
    fn facts(&self) -> ScaleInputs<'_> {
        ScaleInputs {
            standing: self.standing,
            waiting: self.waiting,
            coming: self.coming,
            pausing: self.pausing,
            running: &self.running,
            asleep: &self.asleep,
            needed: self.needed,
            proof_wanted: self.proof_wanted,
            backing_off: self.backing_off,
            engine_away: false,
        }
    }

    /// As it is once the engine has been asked for all of it.
    fn carried_out(&self, decision: &Decision) -> Self {
        let mut after = self.clone();
        let gone = |id: &u64| decision.reap.contains(id) || decision.pause.contains(id);
        after.running.retain(|one| !gone(&one.id));
        after
            .asleep
            .retain(|one| !gone(&one.id) && !decision.wake.contains(&one.id));
        after.coming += decision.start + count(&decision.wake);
        after.pausing += count(&decision.pause);
        after
    }
}

prop_compose! {
    fn case()(
        standing in standing(),
        waiting in prop_oneof![Just(0usize), 0usize..2000],
        coming in 0u32..4,
        pausing in 0u32..3,
        running in proptest::collection::vec((0u32..3, 0u64..300), 0..8),
        asleep in proptest::collection::vec(0u64..300, 0..4),
        needed in 0u32..10,
        proof_wanted: bool,
        backing_off: bool,
    ) -> Case {
        let running: Vec<Running> = (0..).zip(running).map(|(id, (in_flight, seconds))| Running {
            in_flight,
            ..idle(id, if in_flight > 0 { 0 } else { seconds })
        }).collect();
        let asleep = (100..).zip(asleep).map(|(id, seconds)| sleeper(id, seconds)).collect();
        Case { standing, waiting, coming, pausing, running, asleep, needed, proof_wanted, backing_off }
    }
}

proptest! {
    #[test]
    fn nothing_is_decided_while_the_engine_is_away(case in case(), limits in limits()) {
        let facts = ScaleInputs { engine_away: true, ..case.facts() };
        prop_assert_eq!(decide(&facts, &limits), Decision::default());
    }

    #[test]
    fn within_the_maximum_and_work_is_left_alone(case in case(), limits in limits()) {
        let facts = case.facts();
        let decision = decide(&facts, &limits);
        prop_assert!(decision.start == 0 || alive(&facts) + decision.start <= limits.max_instances);
        let work = |id: &u64| case.running.iter().any(|one| one.id == *id && one.in_flight > 0);
        prop_assert!(!decision.reap.iter().chain(&decision.pause).any(work));
        if case.waiting > 0 && case.standing != VersionStatus::Deleted {
            prop_assert!(decision.reap.is_empty() && decision.pause.is_empty());
        }
        // Each is told one thing.
        let mut told: Vec<u64> = [&decision.wake, &decision.pause, &decision.reap]
            .into_iter().flatten().copied().collect();
        let all = told.len();
        told.sort_unstable();
        told.dedup();
        prop_assert_eq!(told.len(), all);
    }

    #[test]
    fn the_minimum_stays_awake_or_is_on_its_way(case in case(), limits in limits()) {
        let case = Case { standing: VersionStatus::InTraffic, ..case };
        let facts = case.facts();
        let decision = decide(&facts, &limits);
        let after = case.carried_out(&decision);
        let awake = count(&after.running);
        if !decision.reap.iter().chain(&decision.pause).all(|id| *id >= 100) {
            prop_assert!(awake >= limits.min_instances);
        }
        // What is falling asleep is woken when it has; there may be no room beside it.
        let on_their_way = after.coming + after.pausing;
        let room = alive(&after.facts()) < limits.max_instances;
        let may_start = !case.backing_off && room;
        if may_start || !after.asleep.is_empty() {
            prop_assert!(awake + on_their_way >= limits.min_instances);
        }
    }

    #[test]
    fn a_queue_that_can_be_helped_is_helped(case in case(), limits in limits()) {
        let decision = decide(&case.facts(), &limits);
        let after = case.carried_out(&decision);
        let live = alive(&after.facts());
        if case.waiting > 0 && case.standing != VersionStatus::Deleted {
            let absorbed = (after.coming + after.pausing) as usize * limits.concurrency as usize;
            let helpless = after.asleep.is_empty()
                && (case.backing_off || live >= limits.max_instances);
            prop_assert!(absorbed >= case.waiting || helpless);
            if !case.backing_off {
                prop_assert!(live > 0, "never to zero with work queued");
            }
        }
    }

    #[test]
    fn deciding_again_decides_nothing(case in case(), limits in limits()) {
        let decision = decide(&case.facts(), &limits);
        prop_assert_eq!(&decision, &decide(&case.facts(), &limits), "unchanged input");
        let again = decide(&case.carried_out(&decision).facts(), &limits);
        prop_assert_eq!(again, Decision::default(), "after {:?}", decision);
    }

    #[test]
    fn nothing_is_decided_before_the_next_due_time(case in case(), limits in limits()) {
        let decision = decide(&case.facts(), &limits);
        let mut later = case.carried_out(&decision);
        let due = next_due(&later.facts(), &limits);
        let pass = due.unwrap_or(Duration::from_secs(9999)).saturating_sub(Duration::from_millis(1));
        for one in &mut later.running {
            one.idle_for += if one.in_flight == 0 { pass } else { Duration::ZERO };
        }
        for one in &mut later.asleep {
            one.idle_for += pass;
        }
        prop_assert_eq!(decide(&later.facts(), &limits), Decision::default());
    }
}
