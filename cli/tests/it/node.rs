//! `node`, and the messages of `--wait` about nodes.

use std::time::Duration;

use crate::fake_node::{FakeNode, FeedReply, StartOutcome};
use crate::plane::{Plane, assert_run, assert_session};

/// A service with two versions, all traffic on the first.
async fn hello(plane: &Plane, service: &str) {
    plane.ok(&format!("service create {service}")).await;
    for image in ["hello:1", "hello:2"] {
        let create = format!("version create {service} --image {image}");
        plane.ok(&create).await;
    }
    plane
        .ok(&format!("traffic set {service} v1=100 --force"))
        .await;
}

/// Runs `command` until its output contains `text`, and returns that output.
async fn run_until(plane: &Plane, command: &str, text: &str) -> String {
    for _ in 0..500 {
        let output = plane.run(command).await;
        if output.contains(text) {
            return output;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!(
        "{command} never prints {text}: {}",
        plane.run(command).await
    );
}

async fn connect(plane: &Plane, name: &str, reply: FeedReply) -> FakeNode {
    FakeNode::connect_with(&plane.url(), name, StartOutcome::Silent, reply).await
}

#[tokio::test]
async fn nodes_that_apply_quarantine_reject_and_disconnect() {
    let plane = Plane::start().await;
    hello(&plane, "hello").await;
    assert_session!(plane.url(), @r"
    $ cless node list
    ! no nodes
    ");
    let _good = connect(&plane, "good", FeedReply::Applied).await;
    let reason = "host `hello.localhost` is another route's";
    let _wary = connect(&plane, "wary", FeedReply::Quarantined(reason)).await;
    let _bad = connect(&plane, "bad", FeedReply::Rejected("an older revision")).await;
    let gone = connect(&plane, "gone", FeedReply::Applied).await;
    run_until(&plane, "node get gone", "(0 behind)").await;
    drop(gone);
    run_until(&plane, "node get wary", "Quarantined routes").await;
    run_until(&plane, "node get bad", "Rejected").await;
    run_until(&plane, "node get good", "(0 behind)").await;
    run_until(&plane, "node get gone", "STALE").await;
    assert_session!(plane.url(), @r#"
    $ cless node list
    NAME  STATE      LAG  INSTANCES  ENGINE    ISOLATION  NOTES            REPORTED
    bad   CONNECTED  4    0          fake 1.0  -          1: see node get  [AGE]
    gone  STALE      0    0          fake 1.0  -          offline for [AGE]  [AGE]
    good  CONNECTED  0    0          fake 1.0  -          -                [AGE]
    wary  CONNECTED  0    0          fake 1.0  -          1: see node get  [AGE]

    $ cless node get wary
    Name:       wary
    Id:         id-of-wary
    State:      CONNECTED
    Revision:   4 (0 behind)
    Instances:  0
    Sandboxes:  0
    Engine:     fake 1.0
    Isolation:  -
    Release:    0.0.0
    Connected:  [TIME]
    Reported:   [TIME]

    Quarantined routes (the last valid route is used):
      services/hello: host `hello.localhost` is another route's

    $ cless node get bad
    Name:       bad
    Id:         id-of-bad
    State:      CONNECTED
    Revision:   0 (4 behind)
    Instances:  0
    Sandboxes:  0
    Engine:     fake 1.0
    Isolation:  -
    Release:    0.0.0
    Connected:  [TIME]
    Reported:   [TIME]
    Rejected:   FailedPrecondition: an older revision

    $ cless node get gone
    Name:           gone
    Id:             id-of-gone
    State:          STALE
    Revision:       4 (0 behind)
    Instances:      0
    Sandboxes:      0
    Engine:         fake 1.0
    Isolation:      -
    Release:        0.0.0
    Connected:      [TIME]
    Offline since:  [TIME]
    Reported:       [TIME]

    $ cless node get bad -o json
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
      "runtime": "",
      "allowedCapabilities": [],
      "allowedEgress": [],
      "drained": false
    }
    "#);
}

#[tokio::test]
async fn wait_prints_the_number_of_nodes() {
    let plane = Plane::start().await;
    hello(&plane, "hello").await;
    assert_session!(plane.url(), @r"
    $ cless traffic set hello v2=100 --force --wait
    VERSION  TRAFFIC  TAG
    v2       100%     -
    ! hello: v1=100 -> v2=100
    ! no node is connected: nodes apply the change when they connect
    ");
    let _one = connect(&plane, "one", FeedReply::Applied).await;
    assert_session!(plane.url(), @r"
    $ cless rollback hello --wait
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ! hello: v2=100 -> v1=100
    ! applied on 1 node
    ");
    let _two = connect(&plane, "two", FeedReply::Quarantined("not now")).await;
    assert_session!(plane.url(), @r"
    $ cless traffic set hello v1=50 v2=50 --wait
    VERSION  TRAFFIC  TAG
    v1       50%      -
    v2       50%      -
    ! hello: v1=100 -> v1=50 v2=50
    ! applied on 2 nodes

    $ cless traffic set hello v1=100 --wait --dry-run
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ! hello: v1=50 v2=50 -> v1=100 (dry run: nothing was changed)
    ");
}

#[tokio::test]
async fn wait_names_the_nodes_that_reject() {
    let plane = Plane::start().await;
    hello(&plane, "hello").await;
    hello(&plane, "other").await;
    plane.ok("traffic set other v2=100 --force").await;
    let _good = connect(&plane, "good", FeedReply::Applied).await;
    let _bad = connect(&plane, "bad", FeedReply::Rejected("an older revision")).await;
    let (set, back) = tokio::join!(
        plane.run("traffic set hello v2=100 --force --wait"),
        plane.run("rollback other --wait"),
    );
    assert_run!(set, @r"
    exit: 8
    VERSION  TRAFFIC  TAG
    v2       100%     -
    ! hello: v1=100 -> v2=100
    ! error: the traffic of services/hello is set, but not yet applied on nodes/bad, which rejected it (FailedPrecondition: an older revision)
    ! hint: find the cause with `cless node get NODE`
    ");
    assert_run!(back, @r"
    exit: 8
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ! other: v2=100 -> v1=100
    ! error: the traffic of services/other is set, but not yet applied on nodes/bad, which rejected it (FailedPrecondition: an older revision)
    ! hint: find the cause with `cless node get NODE`
    ");
}

#[tokio::test]
async fn invalid_input_has_a_remedy() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless node get ghost
    exit: 5
    ! error: nodes/ghost does not exist
    ! hint: list nodes with `cless node list`

    $ cless node get UPPER
    exit: 2
    ! error: name: the node name `UPPER` holds 'U': use 1 to 63 characters of a-z, 0-9 and `-`, such as `hello` or `my-shop`

    $ cless node get
    exit: 2
    ! error: the following required arguments were not provided:
    !   <NODE>
    !
    ! Usage: cless node get [OPTIONS] <NODE>
    !
    ! For more information, try '--help'.

    $ cless instance list --node ghost
    exit: 5
    ! error: nodes/ghost does not exist
    ! hint: list nodes with `cless node list`

    $ cless rollback ghost --wait
    exit: 5
    ! error: services/ghost does not exist
    ! hint: list services with `cless service list`
    ");
}

/// The reason of a node that attacks the terminal and forges a line.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]8;;http://evil\u{7}link\u{9b}31m\u{202e}b\nerror: forged";

#[tokio::test]
async fn text_of_a_node_reaches_no_terminal_unescaped() {
    let plane = Plane::start().await;
    hello(&plane, "hello").await;
    let _bad = connect(&plane, "bad", FeedReply::Rejected(HOSTILE)).await;
    let page = run_until(&plane, "node get bad", "Rejected").await;
    let set = plane
        .run("traffic set hello v2=100 --force --wait --timeout 1s")
        .await;
    let mut texts = vec![page, set];
    for format in ["table", "json", "yaml", "name"] {
        texts.push(plane.run(&format!("node list -o {format}")).await);
        texts.push(plane.run(&format!("status -o {format}")).await);
    }
    for text in texts {
        let active = |c: char| cless_proto::text::is_active(c) && c != '\n';
        assert!(!text.contains(active), "{text:?}");
        let is_forged = |line: &str| line.trim_start().starts_with("error: forged");
        assert!(!text.lines().any(is_forged), "{text}");
    }
    let json = plane.ok("node get bad -o json").await;
    let node: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let reason = node["nackReason"].as_str().expect("a text");
    assert!(reason.ends_with(HOSTILE), "{reason:?}");
}

#[tokio::test]
async fn nodes_are_drained_and_removed_by_name() {
    let plane = Plane::start().await;
    let _one = connect(&plane, "one", FeedReply::Applied).await;
    assert_session!(plane.url(), @r"
    $ cless node drain ghost
    exit: 5
    ! error: nodes/ghost does not exist
    ! hint: list nodes with `cless node list`

    $ cless node drain one
    exit: 6
    ! error: nodes/one: it has no control stream to this control plane: it is not connected, connects right now, or is of an older release; try again, and see `cless node get one`

    $ cless node undrain UPPER
    exit: 2
    ! error: name: the node name `UPPER` holds 'U': use 1 to 63 characters of a-z, 0-9 and `-`, such as `hello` or `my-shop`

    $ cless node remove one
    exit: 2
    ! error: Remove nodes/one from the cluster and refuse its certificate? There is no terminal to confirm it
    ! hint: confirm with --yes

    $ cless node remove one --yes
    exit: 6
    ! error: nodes/one: this node has no certificate, so there is nothing to revoke: stop it, and it is forgotten 5 min later

    $ cless node remove ghost --yes
    exit: 5
    ! error: nodes/ghost does not exist
    ! hint: list nodes with `cless node list`

    $ cless node token create --name one
    exit: 6
    ! error: cluster: this control plane runs with --insecure, so nodes need no certificate: start the node without --join-token-file, with --control-plane http://… on the same machine
    ");
}
