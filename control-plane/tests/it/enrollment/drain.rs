//! Draining over control streams.

use crate::harness::{assert_refused, report};
use crate::secure::{Node, SecurePlane, identity};
use cless_proto::v1 as pb;
use tonic::{Code, Status};

fn name() -> String {
    "nodes/n1".into()
}

async fn drain(plane: &SecurePlane) -> Result<pb::Node, Status> {
    let request = pb::DrainNodeRequest { name: name() };
    let drained = plane.admin().await.drain_node(request).await?;
    Ok(drained.into_inner())
}

async fn undrain(plane: &SecurePlane) -> Result<pb::Node, Status> {
    let request = pb::UndrainNodeRequest { name: name() };
    let drained = plane.admin().await.undrain_node(request).await?;
    Ok(drained.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_once_it_has_stored_that() {
    let plane = SecurePlane::start().await;
    let missing = drain(&plane).await;
    assert_eq!(missing.expect_err("no node").code(), Code::NotFound);
    let node = plane.join("n1").await;
    let mut streams = Node::connect(&plane, &node, "n1").await;
    streams.report(report("n1")).await.expect("a report");
    let refused = drain(&plane).await;
    assert_refused(refused, Code::FailedPrecondition, "NODE_NOT_CONNECTED");

    let channel = plane.channel(Some(&node)).await;
    let mut control = Node::control(channel, identity("n1")).await;
    let own = format!("https://{}", plane.running.addr());
    assert_eq!(control.planes().await, [own]);
    let (failed, ordered) = tokio::join!(drain(&plane), control.answer_drain("disk full"));
    let failed = assert_refused(failed, Code::FailedPrecondition, "NODE_NOT_STORED");
    assert!(
        ordered && failed.message().contains("disk full"),
        "{failed}"
    );
    let (drained, ordered) = tokio::join!(drain(&plane), control.answer_drain(""));
    assert!(ordered && drained.expect("drained").drained);
    // Known before the next report, and kept by it.
    let get = pb::GetNodeRequest { name: name() };
    let mut admin = plane.admin().await;
    let shown = admin.get_node(get.clone()).await.expect("a node");
    assert!(shown.into_inner().drained);
    let drained = pb::ReportNodeStatusRequest {
        drained: true,
        ..report("n1")
    };
    streams.report(drained).await.expect("a report");
    assert!(
        admin
            .get_node(get)
            .await
            .expect("a node")
            .into_inner()
            .drained
    );
    let (back, ordered) = tokio::join!(undrain(&plane), control.answer_drain(""));
    assert!(!ordered && !back.expect("in service").drained);
}
