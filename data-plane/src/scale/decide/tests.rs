//! Laws and cases of [`decide`].

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    min_instances: 0,
    max_instances: 10,
    concurrency: 100,
    idle_timeout: Duration::from_secs(120),
    pause_after: Some(Duration::from_secs(20)),
};

fn inputs<'a>(queued: usize, starting: u32, running: &'a [RunningInstance]) -> ScaleInputs<'a> {
    ScaleInputs {
        status: VersionStatus::InTraffic,
        queued,
        starting,
        pausing: 0,
        running,
        paused: &[],
        needed: 0,
        verification_pending: false,
        refills_delayed: false,
        backing_off: false,
        engine_unavailable: false,
    }
}

fn idle(id: u64, seconds: u64) -> RunningInstance {
    RunningInstance {
        id,
        in_flight: 0,
        idle_for: Duration::from_secs(seconds),
    }
}

fn paused_instance(id: u64, seconds: u64) -> PausedInstance {
    PausedInstance {
        id,
        idle_for: Duration::from_secs(seconds),
    }
}

#[test]
fn a_hundred_waiters_at_concurrency_a_hundred_cause_one_start() {
    assert_eq!(decide(&inputs(100, 0, &[]), &LIMITS).start, 1);
    assert_eq!(decide(&inputs(100, 1, &[]), &LIMITS).start, 0);
    assert_eq!(decide(&inputs(101, 0, &[]), &LIMITS).start, 2);
    assert_eq!(decide(&inputs(101, 1, &[]), &LIMITS).start, 1);
}

#[test]
fn a_verification_starts_one_despite_backoff_but_none_beside_a_running_one() {
    let mut proof = inputs(0, 0, &[]);
    proof.verification_pending = true;
    proof.backing_off = true;
    assert_eq!(decide(&proof, &LIMITS).start, 1);
    proof.starting = 1;
    assert_eq!(decide(&proof, &LIMITS).start, 0);
}

#[test]
fn a_queue_resumes_the_most_recently_paused_before_it_starts_another() {
    let paused = [paused_instance(1, 90), paused_instance(2, 30)];
    let mut queue = inputs(100, 0, &[]);
    queue.paused = &paused;
    queue.backing_off = true;
    assert_eq!(decide(&queue, &LIMITS).resume, [2]);
    queue.queued = 300;
    queue.backing_off = false;
    let decision = decide(&queue, &LIMITS);
    assert_eq!((decision.resume, decision.start), (vec![2, 1], 1));
}

#[test]
fn a_request_during_the_pause_of_the_only_instance_waits_for_it() {
    let mut queue = inputs(1, 0, &[]);
    queue.pausing = 1;
    assert_eq!(decide(&queue, &LIMITS), Decision::default());
}

#[test]
fn an_idle_instance_is_paused_and_then_reaped() {
    let running = [idle(1, 19)];
    assert_eq!(
        decide(&inputs(0, 0, &running), &LIMITS),
        Decision::default()
    );
    let due = next_due(&inputs(0, 0, &running), &LIMITS);
    assert_eq!(due, Some(Duration::from_secs(1)));
    let running = [idle(1, 20)];
    assert_eq!(decide(&inputs(0, 0, &running), &LIMITS).pause, [1]);
    let paused = [paused_instance(1, 120)];
    let mut inputs = inputs(0, 0, &[]);
    inputs.paused = &paused;
    assert_eq!(decide(&inputs, &LIMITS).reap, [1]);
}

#[test]
fn the_minimum_is_not_paused_and_is_resumed_if_it_is() {
    let limits = Limits {
        min_instances: 1,
        ..LIMITS
    };
    let running = [idle(1, 500), idle(2, 30)];
    let mut inputs = inputs(0, 0, &running);
    inputs.needed = 2;
    let decision = decide(&inputs, &limits);
    assert_eq!((decision.reap, decision.pause), (vec![1], vec![]));
    assert_eq!(next_due(&inputs, &limits), Some(Duration::from_secs(90)));
    let paused = [paused_instance(1, 500)];
    (inputs.running, inputs.paused) = (&[], &paused);
    let decision = decide(&inputs, &limits);
    assert_eq!((decision.resume, decision.reap), (vec![1], vec![]));
}

#[test]
fn idle_instances_beyond_the_recent_load_are_reaped_except_one() {
    let busy = RunningInstance {
        in_flight: 3,
        ..idle(3, 0)
    };
    let running = [idle(1, 4), idle(2, 5), busy];
    let mut inputs = inputs(0, 0, &running);
    inputs.needed = 2;
    assert_eq!(decide(&inputs, &LIMITS).reap, [2]);
    inputs.needed = 0;
    assert_eq!(decide(&inputs, &LIMITS).reap, [2, 1]);
    inputs.running = &running[..2];
    assert_eq!(
        decide(&inputs, &LIMITS).reap,
        [2],
        "the last one keeps its idle timeout"
    );
    inputs.status = VersionStatus::Left;
    assert_eq!(
        decide(&inputs, &LIMITS).reap,
        [0u64; 0],
        "a rollback finds all of them"
    );
}

#[test]
fn a_lowered_maximum_is_enforced_as_instances_become_idle() {
    let limits = Limits {
        max_instances: 1,
        ..LIMITS
    };
    let running = [idle(1, 0), idle(2, 1)];
    let mut inputs = inputs(0, 0, &running);
    inputs.needed = 2;
    assert_eq!(decide(&inputs, &limits).reap, [2]);
}

/// The end of a request does not notify the actor, so the actor needs a timer. Regression: it
/// looked again only after ten seconds.
#[test]
fn a_busy_instance_may_be_due_an_idle_timeout_from_now() {
    let at_work = [RunningInstance {
        id: 0,
        in_flight: 1,
        idle_for: Duration::ZERO,
    }];
    let limits = Limits {
        pause_after: None,
        ..LIMITS
    };
    assert_eq!(
        next_due(&inputs(0, 0, &at_work), &limits),
        Some(LIMITS.idle_timeout)
    );
}

/// Regression guard: a task that wakes at once without anything to do would spin.
#[test]
fn an_overdue_instance_that_is_kept_sets_no_timer() {
    let kept = [idle(0, LIMITS.idle_timeout.as_secs())];
    assert_eq!(next_due(&inputs(0, 0, &kept), &LIMITS), None);
}

/// Regression: the instance was reaped, and another was started for the verification at once.
#[test]
fn the_only_instance_stays_until_a_pending_verification_has_seen_it() {
    for pause_after in [None, LIMITS.pause_after] {
        let limits = Limits {
            pause_after,
            ..LIMITS
        };
        let running = [idle(1, 500)];
        let mut inputs = inputs(0, 0, &running);
        inputs.status = VersionStatus::Reachable;
        inputs.verification_pending = true;
        assert_eq!(decide(&inputs, &limits), Decision::default());
    }
}

fn status() -> impl Strategy<Value = VersionStatus> {
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

/// Owned inputs.
#[derive(Debug, Clone)]
struct Case {
    status: VersionStatus,
    queued: usize,
    starting: u32,
    pausing: u32,
    running: Vec<RunningInstance>,
    paused: Vec<PausedInstance>,
    needed: u32,
    verification_pending: bool,
    backing_off: bool,
}

impl Case {
    fn inputs(&self) -> ScaleInputs<'_> {
        ScaleInputs {
            status: self.status,
            queued: self.queued,
            starting: self.starting,
            pausing: self.pausing,
            running: &self.running,
            paused: &self.paused,
            needed: self.needed,
            verification_pending: self.verification_pending,
            refills_delayed: false,
            backing_off: self.backing_off,
            engine_unavailable: false,
        }
    }

    /// The state after the engine has carried out the decision.
    fn carried_out(&self, decision: &Decision) -> Self {
        let mut after = self.clone();
        let gone = |id: &u64| decision.reap.contains(id) || decision.pause.contains(id);
        after.running.retain(|one| !gone(&one.id));
        after
            .paused
            .retain(|one| !gone(&one.id) && !decision.resume.contains(&one.id));
        after.starting += decision.start + count(&decision.resume);
        after.pausing += count(&decision.pause);
        after
    }
}

prop_compose! {
    fn case()(
        status in status(),
        queued in prop_oneof![Just(0usize), 0usize..2000],
        starting in 0u32..4,
        pausing in 0u32..3,
        running in proptest::collection::vec((0u32..3, 0u64..300), 0..8),
        paused in proptest::collection::vec(0u64..300, 0..4),
        needed in 0u32..10,
        verification_pending: bool,
        backing_off: bool,
    ) -> Case {
        let running: Vec<RunningInstance> = (0..).zip(running).map(|(id, (in_flight, seconds))| RunningInstance {
            in_flight,
            ..idle(id, if in_flight > 0 { 0 } else { seconds })
        }).collect();
        let paused = (100..).zip(paused).map(|(id, seconds)| paused_instance(id, seconds)).collect();
        Case { status, queued, starting, pausing, running, paused, needed, verification_pending, backing_off }
    }
}

proptest! {
    #[test]
    fn nothing_is_decided_while_the_engine_is_unavailable(case in case(), limits in limits()) {
        let inputs = ScaleInputs { engine_unavailable: true, ..case.inputs() };
        prop_assert_eq!(decide(&inputs, &limits), Decision::default());
    }

    #[test]
    fn the_maximum_holds_and_busy_instances_are_left_alone(case in case(), limits in limits()) {
        let inputs = case.inputs();
        let decision = decide(&inputs, &limits);
        prop_assert!(decision.start == 0 || alive(&inputs) + decision.start <= limits.max_instances);
        let work = |id: &u64| case.running.iter().any(|one| one.id == *id && one.in_flight > 0);
        prop_assert!(!decision.reap.iter().chain(&decision.pause).any(work));
        if case.queued > 0 && case.status != VersionStatus::Deleted {
            prop_assert!(decision.reap.is_empty() && decision.pause.is_empty());
        }
        // Each instance receives one action.
        let mut told: Vec<u64> = [&decision.resume, &decision.pause, &decision.reap]
            .into_iter().flatten().copied().collect();
        let all = told.len();
        told.sort_unstable();
        told.dedup();
        prop_assert_eq!(told.len(), all);
    }

    #[test]
    fn the_minimum_is_awake_or_starting(case in case(), limits in limits()) {
        let case = Case { status: VersionStatus::InTraffic, ..case };
        let inputs = case.inputs();
        let decision = decide(&inputs, &limits);
        let after = case.carried_out(&decision);
        let awake = count(&after.running);
        if !decision.reap.iter().chain(&decision.pause).all(|id| *id >= 100) {
            prop_assert!(awake >= limits.min_instances);
        }
        // A pausing instance is resumed once paused; there may be no room for another.
        let pending = after.starting + after.pausing;
        let room = alive(&after.inputs()) < limits.max_instances;
        let may_start = !case.backing_off && room;
        if may_start || !after.paused.is_empty() {
            prop_assert!(awake + pending >= limits.min_instances);
        }
    }

    #[test]
    fn a_queue_is_absorbed_where_possible(case in case(), limits in limits()) {
        let decision = decide(&case.inputs(), &limits);
        let after = case.carried_out(&decision);
        let live = alive(&after.inputs());
        if case.queued > 0 && case.status != VersionStatus::Deleted {
            let absorbed = (after.starting + after.pausing) as usize * limits.concurrency as usize;
            let helpless = after.paused.is_empty()
                && (case.backing_off || live >= limits.max_instances);
            prop_assert!(absorbed >= case.queued || helpless);
            if !case.backing_off {
                prop_assert!(live > 0, "never zero instances with queued requests");
            }
        }
    }

    #[test]
    fn deciding_again_decides_nothing(case in case(), limits in limits()) {
        let decision = decide(&case.inputs(), &limits);
        prop_assert_eq!(&decision, &decide(&case.inputs(), &limits), "unchanged input");
        let again = decide(&case.carried_out(&decision).inputs(), &limits);
        prop_assert_eq!(again, Decision::default(), "after {:?}", decision);
    }

    #[test]
    fn nothing_is_decided_before_the_next_due_time(case in case(), limits in limits()) {
        let decision = decide(&case.inputs(), &limits);
        let mut later = case.carried_out(&decision);
        let due = next_due(&later.inputs(), &limits);
        let pass = due.unwrap_or(Duration::from_secs(9999)).saturating_sub(Duration::from_millis(1));
        for one in &mut later.running {
            one.idle_for += if one.in_flight == 0 { pass } else { Duration::ZERO };
        }
        for one in &mut later.paused {
            one.idle_for += pass;
        }
        prop_assert_eq!(decide(&later.inputs(), &limits), Decision::default());
    }
}

proptest! {
    #[test]
    fn delayed_refills_start_nothing_that_nobody_waits_for_and_change_nothing_else(
        queued in 0usize..20, min_instances in 0u32..5, backing_off in any::<bool>()
    ) {
        let limits = Limits { min_instances, ..LIMITS };
        let delayed = ScaleInputs { backing_off, refills_delayed: true, ..inputs(queued, 0, &[]) };
        let without = Limits { min_instances: 0, ..limits };
        let same = ScaleInputs { refills_delayed: false, ..delayed.clone() };
        prop_assert_eq!(decide(&delayed, &limits).start, decide(&same, &without).start);
    }
}
