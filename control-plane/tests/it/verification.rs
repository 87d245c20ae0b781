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
