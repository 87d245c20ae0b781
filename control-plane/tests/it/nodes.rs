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
    for name in ["c", "a", "b"] {
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
    assert_refused(stolen, Code::AlreadyExists, "NODE_NAME_TAKEN");

    let mut second = FeedClient::connect(&harness, "n1", None).await;
    second.change().await;
    assert_refused(first.receive().await, Code::Aborted, "STREAM_REPLACED");
    assert_eq!(harness.propagation(0).await.nodes_total, 1);
}
