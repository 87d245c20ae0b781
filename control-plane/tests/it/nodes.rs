//! Data planes that connect, report and disconnect.

use crate::feed_client::{FeedClient, hello};
use crate::harness::{self, Harness, assert_refused, eventually, identity};
use cless_proto::v1 as pb;
use pb::stream_routes_request::Message;
use tonic::Code;

pub(crate) fn report(node: &str, versions: Vec<pb::VersionReport>) -> pb::ReportNodeStatusRequest {
    pb::ReportNodeStatusRequest {
        warnings: vec!["low on disk".into()],
        instances: vec![pb::Instance {
            name: format!("nodes/{node}/instances/i1"),
            service: "services/hello".into(),
            version: 1,
            state: pb::instance::State::Ready.into(),
            in_flight: 3,
            container: "0123456789ab".into(),
            ..Default::default()
        }],
        versions,
        runtime: "runc".into(),
        isolation: Some(pb::Isolation {
            state: pb::isolation::State::Partial.into(),
            reason: "no ip6tables".into(),
        }),
        ..harness::report(node)
    }
}

#[tokio::test]
async fn a_node_is_listed_from_connect_to_disconnect() {
    let harness = Harness::start().await;
    let made = harness.service("hello").await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    let pending = harness.propagation(0).await;
    assert_eq!((pending.nodes_total, pending.nodes_applied), (1, 0));
    assert_eq!(pending.pending, ["nodes/n1"]);
    client.ack().await;
    client.reach(made.revision).await;
    eventually("the node applied it", || async {
        harness.propagation(made.revision).await.nodes_applied == 1
    })
    .await;
    let shown = harness.node("n1").await;
    assert_eq!((shown.state(), shown.lag), (pb::node::State::Connected, 0));
    assert!(shown.connect_time.is_some() && shown.report_time.is_none());

    harness.ok(report("n1", Vec::new())).await;
    let shown = harness.node("n1").await;
    assert_eq!(
        (shown.engine.as_str(), shown.instances),
        ("Docker 20.10", 1)
    );
    assert_eq!(shown.runtime, "runc");
    assert_eq!(shown.warnings, ["low on disk"]);
    assert_eq!(shown.isolation, report("n1", Vec::new()).isolation);
    for parent in ["nodes/n1", "nodes/-"] {
        let request = pb::ListInstancesRequest {
            parent: parent.into(),
            ..Default::default()
        };
        let list = harness.ok(request).await;
        assert_eq!(list.instances.len(), 1);
        assert_eq!(list.instances[0].name, "nodes/n1/instances/i1");
        assert_eq!(list.instances[0].in_flight, 3);
    }
    let other = pb::ListInstancesRequest {
        parent: "nodes/-".into(),
        service: "services/other".into(),
        ..Default::default()
    };
    assert!(harness.ok(other).await.instances.is_empty());

    drop(client);
    eventually("the node is stale", || async {
        harness.node("n1").await.state() == pb::node::State::Stale
    })
    .await;
    assert_eq!(harness.propagation(0).await.nodes_total, 0);
}

#[tokio::test]
async fn nodes_are_listed_in_pages() {
    let harness = Harness::start().await;
    let mut clients = Vec::new();
    for name in ["c", "a", "b"] {
        let mut client = FeedClient::connect(&harness, name, None).await;
        client.change().await;
        clients.push(client);
        harness.ok(report(name, Vec::new())).await;
    }
    let first = pb::ListNodesRequest {
        page_size: 2,
        ..Default::default()
    };
    let first = harness.ok(first).await;
    let names = |nodes: &[pb::Node]| nodes.iter().map(|n| n.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&first.nodes), ["nodes/a", "nodes/b"]);
    let rest = pb::ListNodesRequest {
        page_size: 2,
        page_token: first.next_page_token,
        ..Default::default()
    };
    let rest = harness.ok(rest).await;
    assert_eq!(names(&rest.nodes), ["nodes/c"]);
    assert!(rest.next_page_token.is_empty());
    let request = pb::ListInstancesRequest {
        parent: "nodes/-".into(),
        page_size: 2,
        ..Default::default()
    };
    let page = harness.ok(request.clone()).await;
    assert_eq!(page.instances.len(), 2);
    let request = pb::ListInstancesRequest {
        page_token: page.next_page_token,
        ..request
    };
    assert_eq!(harness.ok(request).await.instances.len(), 1);
}

#[tokio::test]
async fn a_connected_nodes_name_is_taken_and_its_new_stream_replaces_the_old() {
    let harness = Harness::start().await;
    let mut first = FeedClient::connect(&harness, "n1", None).await;
    first.change().await;
    let mut rival = FeedClient::open(&harness).await;
    let node = Some(pb::NodeIdentity {
        id: "another".into(),
        ..identity("n1")
    });
    let mut hello = hello("n1", None);
    hello.node.clone_from(&node);
    rival.send(Message::Hello(hello)).await;
    let taken = rival.receive().await;
    assert_refused(taken, Code::AlreadyExists, "NODE_NAME_TAKEN");
    let stolen = pb::ReportNodeStatusRequest {
        node,
        ..report("n1", Vec::new())
    };
    let stolen = harness.call(stolen).await;
    assert_refused(stolen, Code::FailedPrecondition, "NODE_NOT_CONNECTED");

    let mut second = FeedClient::connect(&harness, "n1", None).await;
    second.change().await;
    assert_refused(first.receive().await, Code::Aborted, "STREAM_REPLACED");
    assert_eq!(harness.propagation(0).await.nodes_total, 1);
}

#[tokio::test]
async fn a_report_counts_only_from_the_holder_of_the_stream() {
    let harness = Harness::start().await;
    let refused = async |report: pb::ReportNodeStatusRequest| {
        let answer = harness.call(report).await;
        assert_refused(answer, Code::FailedPrecondition, "NODE_NOT_CONNECTED");
    };
    refused(report("n1", Vec::new())).await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    harness.ok(report("n1", Vec::new())).await;
    let mut other_boot = report("n1", Vec::new());
    other_boot.boot_id = "boot-2".into();
    refused(other_boot).await;
    let mut other_id = report("n1", Vec::new());
    other_id.node.as_mut().expect("given").id = "another".into();
    refused(other_id).await;
    // An instance of another node, and one that is told twice.
    let mut foreign = report("n1", Vec::new());
    foreign.instances[0].name = "nodes/n2/instances/i1".into();
    let status = harness.call(foreign).await.expect_err("not its own");
    assert_eq!(harness::fields(&status), ["instances[0].name"]);
    let mut twice = report("n1", Vec::new());
    twice.instances.push(twice.instances[0].clone());
    let status = harness.call(twice).await.expect_err("twice");
    assert_eq!(harness::fields(&status), ["instances[1].name"]);

    drop(client);
    eventually("it is disconnected", || async {
        harness.node("n1").await.state() == pb::node::State::Stale
    })
    .await;
    refused(report("n1", Vec::new())).await;
}

/// A database restored without a new epoch: nodes are ahead of it, and everyone is told.
#[tokio::test]
async fn a_node_ahead_of_a_restored_database_is_told_everywhere() {
    if crate::database::on_postgres() {
        return;
    }
    let mut harness = Harness::start().await;
    harness.service("old").await;
    harness.stop().await;
    let file = harness.folder().join("cless.db");
    let kept = std::fs::read(&file).expect("stopped, so it is complete");
    let mut harness = harness.restart().await;
    let made = harness.service("lost").await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.reach(made.revision).await;
    harness.stop().await;
    std::fs::write(harness.folder().join("cless.db"), kept).expect("restored");
    let harness = harness.restart().await;

    let mut ahead = FeedClient::connect(&harness, "n1", Some(&client)).await;
    let status = assert_refused(
        ahead.receive().await,
        Code::FailedPrecondition,
        "RESTORED_WITHOUT_NEW_EPOCH",
    );
    let remedy = "cless-control-plane new-epoch";
    assert!(status.message().contains(remedy), "{status:?}");
    let shown = harness.node("n1").await;
    assert!(shown.warnings[0].contains(remedy), "{shown:?}");
    let waited = harness.propagation(0).await;
    assert_eq!((waited.nodes_total, waited.nodes_applied), (1, 0));
    assert!(waited.warnings[0].contains(remedy), "{waited:?}");
}
