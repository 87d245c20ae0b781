//! `node` and what `--wait` says of nodes.

use std::time::Duration;

use crate::node::{Answer, FakeNode, Verdict};
use crate::plane::{Plane, assert_run};

/// A service with two versions, all traffic on the first.
async fn hello(plane: &Plane, service: &str) {
    plane.ok(&format!("service create {service}")).await;
    for image in ["hello:1", "hello:2"] {
        let create = format!("version create {service} --image {image}");
        plane.ok(&create).await;
    }
    plane.ok(&format!("traffic set {service} v1=100")).await;
}

/// Runs `command` until its output holds `what`; that run.
async fn once(plane: &Plane, command: &str, what: &str) -> String {
    for _ in 0..500 {
        let said = plane.run(command).await;
        if said.contains(what) {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{command} never says {what}: {}", plane.run(command).await);
}

async fn connect(plane: &Plane, name: &str, answer: Answer) -> FakeNode {
    FakeNode::answering(&plane.url(), name, Verdict::Silent, answer).await
}

#[tokio::test]
async fn nodes_that_follow_keep_back_refuse_and_go() {
    let plane = Plane::start().await;
    hello(&plane, "hello").await;
    assert_run!(plane.run("node list").await, @r"
    exit: 0
    ----- stderr -----
    no nodes
    ");
    let _good = connect(&plane, "good", Answer::Applied).await;
    let reason = "host `hello.localhost` is another route's";
    let _wary = connect(&plane, "wary", Answer::Quarantined(reason)).await;
    let _bad = connect(&plane, "bad", Answer::Refused("an older revision")).await;
    let gone = connect(&plane, "gone", Answer::Applied).await;
    once(&plane, "node get gone", "(0 behind)").await;
    drop(gone);
    once(&plane, "node get wary", "kept at their last good value").await;
    once(&plane, "node get bad", "Refused").await;
    once(&plane, "node get good", "(0 behind)").await;
    once(&plane, "node get gone", "STALE").await;
    assert_run!(plane.run("node list").await, @r"
    exit: 0
    ----- stdout -----
    NAME  STATE      REVISION  LAG  INSTANCES  ENGINE    ISOLATION  NOTES            REPORTED
    bad   CONNECTED  0         4    0          fake 1.0  -          1: see node get  [AGE]
    gone  STALE      4         0    0          fake 1.0  -          gone for [AGE]  [AGE]
    good  CONNECTED  4         0    0          fake 1.0  -          -                [AGE]
    wary  CONNECTED  4         0    0          fake 1.0  -          1: see node get  [AGE]
    ");
    assert_run!(plane.run("node get wary").await, @r"
    exit: 0
    ----- stdout -----
    Name:       wary
    Id:         id-of-wary
    State:      CONNECTED
    Revision:   4 (0 behind)
    Instances:  0
    Sandboxes:  0
    Engine:     fake 1.0
    Isolation:  -
    Program:    0.0.0
    Connected:  [TIME]
    Reported:   [TIME]

    Routes kept at their last good value:
      services/hello: host `hello.localhost` is another route's
    ");
    assert_run!(plane.run("node get bad").await, @r"
    exit: 0
    ----- stdout -----
    Name:       bad
    Id:         id-of-bad
    State:      CONNECTED
    Revision:   0 (4 behind)
    Instances:  0
    Sandboxes:  0
    Engine:     fake 1.0
    Isolation:  -
    Program:    0.0.0
    Connected:  [TIME]
    Reported:   [TIME]
    Refused:    FailedPrecondition: an older revision
    ");
    assert_run!(plane.run("node get gone").await, @r"
    exit: 0
    ----- stdout -----
    Name:        gone
    Id:          id-of-gone
    State:       STALE
    Revision:    4 (0 behind)
    Instances:   0
    Sandboxes:   0
    Engine:      fake 1.0
    Isolation:   -
    Program:     0.0.0
    Connected:   [TIME]
    Gone since:  [TIME]
    Reported:    [TIME]
    ");
    assert_run!(plane.run("node get bad -o json").await, @r#"
    exit: 0
    ----- stdout -----
    {
      "name": "nodes/bad",
      "id": "[ID]",
      "state": "STATE_CONNECTED",
      "appliedRevision": "0",
      "lag": "4",
      "quarantined": [],
      "nackReason": "FailedPrecondition: an older revision",
      "connectTime": "[TIME]",
      "reportTime": "[TIME]",
      "version": "0.0.0",
      "engine": "fake 1.0",
      "warnings": [],
      "instances": 0,
      "sandboxes": 0,
      "runtime": ""
    }
    "#);
}

#[tokio::test]
async fn waiting_says_how_many_nodes_have_it() {
    let plane = Plane::start().await;
    hello(&plane, "hello").await;
    assert_run!(plane.run("traffic set hello v2=100 --wait").await, @r"
    exit: 0
    ----- stdout -----
    VERSION  TRAFFIC  TAG
    v2       100%     -
    ----- stderr -----
    hello: v1=100 -> v2=100
    no node is connected: each takes it when it connects
    ");
    let _one = connect(&plane, "one", Answer::Applied).await;
    assert_run!(plane.run("rollback hello --wait").await, @r"
    exit: 0
    ----- stdout -----
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ----- stderr -----
    hello: v2=100 -> v1=100
    in force on 1 node
    ");
    let _two = connect(&plane, "two", Answer::Quarantined("not now")).await;
    assert_run!(plane.run("traffic set hello v1=50 v2=50 --wait").await, @r"
    exit: 0
    ----- stdout -----
    VERSION  TRAFFIC  TAG
    v1       50%      -
    v2       50%      -
    ----- stderr -----
    hello: v1=100 -> v1=50 v2=50
    in force on 2 nodes
    ");
    assert_run!(plane.run("traffic set hello v1=100 --wait --dry-run").await, @r"
    exit: 0
    ----- stdout -----
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ----- stderr -----
    hello: v1=50 v2=50 -> v1=100 (nothing was changed)
    ");
}

#[tokio::test]
async fn waiting_names_the_nodes_that_refuse() {
    let plane = Plane::start().await;
    hello(&plane, "hello").await;
    hello(&plane, "other").await;
    plane.ok("traffic set other v2=100").await;
    let _good = connect(&plane, "good", Answer::Applied).await;
    let _bad = connect(&plane, "bad", Answer::Refused("an older revision")).await;
    let (set, back) = tokio::join!(
        plane.run("traffic set hello v2=100 --wait"),
        plane.run("rollback other --wait"),
    );
    assert_run!(set, @r"
    exit: 8
    ----- stdout -----
    VERSION  TRAFFIC  TAG
    v2       100%     -
    ----- stderr -----
    hello: v1=100 -> v2=100
    error: the traffic of services/hello is set, but not yet in force on nodes/bad, which refuses it (FailedPrecondition: an older revision)
    hint: see what holds them up with `cless node get NODE`
    ");
    assert_run!(back, @r"
    exit: 8
    ----- stdout -----
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ----- stderr -----
    other: v2=100 -> v1=100
    error: the traffic of services/other is set, but not yet in force on nodes/bad, which refuses it (FailedPrecondition: an older revision)
    hint: see what holds them up with `cless node get NODE`
    ");
}

#[tokio::test]
async fn bad_input_says_what_to_do() {
    let plane = Plane::start().await;
    assert_run!(plane.run("node get ghost").await, @r"
    exit: 5
    ----- stderr -----
    error: nodes/ghost does not exist
    hint: see what there is with `cless node list`
    ");
    assert_run!(plane.run("node get UPPER").await, @r"
    exit: 2
    ----- stderr -----
    error: name: the node name `UPPER` holds 'U': use 1 to 63 characters of a-z, 0-9 and `-`, such as `hello` or `my-shop`
    ");
    assert_run!(plane.run("node get").await, @r"
    exit: 2
    ----- stderr -----
    error: the following required arguments were not provided:
      <NODE>

    Usage: cless node get --server <URL> --actor <NAME> <NODE>

    For more information, try '--help'.
    ");
    assert_run!(plane.run("instance list --node ghost").await, @r"
    exit: 5
    ----- stderr -----
    error: nodes/ghost does not exist
    hint: see what there is with `cless node list`
    ");
    assert_run!(plane.run("rollback ghost --wait").await, @r"
    exit: 5
    ----- stderr -----
    error: services/ghost does not exist
    hint: see what there is with `cless service list`
    ");
}
