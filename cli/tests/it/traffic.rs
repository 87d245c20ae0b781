//! `traffic` and `rollback` in every format.

use crate::plane::{Plane, assert_run};

/// A service with three versions and no traffic.
async fn hello() -> Plane {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    for image in ["hello:1", "hello:2", "hello:3"] {
        plane
            .ok(&format!("version create hello --image {image}"))
            .await;
    }
    plane
}

#[tokio::test]
async fn a_split_from_set_to_rollback() {
    let plane = hello().await;
    assert_run!(plane.run("traffic get hello").await, @"");
    assert_run!(plane.run("traffic set hello v1=100 --reason start").await, @"");
    assert_run!(plane.run("traffic set hello @latest=10:canary @prev=30 v1 --wait").await, @"");
    assert_run!(plane.run("traffic get hello -o json").await, @"");
    assert_run!(plane.run("traffic get hello -o yaml").await, @"");
    assert_run!(plane.run("traffic get hello -o name").await, @"");
    assert_run!(plane.run("traffic history hello").await, @"");
    assert_run!(plane.run("rollback hello --reason slow").await, @"");
    assert_run!(plane.run("rollback hello --to 2 -o name").await, @"");
    assert_run!(plane.run("traffic history hello").await, @"");
    assert_run!(plane.run("traffic history hello -o json --limit 1").await, @"");
}

#[tokio::test]
async fn tags_stay_unless_named() {
    let plane = hello().await;
    plane
        .ok("traffic set hello v1=100:stable --tag canary=v3")
        .await;
    assert_run!(plane.run("traffic set hello v2=100").await, @"");
    assert_run!(plane.run("traffic set hello --tag canary=v2 --untag stable").await, @"");
    assert_run!(plane.run("traffic set hello --untag stable").await, @"");
    assert_run!(plane.run("traffic set hello --clear --dry-run").await, @"");
    assert_run!(plane.run("traffic set hello --clear").await, @"");
}

#[tokio::test]
async fn bad_splits_say_what_to_do() {
    let plane = hello().await;
    assert_run!(plane.run("traffic set hello").await, @"");
    assert_run!(plane.run("traffic set hello v1=90").await, @"");
    assert_run!(plane.run("traffic set hello v1=60 v2=60").await, @"");
    assert_run!(plane.run("traffic set hello v1 v2").await, @"");
    assert_run!(plane.run("traffic set hello v1=100:Bad--Tag").await, @"");
    assert_run!(plane.run("traffic set hello v9=100").await, @"");
    assert_run!(plane.run("traffic set hello v1=100 --etag stale").await, @"");
    assert_run!(plane.run("rollback hello").await, @"");
    plane.ok("traffic set hello v1=100").await;
    assert_run!(plane.run("rollback hello --to 7").await, @"");
    assert_run!(plane.run("rollback hello --to 0").await, @"");
}
