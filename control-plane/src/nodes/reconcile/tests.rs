//! Reports, disconnects and deadlines cause each write once.

use super::*;
use crate::domain::{
    ColdStart, NodeName, Percent, ServiceId, StartFailure, StartFailureReason, Verification,
    VerifyNodes, VersionNumber, VersionSpec, VersionSpecInput, Violations,
};
use crate::nodes::registry::Registry;
use crate::nodes::report::{NodeIdentity, NodeReport, VerifyOutcome, VersionReport};
use uuid::Uuid;

fn at(seconds: u64) -> Timestamp {
    Timestamp::default().plus(Duration::from_secs(seconds))
}

fn named(name: &str) -> NodeName {
    NodeName::parse(name).expect("a label")
}

fn identity(name: &str) -> NodeIdentity {
    NodeIdentity {
        id: format!("id-{name}"),
        name: named(name),
        version: String::new(),
    }
}

/// A version with the verification `p`, requested of `nodes` at 100 s with a deadline at 200 s.
fn verifying(nodes: &[&str]) -> Version {
    let mut violations = Violations::new();
    let input = VersionSpecInput {
        image: "hello:1".into(),
        ..Default::default()
    };
    let spec = VersionSpec::new("spec", input, &mut violations).expect("valid");
    let asked = VerifyNodes {
        nodes: nodes.iter().map(|name| named(name)).collect(),
        ..Default::default()
    };
    Version {
        uid: Uuid::from_u128(1).into(),
        service: ServiceId::parse("hello").expect("a label"),
        service_uid: Uuid::from_u128(2).into(),
        number: VersionNumber::new(1).expect("from 1"),
        spec,
        image_digest: None,
        resolved_image: None,
        image_generation: 0,
        carried_traffic: false,
        etag: String::new(),
        create_time: at(0),
        verification: Some(Verification::begin("p", asked, at(100), at(200))),
        percent: Percent::ZERO,
        tags: Vec::new(),
    }
}

fn report(verify: Option<(&str, VerificationState)>, digest: Option<&str>) -> NodeReport {
    let version = VersionReport {
        version_uid: Uuid::from_u128(1).into(),
        service_uid: Uuid::from_u128(2).into(),
        number: VersionNumber::new(1).expect("from 1"),
        image_id: None,
        image_generation: 0,
        image_digest: digest
            .map(|hex| ImageDigest::parse(format!("sha256:{}", hex.repeat(64))).expect("a digest")),
        last_failure: None,
        failures: 0,
        backoff_until: None,
        last_cold_start: digest.map(|_| ColdStart::default()),
        pull_progress: String::new(),
        port: 0,
        verify: verify.map(|(id, state)| VerifyOutcome {
            id: id.into(),
            state,
            failure: None,
            cold_start: None,
        }),
    };
    NodeReport {
        versions: vec![version],
        ..Default::default()
    }
}

fn events(registry: &Registry, version: &Version, now: Timestamp) -> Vec<VerificationEvent> {
    let nodes: Vec<NodeEntry> = registry.nodes().into_iter().cloned().collect();
    verification_events(&nodes, version, at(90), now)
}

#[test]
fn an_outcome_counts_once_and_only_for_its_verification() {
    let mut registry = Registry::default();
    let version = verifying(&["a", "b"]);
    for name in ["a", "b"] {
        registry
            .connect(identity(name), "boot".into(), at(95))
            .expect("free");
    }
    let mut send = |name: &str, id: &str, state| {
        let report = report(Some((id, state)), None);
        registry
            .report(&identity(name), "boot", report, at(101))
            .expect("connected");
        registry.clone()
    };
    let other = send("a", "another", VerificationState::Verified);
    assert_eq!(events(&other, &version, at(102)), []);
    let pending = send("a", "p", VerificationState::Pending);
    assert_eq!(events(&pending, &version, at(102)), []);
    let verified = send("a", "p", VerificationState::Verified);
    let found = events(&verified, &version, at(102));
    assert_eq!(found.len(), 1);
    let after = found.into_iter().fold(version, |mut version, event| {
        version.verification = version
            .verification
            .map(|verification| verification.apply(event, at(102)));
        version
    });
    assert_eq!(
        events(&verified, &after, at(103)),
        [],
        "a stored outcome is not written again"
    );
}

#[test]
fn a_disconnected_node_drops_out_but_not_one_that_reconnects() {
    let mut registry = Registry::default();
    let version = verifying(&["a"]);
    let stream = registry
        .connect(identity("a"), "boot".into(), at(95))
        .expect("free");
    registry.disconnect("id-a", stream, at(110));
    assert_eq!(events(&registry, &version, at(114)), []);
    let disconnected = VerificationEvent::Disconnected { node: named("a") };
    assert_eq!(events(&registry, &version, at(115)), [disconnected]);
    registry
        .connect(identity("a"), "boot".into(), at(116))
        .expect("the same node");
    assert_eq!(events(&registry, &version, at(117)), []);
}

#[test]
fn after_a_restart_nodes_have_time_to_reconnect() {
    let version = verifying(&["a"]);
    let empty = Registry::default();
    assert_eq!(events(&empty, &version, at(104)), []);
    let disconnected = VerificationEvent::Disconnected { node: named("a") };
    assert_eq!(events(&empty, &version, at(105)), [disconnected]);
}

#[test]
fn the_deadline_is_an_event() {
    let mut registry = Registry::default();
    registry
        .connect(identity("a"), "boot".into(), at(95))
        .expect("free");
    let version = verifying(&["a"]);
    assert_eq!(events(&registry, &version, at(199)), []);
    assert_eq!(
        events(&registry, &version, at(200)),
        [VerificationEvent::Tick]
    );
}

#[test]
fn only_the_first_digest_is_written() {
    let mut registry = Registry::default();
    for (name, digest) in [("a", "1"), ("b", "2")] {
        let report = report(None, Some(digest));
        registry
            .connect(identity(name), "boot".into(), at(0))
            .expect("free");
        registry
            .report(&identity(name), "boot", report, at(0))
            .expect("connected");
    }
    let nodes: Vec<NodeEntry> = registry.nodes().into_iter().cloned().collect();
    let uid = Uid::from(Uuid::from_u128(1));
    let found = due_writes(&nodes, &[], &BTreeSet::new(), at(0), at(1));
    let [DueWrite::Digest(of, digest, 0)] = found.as_slice() else {
        panic!("one digest, not {found:?}");
    };
    assert_eq!(
        (of, digest.as_str()),
        (&uid, format!("sha256:{}", "1".repeat(64)).as_str())
    );
    assert_eq!(
        due_writes(&nodes, &[], &BTreeSet::from([(uid, 0)]), at(0), at(1)),
        []
    );
}

#[test]
fn a_digest_counts_only_beside_a_success() {
    let of = |started: bool, verified: VerificationState| {
        let mut registry = Registry::default();
        let mut report = report(Some(("p", verified)), Some("1"));
        if !started {
            report.versions[0].last_cold_start = None;
        }
        registry
            .connect(identity("a"), "boot".into(), at(0))
            .expect("free");
        registry
            .report(&identity("a"), "boot", report, at(0))
            .expect("connected");
        let nodes: Vec<NodeEntry> = registry.nodes().into_iter().cloned().collect();
        due_writes(&nodes, &[], &BTreeSet::new(), at(0), at(1)).len()
    };
    assert_eq!(of(false, VerificationState::Pending), 0);
    assert_eq!(of(false, VerificationState::Failed), 0);
    assert_eq!(of(false, VerificationState::Verified), 1);
    assert_eq!(of(true, VerificationState::Failed), 1);
}

/// A version that serves is not degraded by a malformed response, which its status shows.
#[test]
fn a_malformed_response_is_no_trouble_of_a_start() {
    let mut version = report(None, None).versions.remove(0);
    for (reason, is_trouble) in [
        (StartFailureReason::Exited, true),
        (StartFailureReason::MalformedResponse, false),
    ] {
        version.last_failure = Some(StartFailure {
            reason,
            message: String::new(),
            exit_code: None,
            oom_killed: false,
            log_tail: Vec::new(),
            time: None,
            signal: String::new(),
            last_probe: String::new(),
            engine_error: String::new(),
        });
        assert_eq!(version.is_in_trouble(at(0)), is_trouble, "{reason:?}");
    }
}
