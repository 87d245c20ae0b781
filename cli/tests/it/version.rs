//! `version` in every format.

use crate::plane::{Plane, assert_run};

#[tokio::test]
async fn a_version_from_create_to_delete() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_run!(plane.run("version list hello").await, @"");
    assert_run!(
        plane.run("version create hello --image hello:1 --port 8000 -e GREETING=hi --cpu 0.5 --memory 256Mi --health-path /up").await,
        @""
    );
    plane
        .ok("version create hello --image hello:2 --command python3 --arg -m --arg app")
        .await;
    assert_run!(plane.run("version list hello").await, @"");
    assert_run!(plane.run("version list hello -o name").await, @"");
    assert_run!(plane.run("version get hello").await, @"");
    assert_run!(plane.run("version get hello @prev -o json").await, @"");
    assert_run!(plane.run("version get hello v2 -o yaml").await, @"");
    assert_run!(plane.run("version delete hello v1 --yes").await, @"");
    plane.ok("traffic set hello v2=100").await;
    assert_run!(plane.run("version delete hello v2 --yes").await, @"");
}

#[tokio::test]
async fn a_proof_needs_a_node() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    plane.ok("version create hello --image hello:1").await;
    assert_run!(plane.run("version verify hello").await, @"");
}

#[tokio::test]
async fn bad_input_names_the_field_and_the_flag() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_run!(plane.run("version create hello --image UPPER!").await, @"");
    assert_run!(plane.run("version create hello --image hello:1 -e PORT=1 --memory 1Ki").await, @"");
    assert_run!(plane.run("version create hello --image hello:1 --health-status 204").await, @"");
}
