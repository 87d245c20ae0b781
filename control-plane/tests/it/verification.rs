//! Verifications: requested of connected nodes, decided by their reports.

use crate::feed_client::FeedClient;
use crate::harness::{Harness, assert_refused, eventually};
use crate::nodes::report;
use cless_proto::v1 as pb;
use pb::verification::State;
use tonic::Code;

const VERSION: &str = "services/hello/versions/1";

async fn verify(harness: &Harness) -> Result<pb::Version, tonic::Status> {
    let request = pb::VerifyVersionRequest {
        name: VERSION.into(),
        ..Default::default()
    };
    harness
        .catalog()
        .verify_version(request)
        .await
        .map(tonic::Response::into_inner)
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
    let harness = Harness::start().await;
    harness.service("hello").await;
    let made = harness.version("hello", "hello:1").await;
    let error = assert_refused(
        verify(&harness).await,
        Code::FailedPrecondition,
        "NO_NODE_CONNECTED",
    );
    let details = tonic_types::StatusExt::get_details_precondition_failure(&error);
    assert_eq!(
        details.expect("details").violations[0].r#type,
        "NO_NODE_CONNECTED"
    );

    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    client.ack().await;
    let requested = verify(&harness)
        .await
        .expect("requested")
        .verification
        .expect("a verification");
    assert_eq!(requested.state(), State::Pending);
    assert_eq!(requested.nodes[0].node, "nodes/n1");
    let order = loop {
        client.change().await;
        client.ack().await;
        let route = client.route("hello").expect("a route");
        if let Some(order) = route
            .versions
            .first()
            .and_then(|version| version.verify.clone())
        {
            break order;
        }
    };
    assert_eq!(order.id, requested.id);

    let digest = format!("sha256:{}", "a".repeat(64));
    let mut reported = outcome(&made, &order.id, State::Verified);
    reported.image_digest = digest.clone();
    harness.report(report("n1", vec![reported])).await;
    eventually("it is verified", || async {
        harness
            .get_version(VERSION)
            .await
            .verification
            .expect("kept")
            .state()
            == State::Verified
    })
    .await;
    eventually("the digest is known", || async {
        harness.get_version(VERSION).await.image_digest == digest
    })
    .await;
    eventually("the order leaves the feed", || async {
        let mut watch = harness
            .feed()
            .watch_routes(pb::WatchRoutesRequest::default())
            .await;
        let watch = watch.as_mut().expect("a stream").get_mut();
        let table = watch
            .message()
            .await
            .expect("no error")
            .expect("an open stream");
        table.routes[0].versions.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_failed_verification_names_the_node_and_the_cause() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let made = harness.version("hello", "hello:1").await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    let requested = verify(&harness)
        .await
        .expect("requested")
        .verification
        .expect("a verification");
    let reported = outcome(&made, &requested.id, State::Failed);
    harness.report(report("n1", vec![reported])).await;
    eventually("it has failed", || async {
        harness
            .get_version(VERSION)
            .await
            .verification
            .expect("kept")
            .state()
            == State::Failed
    })
    .await;
    let shown = harness.get_version(VERSION).await;
    let verification = shown.verification.expect("kept");
    assert!(
        verification.message.contains("n1") && verification.message.contains("code 7"),
        "{verification:?}"
    );
    assert_eq!(
        verification.nodes[0]
            .failure
            .as_ref()
            .expect("kept")
            .exit_code,
        Some(7)
    );
    let status = shown.status.expect("a status");
    assert_eq!(
        status.nodes[0]
            .last_failure
            .as_ref()
            .expect("shown")
            .exit_code,
        Some(7)
    );
}

#[tokio::test]
async fn a_pending_verification_survives_a_restart_and_a_disconnected_node_drops_out() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let made = harness.version("hello", "hello:1").await;
    let mut stays = FeedClient::connect(&harness, "n1", None).await;
    stays.change().await;
    let mut goes = FeedClient::connect(&harness, "n2", None).await;
    goes.change().await;
    let requested = verify(&harness)
        .await
        .expect("requested")
        .verification
        .expect("a verification");
    assert_eq!(requested.nodes.len(), 2);

    let harness = harness.restart().await;
    let mut stays = FeedClient::connect(&harness, "n1", None).await;
    stays.change().await;
    let mut goes = FeedClient::connect(&harness, "n2", None).await;
    goes.change().await;
    let reported = outcome(&made, &requested.id, State::Verified);
    harness.report(report("n1", vec![reported])).await;
    eventually("one node has reported", || async {
        let verification = harness
            .get_version(VERSION)
            .await
            .verification
            .expect("kept");
        verification.nodes[0].state() == State::Verified && verification.state() == State::Pending
    })
    .await;
    drop(goes);
    eventually("the other dropped out", || async {
        let verification = harness
            .get_version(VERSION)
            .await
            .verification
            .expect("kept");
        verification.state() == State::Verified && verification.nodes.len() == 1
    })
    .await;
}
