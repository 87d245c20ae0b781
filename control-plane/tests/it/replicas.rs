//! Several control planes on one PostgreSQL database; skipped on SQLite.

use crate::database;
use crate::feed_client::{FeedClient, hello};
use crate::harness::{Harness, eventually, next, options, report};
use cless_control_plane::Options;
use cless_proto::v1 as pb;
use pb::stream_routes_request::Message as Request;
use pb::stream_routes_response::Message as Response;
use pb::verification::State;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Code;

/// Options of a replica on the database of a folder.
fn replica_options(folder: &Path) -> Options {
    Options {
        database_url: database::postgres(folder),
        ..options(folder)
    }
}

async fn two_replicas() -> [Harness; 2] {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = replica_options(folder.path());
    // Concurrently: one of them creates the schema.
    let other = tempfile::tempdir().expect("a folder");
    let (one, two) = tokio::join!(
        Box::pin(Harness::with(flags.clone(), folder)),
        Box::pin(Harness::with(flags, other))
    );
    [one, two]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_started_together_agree_on_the_first_state() {
    if !database::on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let options = replica_options(folder.path());
    let starts = (0..8).map(|_| {
        let own = tempfile::tempdir().expect("a folder");
        tokio::spawn(Harness::with(options.clone(), own))
    });
    let mut epochs = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        let replica = start.await.expect("the replica starts");
        let mut watch = replica.ok(pb::WatchRoutesRequest::default()).await;
        epochs.push(next(&mut watch).await.epoch);
    }
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
}

async fn nodes(harness: &Harness) -> Vec<pb::Node> {
    harness.ok(pb::ListNodesRequest::default()).await.nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_one_replica_reaches_the_feed_of_the_other_at_once() {
    if !database::on_postgres() {
        return;
    }
    let [one, two] = two_replicas().await;
    let mut watch = two.ok(pb::WatchRoutesRequest::default()).await;
    let first = next(&mut watch).await;
    // Notifications may start just after the first write, which polling finds.
    one.service("s0").await;
    let mut seen = next(&mut watch).await;
    assert!(seen.revision > first.revision && seen.epoch == first.epoch);
    let mut times = Vec::new();
    for n in 1..=7 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let made = one.service(&format!("s{n}")).await;
        let started = Instant::now();
        while seen.revision < made.revision {
            seen = next(&mut watch).await;
        }
        times.push(started.elapsed());
    }
    times.sort();
    // By polling alone the median would be half a second.
    assert!(times[3] < Duration::from_millis(450), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_knows_the_nodes_of_all() {
    if !database::on_postgres() {
        return;
    }
    let [one, two] = two_replicas().await;
    let made = one.service("hello").await;
    let mut here = FeedClient::connect(&one, "here", None).await;
    here.reach(made.revision).await;
    let mut there = FeedClient::connect(&two, "there", None).await;
    there.reach(made.revision).await;
    let status = pb::ReportNodeStatusRequest {
        instances: vec![pb::Instance {
            name: "nodes/there/instances/i1".into(),
            service: "services/hello".into(),
            version: 1,
            ..Default::default()
        }],
        ..report("there")
    };
    two.ok(status).await;
    for harness in [&one, &two] {
        eventually("both nodes are known", || async {
            let nodes = nodes(harness).await;
            let both = nodes.iter().map(|node| &*node.name);
            let connected = pb::node::State::Connected;
            both.eq(["nodes/here", "nodes/there"])
                && nodes.iter().all(|node| node.state() == connected)
                && nodes[1].engine == "Docker 20.10"
        })
        .await;
        eventually("both have the head", || async {
            let answer = harness.propagation(0).await;
            (answer.nodes_total, answer.nodes_applied) == (2, 2)
        })
        .await;
        let all = pb::ListInstancesRequest {
            parent: "nodes/-".into(),
            ..Default::default()
        };
        assert_eq!(harness.ok(all).await.instances.len(), 1);
    }
    // A name is unique among the nodes of all replicas.
    let mut rival = FeedClient::open(&one).await;
    let mut hello = hello("there", None);
    hello.node.as_mut().expect("set").id = "another-id".into();
    rival.send(Request::Hello(hello)).await;
    let refused = rival.receive().await.expect_err("the name is taken");
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    // A disconnected node is stale on both.
    drop(there);
    for harness in [&one, &two] {
        eventually("the node is stale", || async {
            nodes(harness).await[1].state() == pb::node::State::Stale
        })
        .await;
        assert_eq!(harness.propagation(0).await.nodes_total, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_covers_the_nodes_of_both_replicas() {
    if !database::on_postgres() {
        return;
    }
    let [one, two] = two_replicas().await;
    let service = one.service("hello").await;
    one.version("hello", "hello:1").await;
    let mut there = FeedClient::connect(&two, "there", None).await;
    there.change().await;
    there.ack().await;
    eventually("the node is known", || async {
        nodes(&one).await.len() == 1
    })
    .await;
    let asked = one
        .ok(pb::VerifyVersionRequest {
            name: "services/hello/versions/1".into(),
            ..Default::default()
        })
        .await;
    let order = asked.verification.expect("a verification");
    let status = pb::ReportNodeStatusRequest {
        versions: vec![pb::VersionReport {
            service_uid: service.uid.clone(),
            version_uid: asked.uid.clone(),
            number: 1,
            verify: Some(pb::VerifyOutcome {
                id: order.id.clone(),
                state: State::Verified.into(),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..report("there")
    };
    two.ok(status).await;
    eventually("the version is verified", || async {
        let version = one.get_version("services/hello/versions/1").await;
        version.verification.expect("a verification").state() == State::Verified
    })
    .await;
}

/// A node ahead of a replica is rejected, never sent an older table.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_moves_between_replicas_never_goes_back() {
    if !database::on_postgres() {
        return;
    }
    let [one, two] = two_replicas().await;
    let mut client = FeedClient::connect(&one, "n", None).await;
    client.change().await;
    client.ack().await;
    for n in 0..20 {
        let from = if n % 2 == 0 { &two } else { &one };
        let to = if n % 2 == 0 { &one } else { &two };
        let made = from.service(&format!("s{n}")).await;
        client.reach(made.revision).await;
        // Without a pause, so that the other replica is likely behind.
        loop {
            let mut moved = FeedClient::connect(to, "n", Some(&client)).await;
            match moved.receive().await {
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                // A delta from its cursor, possibly empty.
                Ok(Some(Response::Begin(begin))) => {
                    assert_eq!(begin.from, client.cursor);
                    while !matches!(moved.receive().await, Ok(Some(Response::Commit(_)))) {}
                    moved.cursor = begin.to;
                    let at = moved.cursor.as_ref().expect("a cursor").revision;
                    assert!(at >= made.revision, "back to {at}");
                    moved.ack().await;
                    client = moved;
                    break;
                }
                Ok(other) => panic!("neither rejected nor resumed: {other:?}"),
            }
        }
    }
}
