//! `service` in every format.

use crate::plane::{Plane, assert_run};

#[tokio::test]
async fn a_service_from_create_to_delete() {
    let plane = Plane::start().await;
    assert_run!(plane.run("service list").await, @"");
    assert_run!(
        plane.run("service create hello --max-instances 3 --idle-timeout 30s --label team=web").await,
        @""
    );
    assert_run!(plane.run("service create hello").await, @"");
    plane
        .ok("service create world --host www.example.com")
        .await;
    assert_run!(plane.run("service list").await, @"");
    assert_run!(plane.run("service list --limit 1 -o name").await, @"");
    assert_run!(plane.run("service get hello -o json").await, @"");
    assert_run!(plane.run("service get world -o yaml").await, @"");
    assert_run!(plane.run("service delete hello --yes -o name").await, @"");
    assert_run!(plane.run("service list -o name").await, @"");
}

#[tokio::test]
async fn an_update_changes_only_what_is_named() {
    let plane = Plane::start().await;
    plane
        .ok("service create hello --concurrency 5 --pause-after 10s --label a=1")
        .await;
    assert_run!(
        plane.run("service update hello --max-instances 2 --pause-after off --add-host a.example --label b=2 --remove-label a").await,
        @""
    );
    assert_run!(plane.run("service update hello").await, @"");
    assert_run!(plane.run("service update hello --remove-host no.example").await, @"");
    assert_run!(plane.run("service update hello --concurrency 6 --etag stale").await, @"");
}

#[tokio::test]
async fn bad_input_names_the_field_and_the_flag() {
    let plane = Plane::start().await;
    assert_run!(plane.run("service create admin").await, @"");
    assert_run!(plane.run("service create hello --max-instances 0 --idle-timeout 1ms").await, @"");
    assert_run!(plane.run("service list -o name").await, @"");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let plane = Plane::start().await;
    assert_run!(plane.run("service create hello --dry-run -o name").await, @"");
    assert_run!(plane.run("service list").await, @"");
}
