//! `deploy`, with and without nodes.

use crate::node::{FakeNode, Verdict};
use crate::plane::{Plane, assert_run};

#[tokio::test]
async fn without_a_node_the_proof_is_skipped() {
    let plane = Plane::start().await;
    assert_run!(plane.run("deploy hello --image hello:1").await, @"");
    assert_run!(plane.run("deploy hello --image hello:2 --traffic 25 --reason try -o name").await, @"");
    assert_run!(plane.run("deploy hello --image hello:3 --traffic 10% --no-wait").await, @"");
    assert_run!(plane.run("deploy hello --image hello:4 --no-traffic --tag next").await, @"");
    assert_run!(plane.run("deploy hello --image hello:5 --no-traffic --quiet").await, @"");
    assert_run!(plane.run("traffic history hello").await, @"");
}

#[tokio::test]
async fn a_proved_version_gets_the_traffic() {
    let plane = Plane::start().await;
    let _node = FakeNode::connect(&plane.url(), "one", Verdict::Verified).await;
    assert_run!(plane.run("deploy hello --image hello:1 --max-instances 2").await, @"");
    assert_run!(plane.run("deploy hello --image hello:2 --max-instances 4 --traffic 50").await, @"");
    assert_run!(plane.run("version list hello").await, @"");
    assert_run!(plane.run("version verify hello v1 -o name").await, @"");
    assert_run!(plane.run("node list -o name").await, @"");
}

#[tokio::test]
async fn a_version_that_fails_leaves_traffic_unchanged() {
    let plane = Plane::start().await;
    plane.ok("deploy hello --image hello:1").await;
    let log = "starting\npanic: no GREETING";
    let _node = FakeNode::connect(&plane.url(), "one", Verdict::Exited(3, log)).await;
    assert_run!(plane.run("deploy hello --image hello:2").await, @"");
    assert_run!(plane.run("traffic get hello").await, @"");
    assert_run!(plane.run("version get hello v2").await, @"");
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_made() {
    let plane = Plane::start().await;
    assert_run!(plane.run("deploy hello --image hello:1 --traffic 10").await, @"");
    assert_run!(plane.run("deploy hello --image hello:1 --traffic 10 --no-traffic").await, @"");
    assert_run!(plane.run("deploy hello --image UPPER!").await, @"");
    assert_run!(plane.run("service list").await, @"");
}
