//! What is shown of nodes that follow, lag, quarantine and refuse; and that their reports cost no write and wait for
//! none.

use crate::database;
use crate::harness::{Harness, eventually, identity};
use crate::proxy::Proxy;
use cless_proto::v1 as pb;
use pb::stream_routes_request::Message as Say;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};
use std::time::{Duration, Instant};

async fn node(harness: &Harness, name: &str) -> pb::Node {
    let name = format!("nodes/{name}");
    let request = pb::GetNodeRequest { name };
    let node = harness.nodes().get_node(request).await;
    node.expect("a node").into_inner()
}

async fn propagation(harness: &Harness, revision: i64) -> (u32, u32, Vec<String>) {
    let request = pb::CheckPropagationRequest { revision };
    let answer = harness.nodes().check_propagation(request).await;
    let answer = answer.expect("an answer").into_inner();
    assert_eq!(answer.revision, revision);
    (answer.nodes_applied, answer.nodes_total, answer.pending)
}

fn report(name: &str) -> pb::ReportNodeStatusRequest {
    pb::ReportNodeStatusRequest {
        node: Some(identity(name)),
        boot_id: "boot-1".into(),
        engine: "fake".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn each_node_is_counted_for_what_it_serves() {
    let harness = Harness::start().await;
    let first = harness.service("one").await.revision;
    let mut quick = Proxy::connect(&harness, "quick", None).await;
    let mut slow = Proxy::connect(&harness, "slow", None).await;
    let mut wary = Proxy::connect(&harness, "wary", None).await;
    for proxy in [&mut quick, &mut slow, &mut wary] {
        proxy.reach(first).await;
    }
    eventually("all have the first", || async {
        propagation(&harness, first).await == (3, 3, Vec::new())
    })
    .await;

    let second = harness.service("two").await.revision;
    quick.reach(second).await;
    // One takes the change and keeps a route of it back, one refuses it, one says nothing.
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
    wary.say(Say::Ack(ack)).await;
    eventually("two have the second", || async {
        propagation(&harness, second).await == (2, 3, vec!["nodes/slow".to_owned()])
    })
    .await;
    assert_eq!(propagation(&harness, first).await, (3, 3, Vec::new()));
    let shown = node(&harness, "wary").await;
    assert_eq!((shown.applied_revision, shown.lag), (second, 0));
    assert_eq!(shown.quarantined.len(), 1);
    assert_eq!(shown.quarantined[0].service, "services/two");
    assert_eq!(shown.quarantined[0].reason, "host `two.localhost` is taken");

    let serving = slow.cursor.clone();
    slow.change().await;
    slow.nack(pb::nack::Kind::Rejected, serving).await;
    eventually("the refusal is known", || async {
        !node(&harness, "slow").await.nack_reason.is_empty()
    })
    .await;
    let shown = node(&harness, "slow").await;
    assert_eq!((shown.applied_revision, shown.lag), (first, second - first));
    assert!(shown.nack_reason.contains("on purpose"));
    assert_eq!(shown.state(), pb::node::State::Connected);
    assert_eq!(shown.disconnect_time, None);

    drop(slow);
    eventually("nobody waits for one that is gone", || async {
        propagation(&harness, second).await == (2, 2, Vec::new())
    })
    .await;
    let shown = node(&harness, "slow").await;
    assert_eq!(shown.state(), pb::node::State::Stale);
    assert!(shown.disconnect_time.is_some());
    assert_eq!((shown.applied_revision, shown.lag), (first, second - first));
}

#[tokio::test]
async fn what_is_served_of_another_epoch_does_not_count() {
    let harness = Harness::start().await;
    let made = harness.service("one").await.revision;
    harness.published().await;
    let mut proxy = Proxy::connect(&harness, "n1", None).await;
    proxy.change().await;
    let foreign = pb::Cursor {
        epoch: "another".into(),
        revision: made + 1000,
        digest: vec![7; 32].into(),
    };
    proxy.nack(pb::nack::Kind::Rejected, Some(foreign)).await;
    eventually("the refusal is known", || async {
        !node(&harness, "n1").await.nack_reason.is_empty()
    })
    .await;
    let shown = node(&harness, "n1").await;
    assert_eq!((shown.applied_revision, shown.lag), (made + 1000, made));
    let pending = vec!["nodes/n1".to_owned()];
    assert_eq!(propagation(&harness, made).await, (0, 1, pending));
}

/// Keeps every other writer of the database out until it is dropped or rolled back.
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
async fn reports_are_taken_in_while_nothing_can_be_written() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let version = harness.version("hello", "registry.example/hello:1").await;
    let service = harness.split("hello", &[(1, 100)]).await;
    let head = service.feed_revision;
    let mut proxy = Proxy::connect(&harness, "n1", None).await;
    proxy.reach(head).await;
    let lock = locked(&harness).await;
    // The digest of an image is written when a node reports it: that write now waits.
    let service_uid = proxy.route("hello").expect("a route").service_uid;
    let resolved = pb::ReportNodeStatusRequest {
        versions: vec![pb::VersionReport {
            service_uid,
            number: 1,
            version_uid: version.uid.clone(),
            image_digest: format!("sha256:{}", "a".repeat(64)),
            ..Default::default()
        }],
        ..report("n1")
    };
    let begun = Instant::now();
    let mut feed = harness.feed();
    for _ in 0..200 {
        feed.report_node_status(resolved.clone())
            .await
            .expect("taken in");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    // And others join, follow and are shown.
    let mut other = Proxy::connect(&harness, "n2", None).await;
    other.reach(head).await;
    eventually("both are known to follow", || async {
        propagation(&harness, head).await == (2, 2, Vec::new())
    })
    .await;
    assert_eq!(node(&harness, "n1").await.engine, "fake");
    assert_eq!(harness.head().await, head, "nothing was written");

    lock.execute_unprepared("ROLLBACK").await.expect("unlocked");
    proxy.reach(head + 1).await;
    let route = proxy.route("hello").expect("a route");
    assert!(
        route.versions[0].image_digest.ends_with("aaaa"),
        "{route:?}"
    );
    for _ in 0..200 {
        feed.report_node_status(resolved.clone())
            .await
            .expect("taken in");
    }
    harness.published().await;
    assert_eq!(harness.head().await, head + 1, "one write for all reports");
}
