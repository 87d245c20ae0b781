//! Nodes that follow, lag, quarantine and reject; and reports, which neither cause a write nor wait
//! for one.

use crate::database;
use crate::feed_client::FeedClient;
use crate::harness::{Harness, eventually, report};
use cless_proto::v1 as pb;
use pb::stream_routes_request::Message as Request;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};
use std::time::{Duration, Instant};

async fn propagation(harness: &Harness, revision: i64) -> (u32, u32, Vec<String>) {
    let answer = harness.propagation(revision).await;
    assert_eq!(answer.revision, revision);
    (answer.nodes_applied, answer.nodes_total, answer.pending)
}

#[tokio::test]
async fn each_node_counts_for_the_revision_it_serves() {
    let harness = Harness::start().await;
    let first = harness.service("one").await.revision;
    let mut quick = FeedClient::connect(&harness, "quick", None).await;
    let mut slow = FeedClient::connect(&harness, "slow", None).await;
    let mut wary = FeedClient::connect(&harness, "wary", None).await;
    for client in [&mut quick, &mut slow, &mut wary] {
        client.reach(first).await;
    }
    eventually("all have the first", || async {
        propagation(&harness, first).await == (3, 3, Vec::new())
    })
    .await;

    let second = harness.service("two").await.revision;
    quick.reach(second).await;
    // `wary` applies the change and quarantines a route; `slow` does not answer yet.
    wary.change().await;
    let route = wary.route("two").expect("the new route");
    let ack = pb::Ack {
        cursor: wary.cursor.clone(),
        quarantined: vec![pb::QuarantinedRoute {
            service_uid: route.service_uid.clone(),
            service: "services/two".into(),
            reason: "host `two.localhost` is taken".into(),
        }],
    };
    wary.send(Request::Ack(ack)).await;
    eventually("two have the second", || async {
        propagation(&harness, second).await == (2, 3, vec!["nodes/slow".to_owned()])
    })
    .await;
    assert_eq!(propagation(&harness, first).await, (3, 3, Vec::new()));
    let shown = harness.node("wary").await;
    assert_eq!((shown.applied_revision, shown.lag), (second, 0));
    assert_eq!(shown.quarantined.len(), 1);
    assert_eq!(shown.quarantined[0].service, "services/two");
    assert_eq!(shown.quarantined[0].reason, "host `two.localhost` is taken");

    let serving = slow.cursor.clone();
    slow.change().await;
    slow.nack(pb::nack::Kind::Rejected, serving).await;
    eventually("the rejection is visible", || async {
        !harness.node("slow").await.nack_reason.is_empty()
    })
    .await;
    let shown = harness.node("slow").await;
    assert_eq!((shown.applied_revision, shown.lag), (first, second - first));
    assert!(shown.nack_reason.contains("on purpose"));
    assert_eq!(shown.state(), pb::node::State::Connected);
    assert_eq!(shown.disconnect_time, None);

    drop(slow);
    eventually("a stale node does not count", || async {
        propagation(&harness, second).await == (2, 2, Vec::new())
    })
    .await;
    let shown = harness.node("slow").await;
    assert_eq!(shown.state(), pb::node::State::Stale);
    assert!(shown.disconnect_time.is_some());
    assert_eq!((shown.applied_revision, shown.lag), (first, second - first));
}

#[tokio::test]
async fn a_table_of_another_epoch_does_not_count() {
    let harness = Harness::start().await;
    let made = harness.service("one").await.revision;
    harness.published().await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    let foreign = pb::Cursor {
        epoch: "another".into(),
        revision: made + 1000,
        digest: vec![7; 32].into(),
    };
    client.nack(pb::nack::Kind::Rejected, Some(foreign)).await;
    eventually("the rejection is visible", || async {
        !harness.node("n1").await.nack_reason.is_empty()
    })
    .await;
    let shown = harness.node("n1").await;
    assert_eq!((shown.applied_revision, shown.lag), (made + 1000, made));
    let pending = vec!["nodes/n1".to_owned()];
    assert_eq!(propagation(&harness, made).await, (0, 1, pending));
}

/// Blocks all other writers of the database until it is dropped or rolled back.
async fn locked(harness: &Harness) -> DatabaseConnection {
    let mut options = ConnectOptions::new(database::url_of(harness.folder()));
    options.max_connections(1);
    let database = Database::connect(options).await.expect("a connection");
    let lock = if database::on_postgres() {
        "BEGIN; SELECT revision FROM feed_state FOR UPDATE"
    } else {
        "BEGIN IMMEDIATE"
    };
    database.execute_unprepared(lock).await.expect("the lock");
    database
}

#[tokio::test]
async fn reports_are_accepted_while_the_database_is_locked() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let version = harness.version("hello", "registry.example/hello:1").await;
    let service = harness.split("hello", &[(1, 100)]).await;
    let head = service.feed_revision;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.reach(head).await;
    let lock = locked(&harness).await;
    // A reported image digest is written, and that write now waits.
    let service_uid = client.route("hello").expect("a route").service_uid;
    let resolved = pb::ReportNodeStatusRequest {
        versions: vec![pb::VersionReport {
            service_uid,
            number: 1,
            version_uid: version.uid.clone(),
            image_digest: format!("sha256:{}", "a".repeat(64)),
            last_cold_start: Some(pb::ColdStart::default()),
            ..Default::default()
        }],
        ..report("n1")
    };
    let started = Instant::now();
    for _ in 0..200 {
        harness.ok(resolved.clone()).await;
    }
    let took = started.elapsed();
    // A report that waited for the database would take 5 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Other nodes connect, follow and are listed.
    let mut other = FeedClient::connect(&harness, "n2", None).await;
    other.reach(head).await;
    eventually("both follow", || async {
        propagation(&harness, head).await == (2, 2, Vec::new())
    })
    .await;
    assert_eq!(harness.node("n1").await.engine, "Docker 20.10");
    assert_eq!(harness.head().await, head, "nothing was written");

    lock.execute_unprepared("ROLLBACK").await.expect("unlocked");
    client.reach(head + 1).await;
    let route = client.route("hello").expect("a route");
    assert!(
        route.versions[0].image_digest.ends_with("aaaa"),
        "{route:?}"
    );
    for _ in 0..200 {
        harness.ok(resolved.clone()).await;
    }
    harness.published().await;
    assert_eq!(harness.head().await, head + 1, "one write for all reports");
}
