//! Verifications: requested of connected nodes, decided by their reports.

use crate::feed_client::FeedClient;
use crate::harness::{Harness, assert_refused, eventually};
use crate::nodes::report;
use cless_proto::v1 as pb;
use pb::verification::State;
use tonic::Code;

const VERSION: &str = "services/hello/versions/1";

async fn verify(harness: &Harness) -> Result<pb::Version, tonic::Status> {
    let name = VERSION.into();
    let request = pb::VerifyVersionRequest {
        name,
        ..Default::default()
    };
    harness.call(request).await
}

/// Requests a verification.
async fn requested(harness: &Harness) -> pb::Verification {
    let version = verify(harness).await.expect("requested");
    version.verification.expect("a verification")
}

/// The current state of the verification.
async fn verification(harness: &Harness) -> pb::Verification {
    let version = harness.get_version(VERSION).await;
    version.verification.expect("kept")
}

/// A control plane with one version to verify.
async fn with_version() -> (Harness, pb::Version) {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let made = harness.version("hello", "hello:1").await;
    (harness, made)
}

/// A connected node that has received the table.
async fn node(harness: &Harness, name: &str) -> FeedClient {
    let mut client = FeedClient::connect(harness, name, None).await;
    client.change().await;
    client
}

fn outcome(version: &pb::Version, order: &str, state: State) -> pb::VersionReport {
    let failure = (state == State::Failed).then(|| pb::StartFailure {
        reason: pb::start_failure::Reason::Exited.into(),
        message: "the container exited with code 7".into(),
        exit_code: Some(7),
        ..Default::default()
    });
    pb::VersionReport {
        service_uid: uuid::Uuid::from_u128(5).to_string(),
        number: version.number,
        version_uid: version.uid.clone(),
        last_failure: failure.clone(),
        verify: Some(pb::VerifyOutcome {
            id: order.into(),
            state: state.into(),
            failure,
            cold_start: None,
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn connected_nodes_verify_a_version_by_their_reports() {
    let (harness, made) = with_version().await;
    let reason = "NO_NODE_CONNECTED";
    let refused = verify(&harness).await;
    let error = assert_refused(refused, Code::FailedPrecondition, reason);
    let details = tonic_types::StatusExt::get_details_precondition_failure(&error);
    assert_eq!(details.expect("details").violations[0].r#type, reason);

    let mut client = node(&harness, "n1").await;
    client.ack().await;
    let requested = requested(&harness).await;
    assert_eq!(requested.state(), State::Pending);
    assert_eq!(requested.nodes[0].node, "nodes/n1");
    let order = loop {
        client.change().await;
        client.ack().await;
        let versions = client.route("hello").expect("a route").versions;
        if let Some(order) = versions.first().and_then(|v| v.verify.clone()) {
            break order;
        }
    };
    assert_eq!(order.id, requested.id);

    let digest = format!("sha256:{}", "a".repeat(64));
    let mut reported = outcome(&made, &order.id, State::Verified);
    reported.image_digest = digest.clone();
    harness.ok(report("n1", vec![reported])).await;
    eventually("it is verified", || async {
        verification(&harness).await.state() == State::Verified
    })
    .await;
    eventually("the digest is known", || async {
        harness.get_version(VERSION).await.image_digest == digest
    })
    .await;
    eventually("the order leaves the feed", || async {
        harness.table().await.routes[0].versions.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_failed_verification_names_the_node_and_the_cause() {
    let (harness, made) = with_version().await;
    let _client = node(&harness, "n1").await;
    let requested = requested(&harness).await;
    let reported = outcome(&made, &requested.id, State::Failed);
    harness.ok(report("n1", vec![reported])).await;
    eventually("it has failed", || async {
        verification(&harness).await.state() == State::Failed
    })
    .await;
    let shown = harness.get_version(VERSION).await;
    let verification = shown.verification.expect("kept");
    assert!(
        verification.message.contains("n1") && verification.message.contains("code 7"),
        "{verification:?}"
    );
    let failure = verification.nodes[0].failure.as_ref();
    assert_eq!(failure.expect("kept").exit_code, Some(7));
    let status = shown.status.expect("a status");
    let failure = status.nodes[0].last_failure.as_ref();
    assert_eq!(failure.expect("shown").exit_code, Some(7));
}

#[tokio::test]
async fn a_pending_verification_survives_a_restart_and_a_disconnected_node_drops_out() {
    let (harness, made) = with_version().await;
    let _stays = node(&harness, "n1").await;
    let _goes = node(&harness, "n2").await;
    let requested = requested(&harness).await;
    assert_eq!(requested.nodes.len(), 2);

    let harness = harness.restart().await;
    let _stays = node(&harness, "n1").await;
    let goes = node(&harness, "n2").await;
    let reported = outcome(&made, &requested.id, State::Verified);
    harness.ok(report("n1", vec![reported])).await;
    eventually("one node has reported", || async {
        let verification = verification(&harness).await;
        verification.nodes[0].state() == State::Verified && verification.state() == State::Pending
    })
    .await;
    drop(goes);
    eventually("the other dropped out", || async {
        let verification = verification(&harness).await;
        verification.state() == State::Verified && verification.nodes.len() == 1
    })
    .await;
}

/// A report that tells of trouble of the node itself.
fn troubled(version: &pb::Version, order: &str) -> pb::VersionReport {
    let mut report = outcome(version, order, State::Unverified);
    report.verify.as_mut().expect("set").failure = Some(pb::StartFailure {
        reason: pb::start_failure::Reason::Engine.into(),
        message: "the engine does not respond".into(),
        ..Default::default()
    });
    report
}

async fn ended(harness: &Harness, state: State) -> pb::Verification {
    eventually("the run has ended", || async {
        verification(harness).await.state() != State::Pending
    })
    .await;
    let verification = verification(harness).await;
    assert_eq!(verification.state(), state, "{verification:?}");
    verification
}

#[tokio::test]
async fn trouble_of_a_node_leaves_a_version_unverified() {
    let (harness, made) = with_version().await;
    let (_one, _other) = (node(&harness, "n1").await, node(&harness, "n2").await);
    let run = requested(&harness).await;
    assert_eq!(run.require(), pb::verification::Require::All);
    harness
        .ok(report("n1", vec![troubled(&made, &run.id)]))
        .await;
    let run = ended(&harness, State::Unverified).await;
    assert!(run.message.starts_with("n1: the engine does not respond"));
    assert_eq!(run.nodes[0].state(), State::Unverified);
    assert!(run.nodes[0].failure.is_some());

    // The other node suffices, if the request says so.
    let available = pb::VerifyVersionRequest {
        name: VERSION.into(),
        require: pb::verification::Require::Available.into(),
        ..Default::default()
    };
    let run = harness.ok(available).await.verification.expect("a run");
    for (name, report_of) in [
        ("n1", troubled(&made, &run.id)),
        ("n2", outcome(&made, &run.id, State::Verified)),
    ] {
        harness.ok(report(name, vec![report_of])).await;
    }
    ended(&harness, State::Verified).await;
}

#[tokio::test]
async fn excluded_nodes_take_no_part_and_are_known() {
    let (harness, made) = with_version().await;
    let (_one, _other) = (node(&harness, "n1").await, node(&harness, "n2").await);
    let skip = |nodes: &[&str]| pb::VerifyVersionRequest {
        name: VERSION.into(),
        skip_nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        ..Default::default()
    };
    let unknown = harness.call(skip(&["nodes/n1", "nodes/n9"])).await;
    let unknown = assert_refused(unknown, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(crate::harness::fields(&unknown), ["skip_nodes[1]"]);
    let many = vec!["nodes/n1"; 101];
    let many = harness.call(skip(&many)).await;
    assert_refused(many, Code::InvalidArgument, "INVALID_FIELD");
    let all = harness.call(skip(&["nodes/n1", "nodes/n2"])).await;
    assert_refused(all, Code::FailedPrecondition, "NO_NODE_CONNECTED");

    let run = harness.ok(skip(&["nodes/n1"])).await.verification;
    let run = run.expect("a run");
    assert_eq!(run.skip_nodes, ["nodes/n1"]);
    assert_eq!(run.nodes.len(), 1);
    let verified = outcome(&made, &run.id, State::Verified);
    harness.ok(report("n2", vec![verified])).await;
    ended(&harness, State::Verified).await;
}

#[tokio::test]
async fn a_cancelled_verification_leaves_nothing_running() {
    let (harness, _made) = with_version().await;
    let mut client = node(&harness, "n1").await;
    client.ack().await;
    let run = requested(&harness).await;
    let cancel = |id: &str| pb::CancelVerificationRequest {
        name: VERSION.into(),
        verification_id: id.into(),
    };
    let other = harness.ok(cancel("another")).await;
    assert_eq!(other.verification.expect("kept").state(), State::Pending);
    let ended = harness.ok(cancel(&run.id)).await.verification;
    let ended = ended.expect("kept");
    assert_eq!(ended.state(), State::Unverified);
    assert!(ended.message.contains("cancelled"));
    assert_eq!(harness.ok(cancel("")).await.verification, Some(ended));
    client.reach(harness.head().await).await;
    assert!(client.route("hello").expect("a route").versions.is_empty());
    let missing = pb::CancelVerificationRequest {
        name: "services/hello/versions/9".into(),
        ..Default::default()
    };
    let missing = harness.call(missing).await;
    assert_eq!(missing.expect_err("missing").code(), Code::NotFound);
}

#[tokio::test]
async fn a_service_is_degraded_while_a_version_in_traffic_does_not_start() {
    use pb::service::State as Service;
    let (harness, made) = with_version().await;
    let shown = || async {
        let name = "services/hello".to_owned();
        let got = harness.ok(pb::GetServiceRequest { name }).await;
        let list = harness.ok(pb::ListServicesRequest::default()).await;
        assert_eq!(list.services[0], got);
        (got.state(), got.state_message)
    };
    assert_eq!(shown().await, (Service::NoTraffic, String::new()));
    harness.split("hello", &[(1, 100)]).await;
    let (state, message) = shown().await;
    assert_eq!(state, Service::Degraded);
    assert!(message.contains("no node is connected"), "{message}");
    let _client = node(&harness, "n1").await;
    harness.ok(report("n1", Vec::new())).await;
    assert_eq!(shown().await, (Service::Serving, String::new()));
    let mut failing = outcome(&made, "none", State::Failed);
    let service = harness.ok(pb::GetServiceRequest {
        name: "services/hello".into(),
    });
    failing.service_uid = service.await.uid;
    failing.failures = 3;
    harness.ok(report("n1", vec![failing])).await;
    let (state, message) = shown().await;
    assert_eq!(state, Service::Degraded);
    assert_eq!(
        message,
        "v1 on node n1: the container exited with code 7 (3 failed starts)"
    );
    let away = pb::ReportNodeStatusRequest {
        engine: String::new(),
        ..report("n1", Vec::new())
    };
    harness.ok(away).await;
    let (state, message) = shown().await;
    assert_eq!(state, Service::Degraded);
    assert!(message.contains("engine"), "{message}");
}
