use std::time::Duration;

use proptest::prelude::*;

use super::super::start::StartFailureReason;
use super::*;

const START: Timestamp = Timestamp::from_micros(1_000_000);

fn node(n: u8) -> NodeName {
    NodeName::parse(format!("n{n}")).unwrap()
}

fn begin_with(count: u8, require: Require) -> Verification {
    let asked = VerifyNodes {
        nodes: (0..count).map(node).collect(),
        require,
        skipped: BTreeSet::from([node(9)]),
    };
    Verification::begin("run", asked, START, START.plus(Duration::from_secs(10)))
}

fn begin(count: u8) -> Verification {
    begin_with(count, Require::All)
}

fn answer(n: u8, outcome: NodeOutcome) -> VerificationEvent {
    VerificationEvent::Outcome {
        id: "run".to_owned(),
        node: node(n),
        outcome,
    }
}

fn failed(message: &str) -> NodeOutcome {
    NodeOutcome::Failed(Some(failure(message)))
}

fn troubled(message: &str) -> NodeOutcome {
    NodeOutcome::Unverified(Some(failure(message)))
}

fn failure(message: &str) -> StartFailure {
    StartFailure {
        reason: StartFailureReason::Exited,
        message: message.to_owned(),
        exit_code: Some(3),
        oom_killed: false,
        log_tail: vec![],
        time: None,
        signal: String::new(),
        last_probe: String::new(),
        engine_error: String::new(),
    }
}

#[test]
fn a_version_is_verified_when_all_nodes_have_verified_it() {
    let one = begin(2).apply(answer(0, NodeOutcome::Verified(None)), START);
    assert!(one.is_pending());
    let two = one.apply(answer(1, NodeOutcome::Verified(None)), START);
    assert_eq!(two.state(), VerificationState::Verified);
    assert_eq!(two.message(), "");
}

#[test]
fn a_failed_node_ends_the_run_at_once() {
    for require in [Require::All, Require::Available] {
        let one = begin_with(3, require)
            .apply(answer(1, failed("exit code 3")), START)
            .apply(answer(0, NodeOutcome::Verified(None)), START);
        assert_eq!(one.state(), VerificationState::Failed);
        assert_eq!(one.message(), "n1: exit code 3");
    }
}

#[test]
fn trouble_of_a_node_is_no_fault_of_the_version() {
    let one = begin(3).apply(answer(1, troubled("the engine is away")), START);
    assert_eq!(one.state(), VerificationState::Unverified);
    let message = one.message();
    assert!(message.starts_with("n1: the engine is away: "), "{message}");
    assert!(message.contains("skip_nodes"), "{message}");
}

#[test]
fn available_nodes_verify_without_the_troubled_ones() {
    let one = begin_with(2, Require::Available).apply(answer(1, troubled("disk full")), START);
    assert!(one.is_pending(), "the other node may verify it");
    let two = one
        .clone()
        .apply(answer(0, NodeOutcome::Verified(None)), START);
    assert_eq!(two.state(), VerificationState::Verified);
    let none = one.apply(answer(0, troubled("no engine")), START);
    assert_eq!(none.state(), VerificationState::Unverified);
    assert!(none.message().contains("n0: no engine; n1: disk full"));
}

#[test]
fn the_deadline_names_silent_nodes() {
    let late = START.plus(Duration::from_secs(10));
    for require in [Require::All, Require::Available] {
        let over = begin_with(2, require)
            .apply(answer(0, NodeOutcome::Verified(None)), START)
            .apply(VerificationEvent::Tick, late);
        assert_eq!(over.state(), VerificationState::Unverified);
        assert!(
            over.message().starts_with("n1: did not answer"),
            "{}",
            over.message()
        );
    }
}

#[test]
fn a_node_that_disconnects_no_longer_counts() {
    let left = begin(2)
        .apply(answer(0, NodeOutcome::Verified(None)), START)
        .apply(VerificationEvent::Disconnected { node: node(1) }, START);
    assert_eq!(left.state(), VerificationState::Verified);
    let none = begin(1).apply(VerificationEvent::Disconnected { node: node(0) }, START);
    assert_eq!(none.state(), VerificationState::Unverified);
    assert!(none.message().contains("disconnected"));
    assert_eq!(begin(0).state(), VerificationState::Unverified);
}

#[test]
fn a_run_is_cancelled_by_its_id_or_whichever_it_is() {
    let cancel = |id: Option<&str>| VerificationEvent::Cancelled {
        id: id.map(str::to_owned),
    };
    assert!(begin(1).apply(cancel(Some("older")), START).is_pending());
    for id in [None, Some("run")] {
        let ended = begin(1).apply(cancel(id), START);
        assert_eq!(ended.state(), VerificationState::Unverified);
        assert!(ended.message().contains("cancelled"));
        assert_eq!(ended.clone().apply(cancel(id), START), ended);
    }
}

#[test]
fn a_run_stored_by_an_earlier_release_is_read() {
    let stored = r#"{"id":"run","state":"Failed","request_time":1,"deadline":2,
        "nodes":{"n0":{"Failed":null},"n1":{"Verified":null},"n2":"Pending"},"message":"n0: boom"}"#;
    let read: Verification = serde_json::from_str(stored).unwrap();
    assert_eq!(read.state(), VerificationState::Failed);
    assert_eq!((read.require(), read.skipped().count()), (Require::All, 0));
    assert_eq!((read.nodes().count(), read.message()), (3, "n0: boom"));
}

#[test]
fn answers_to_another_run_or_by_other_nodes_do_not_count() {
    let same = begin(1)
        .apply(
            VerificationEvent::Outcome {
                id: "older".to_owned(),
                node: node(0),
                outcome: NodeOutcome::Verified(None),
            },
            START,
        )
        .apply(answer(7, NodeOutcome::Verified(None)), START);
    assert_eq!(same, begin(1));
}

fn any_event() -> impl Strategy<Value = (VerificationEvent, u64)> {
    let cancel = VerificationEvent::Cancelled { id: None };
    let event = prop_oneof![
        8 => (0..5_u8).prop_map(|n| answer(n, NodeOutcome::Verified(None))),
        2 => (0..5_u8).prop_map(|n| answer(n, NodeOutcome::Pending)),
        2 => (0..5_u8).prop_map(|n| answer(n, failed("boom"))),
        4 => (0..5_u8).prop_map(|n| answer(n, troubled("away"))),
        2 => (0..5_u8).prop_map(|n| VerificationEvent::Disconnected { node: node(n) }),
        1 => Just(cancel),
        2 => Just(VerificationEvent::Tick),
    ];
    (event, 0..3_u64)
}

proptest! {
    #[test]
    fn the_state_follows_from_the_answers(
        count in 0..4_u8,
        available in any::<bool>(),
        events in proptest::collection::vec(any_event(), 0..20),
    ) {
        use VerificationState::{Failed, Pending, Unverified, Verified};
        let require = if available { Require::Available } else { Require::All };
        let mut now = START;
        let mut verification = begin_with(count, require);
        for (event, seconds) in events {
            now = now.plus(Duration::from_secs(seconds));
            let before = verification.clone();
            let cancelled = matches!(event, VerificationEvent::Cancelled { .. });
            verification = verification.apply(event, now);
            if !before.is_pending() {
                prop_assert_eq!(&verification, &before, "a final state absorbs every event");
                continue;
            }
            prop_assert_eq!(
                verification.message().is_empty(),
                matches!(verification.state(), Pending | Verified)
            );
            let states: Vec<_> = verification.nodes().map(|n| n.outcome.state()).collect();
            let has = |state| states.contains(&state);
            match verification.state() {
                Verified => {
                    prop_assert!(has(Verified) && !has(Failed) && !has(Pending));
                    prop_assert!(available || !has(Unverified));
                }
                Pending => {
                    prop_assert!(has(Pending) && !has(Failed));
                    prop_assert!(available || !has(Unverified), "the outcome is known");
                    prop_assert!(now < verification.deadline());
                }
                Failed => prop_assert!(has(Failed), "a fault of the version"),
                Unverified => prop_assert!(
                    !has(Failed)
                        && (cancelled || states.is_empty() || has(Unverified) || has(Pending))
                ),
            }
        }
        // The deadline ends every run.
        let end = verification.deadline();
        prop_assert!(!verification.apply(VerificationEvent::Tick, end).is_pending());
    }
}
