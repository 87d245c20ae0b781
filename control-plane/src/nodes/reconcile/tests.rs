//! What follows from reports, disconnects and time; and that it follows once.

use super::*;
use crate::domain::{
    NodeName, Percent, ServiceId, Verification, VersionNumber, VersionSpec, VersionSpecInput,
    Violations,
};
use crate::nodes::registry::Registry;
use crate::nodes::report::{Identity, Report, VerifyOutcome, VersionReport};
use uuid::Uuid;

fn at(seconds: u64) -> Timestamp {
    Timestamp::default().plus(Duration::from_secs(seconds))
}

fn named(name: &str) -> NodeName {
    NodeName::parse(name).expect("a label")
}

fn identity(name: &str) -> Identity {
    Identity {
        id: format!("id-{name}"),
        name: named(name),
        version: String::new(),
    }
}

/// A version with a proof `p` asked of nodes at 100 s, due at 200 s.
fn asked(nodes: &[&str]) -> Version {
    let mut violations = Violations::new();
    let input = VersionSpecInput {
        image: "hello:1".into(),
        ..Default::default()
    };
    let spec = VersionSpec::new("spec", input, &mut violations).expect("valid");
    let nodes = nodes.iter().map(|name| named(name)).collect();
    Version {
        uid: Uuid::from_u128(1).into(),
        service: ServiceId::parse("hello").expect("a label"),
        service_uid: Uuid::from_u128(2).into(),
        number: VersionNumber::new(1).expect("from 1"),
        spec,
        image_digest: None,
        etag: String::new(),
        create_time: at(0),
        verification: Some(Verification::begin("p", nodes, at(100), at(200))),
        percent: Percent::ZERO,
        tags: Vec::new(),
    }
}

fn report(verify: Option<(&str, VerificationState)>, digest: Option<&str>) -> Report {
    let version = VersionReport {
        version_uid: Uuid::from_u128(1).into(),
        image_digest: digest
            .map(|hex| ImageDigest::parse(format!("sha256:{}", hex.repeat(64))).expect("a digest")),
        last_failure: None,
        failures: 0,
        backoff_until: None,
        last_cold_start: None,
        pull_progress: String::new(),
        verify: verify.map(|(id, state)| VerifyOutcome {
            id: id.into(),
            state,
            failure: None,
            cold_start: None,
        }),
    };
    Report {
        versions: vec![version],
        ..Default::default()
    }
}

fn events(registry: &Registry, version: &Version, now: Timestamp) -> Vec<VerificationEvent> {
    let nodes: Vec<Node> = registry.nodes().into_iter().cloned().collect();
    verification_events(&nodes, version, at(90), now)
}

#[test]
fn an_answer_counts_once_and_only_to_the_run_it_answers() {
    let mut registry = Registry::default();
    let version = asked(&["a", "b"]);
    for name in ["a", "b"] {
        registry
            .connect(identity(name), "boot".into(), at(95))
            .expect("free");
    }
    let mut say = |name: &str, id: &str, state| {
        let said = report(Some((id, state)), None);
        registry
            .report(identity(name), "boot".into(), said, at(101))
            .expect("own");
        registry.clone()
    };
    let other = say("a", "another", VerificationState::Verified);
    assert_eq!(events(&other, &version, at(102)), []);
    let pending = say("a", "p", VerificationState::Pending);
    assert_eq!(events(&pending, &version, at(102)), []);
    let verified = say("a", "p", VerificationState::Verified);
    let found = events(&verified, &version, at(102));
    assert_eq!(found.len(), 1);
    let after = found.into_iter().fold(version, |mut version, event| {
        version.verification = version
            .verification
            .map(|proof| proof.apply(event, at(102)));
        version
    });
    assert_eq!(
        events(&verified, &after, at(103)),
        [],
        "an answer that is known is not written"
    );
}

#[test]
fn a_node_that_is_gone_drops_out_but_not_one_that_only_reconnects() {
    let mut registry = Registry::default();
    let version = asked(&["a"]);
    let stream = registry
        .connect(identity("a"), "boot".into(), at(95))
        .expect("free");
    registry.disconnect("id-a", stream, at(110));
    assert_eq!(events(&registry, &version, at(114)), []);
    let gone = VerificationEvent::Disconnected { node: named("a") };
    assert_eq!(events(&registry, &version, at(115)), [gone]);
    registry
        .connect(identity("a"), "boot".into(), at(116))
        .expect("own");
    assert_eq!(events(&registry, &version, at(117)), []);
}

#[test]
fn after_a_restart_nodes_have_time_to_return() {
    let version = asked(&["a"]);
    let nobody = Registry::default();
    assert_eq!(events(&nobody, &version, at(104)), []);
    let gone = VerificationEvent::Disconnected { node: named("a") };
    assert_eq!(events(&nobody, &version, at(105)), [gone]);
}

#[test]
fn the_deadline_is_told_of() {
    let mut registry = Registry::default();
    registry
        .connect(identity("a"), "boot".into(), at(95))
        .expect("free");
    let version = asked(&["a"]);
    assert_eq!(events(&registry, &version, at(199)), []);
    assert_eq!(
        events(&registry, &version, at(200)),
        [VerificationEvent::Tick]
    );
}

#[test]
fn the_first_digest_is_written_and_no_other() {
    let mut registry = Registry::default();
    for (name, digest) in [("a", "1"), ("b", "2")] {
        let said = report(None, Some(digest));
        registry
            .report(identity(name), "boot".into(), said, at(0))
            .expect("free");
    }
    let nodes: Vec<Node> = registry.nodes().into_iter().cloned().collect();
    let uid = Uid::from(Uuid::from_u128(1));
    let found = consequences(&nodes, &[], &BTreeSet::new(), at(0), at(1));
    let [Consequence::Digest(of, digest)] = found.as_slice() else {
        panic!("one digest, not {found:?}");
    };
    assert_eq!(
        (of, digest.as_str()),
        (&uid, format!("sha256:{}", "1".repeat(64)).as_str())
    );
    assert_eq!(
        consequences(&nodes, &[], &BTreeSet::from([uid]), at(0), at(1)),
        []
    );
}
