//! Two control planes on PostgreSQL; skipped on SQLite, where a second one is refused.

use crate::database;
use crate::harness::{SOON, assert_refused, eventually, report};
use crate::secure::{Control, Identity, Node, SecurePlane, identity, secure};
use cless_control_plane::start;
use cless_proto::v1 as pb;
use std::time::{Duration, Instant};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_learn_all_planes_and_each_plane_drains_and_removes_them() {
    if !database::on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // The planes share the master key, and so the folder of the state files.
    let options = secure(folder.path());
    let one = SecurePlane::with(options.clone(), folder).await;
    let other = tempfile::tempdir().expect("a folder");
    let two = SecurePlane::with(options, other).await;

    let node = one.join("n1").await;
    let mut streams = Node::connect(&one, &node, "n1").await;
    streams.report(report("n1")).await.expect("a report");
    let mut all = [&one, &two].map(|plane| format!("https://{}", plane.running.addr()));
    all.sort();
    eventually("both addresses are told", || async {
        let mut control = Node::control(one.channel(Some(&node)).await, identity("n1")).await;
        control.planes().await == all
    })
    .await;
    // The node is known on the other plane within about a second.
    let mut second = second_stream(&two, &node).await;
    let request = pb::DrainNodeRequest {
        name: "nodes/n1".into(),
    };
    let mut admin = two.admin().await;
    let (drained, ordered) = tokio::join!(admin.drain_node(request), second.answer_drain(""));
    assert!(ordered && drained.expect("drained").into_inner().drained);

    let began = Instant::now();
    let remove = pb::RemoveNodeRequest {
        name: "nodes/n1".into(),
        validate_only: false,
    };
    admin.remove_node(remove).await.expect("removed");
    let end: Result<(), _> = Err(streams.end().await);
    assert_refused(end, Code::Unauthenticated, "CREDENTIAL_ENDED");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );

    let stopped = format!("https://{}", two.running.addr());
    two.running.shutdown().await;
    let node = one.join("n2").await;
    Box::pin(eventually("the address is gone", || async {
        let _streams = Node::connect(&one, &node, "n2").await;
        let mut control = Node::control(one.channel(Some(&node)).await, identity("n2")).await;
        !control.planes().await.contains(&stopped)
    }))
    .await;
}

/// The control stream to a plane that is not the one of the route stream.
async fn second_stream(plane: &SecurePlane, node: &Identity) -> Control {
    let deadline = Instant::now() + SOON;
    loop {
        let channel = plane.channel(Some(node)).await;
        let mut control = Node::control(channel, identity("n1")).await;
        if let Ok(Some(_)) = control.message().await {
            return control;
        }
        assert!(Instant::now() < deadline, "the node stays unknown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_plane_on_a_file_is_refused() {
    if database::on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let options = secure(folder.path());
    let first = start(options.clone()).await.expect("it starts");
    let error = start(options.clone()).await.err().expect("a second one");
    assert!(error.to_string().contains("PostgreSQL"), "{error}");
    first.shutdown().await;
    let next = start(options).await.expect("the first has stopped");
    next.shutdown().await;
}
