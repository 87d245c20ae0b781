//! The route feed on the wire: resume, deltas, rejections, ends.

use crate::feed_client::FeedClient;
use crate::harness::{Harness, SOON, assert_refused, eventually, new_service, next};
use cless_proto::v1 as pb;
use pb::begin::Kind;
use pb::stream_routes_response::Message as Response;
use std::time::{Duration, Instant};
use tonic::Code;

/// A control plane that publishes one service, and a client that has received it and not answered.
async fn serving() -> (Harness, FeedClient) {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.published().await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    (harness, client)
}

#[tokio::test]
async fn a_node_gets_a_snapshot_then_deltas() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.service("other").await;
    harness.published().await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    let first = client.change().await;
    assert_eq!(
        (first.kind, first.from, first.upserts),
        (Kind::Snapshot, None, 2)
    );
    client.ack().await;

    harness.version("hello", "hello:1").await;
    let traffic = harness.split("hello", &[(1, 100)]).await;
    client.reach(traffic.feed_revision).await;
    let route = client.route("hello").expect("a route");
    assert_eq!(route.slots, vec![1; 100]);
    assert_eq!(route.hosts, ["hello.localhost"]);
    let spec = route.versions[0].spec.clone().expect("a spec");
    assert_eq!(
        (spec.image.as_str(), spec.cpu_millis, spec.port),
        ("hello:1", 1000, 0)
    );

    harness.delete("other").await;
    let gone = client.change().await;
    assert_eq!((gone.kind, gone.upserts, gone.removed), (Kind::Delta, 0, 1));
    assert_eq!(gone.to.revision, harness.head().await);
}

#[tokio::test]
async fn a_known_cursor_resumes_by_delta_also_after_a_restart() {
    let (harness, client) = serving().await;
    client.ack().await;
    harness.service("second").await;
    harness.published().await;

    let mut again = FeedClient::connect(&harness, "n1", Some(&client)).await;
    let change = again.change().await;
    assert_eq!((change.kind, change.upserts), (Kind::Delta, 1));
    again.ack().await;

    harness.service("third").await;
    let harness = harness.restart().await;
    let mut later = FeedClient::connect(&harness, "n1", Some(&again)).await;
    let change = later.change().await;
    assert_eq!(
        (change.kind, change.upserts, change.from),
        (Kind::Delta, 1, again.cursor)
    );
}

#[tokio::test]
async fn a_node_at_the_head_gets_an_empty_delta() {
    let (harness, client) = serving().await;
    let mut again = FeedClient::connect(&harness, "n1", Some(&client)).await;
    let change = again.change().await;
    assert_eq!((change.kind, change.chunks), (Kind::Delta, 0));
}

#[tokio::test]
async fn another_epoch_or_digest_gets_a_snapshot_and_a_future_revision_an_error() {
    let (harness, client) = serving().await;
    let known = client.cursor.clone().expect("a cursor");
    let epoch = pb::Cursor {
        epoch: "another".into(),
        ..known.clone()
    };
    let digest = pb::Cursor {
        digest: vec![7; 32].into(),
        ..known.clone()
    };
    for have in [epoch, digest] {
        let mut odd = FeedClient::open(&harness).await;
        odd.hello("n1", Some(have)).await;
        assert_eq!(odd.change().await.kind, Kind::Snapshot);
    }
    let ahead = pb::Cursor {
        revision: known.revision + 1,
        ..known
    };
    let mut odd = FeedClient::open(&harness).await;
    odd.hello("n1", Some(ahead)).await;
    // Another replica can have written it; without one, the database was restored.
    let (code, reason) = if crate::database::on_postgres() {
        (Code::Unavailable, "REPLICA_BEHIND")
    } else {
        (Code::FailedPrecondition, "RESTORED_WITHOUT_NEW_EPOCH")
    };
    assert_refused(odd.receive().await, code, reason);
}

#[tokio::test]
async fn changes_wait_for_the_ack_and_are_then_sent_as_one() {
    let harness = Harness::start().await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    for id in ["a", "b", "c"] {
        harness.service(id).await;
    }
    let early = tokio::time::timeout(Duration::from_millis(300), client.receive()).await;
    assert!(early.is_err(), "sent before the ack: {early:?}");
    client.ack().await;
    let head = harness.head().await;
    client.reach(head).await;
    assert_eq!(client.routes.len(), 3);
}

#[tokio::test]
async fn a_corrupt_change_is_reported_and_resent_as_a_snapshot() {
    let (harness, mut client) = serving().await;
    client.nack(pb::nack::Kind::Corrupt, None).await;
    assert_eq!(client.change().await.kind, Kind::Snapshot);
    let node = harness.node("n1").await;
    assert!(
        node.nack_reason.contains("on purpose"),
        "{}",
        node.nack_reason
    );
    client.ack().await;
    eventually("the rejection is cleared", || async {
        harness.node("n1").await.nack_reason.is_empty()
    })
    .await;
}

#[tokio::test]
async fn after_a_rejection_nothing_is_sent_until_the_head_moves() {
    let (harness, mut client) = serving().await;
    client.ack().await;
    let serving = (client.routes.clone(), client.cursor.clone());
    harness.service("bad").await;
    client.change().await;
    // The node keeps its table.
    (client.routes, client.cursor) = serving;
    client
        .nack(pb::nack::Kind::Rejected, client.cursor.clone())
        .await;
    let early = tokio::time::timeout(Duration::from_millis(300), client.receive()).await;
    assert!(early.is_err(), "sent again: {early:?}");
    harness.service("good").await;
    let change = client.change().await;
    assert_eq!((change.kind, change.upserts), (Kind::Delta, 2));
}

#[tokio::test]
async fn a_large_table_is_sent_in_chunks() {
    let harness = Harness::start().await;
    let labels = std::collections::BTreeMap::from([("team".to_owned(), "x".repeat(60))]);
    let hosts = |n: usize| (0..40).map(move |h| format!("{}-{n}-{h}.example", "x".repeat(40)));
    for n in 0..60 {
        let service = pb::Service {
            hosts: hosts(n).collect(),
            labels: labels.clone(),
            ..Default::default()
        };
        harness.ok(new_service(&format!("s{n}"), service)).await;
    }
    let head = harness.head().await;
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    let change = client.change().await;
    assert!(change.chunks > 1, "{change:?}");
    client.ack().await;
    client.reach(head).await;
    assert_eq!(client.routes.len(), 60);
}

#[tokio::test]
async fn a_stream_without_hello_times_out() {
    let harness = Harness::start().await;
    let mut client = FeedClient::open(&harness).await;
    let started = Instant::now();
    assert_refused(client.receive().await, Code::DeadlineExceeded, "NO_HELLO");
    assert!(
        (4..8).contains(&started.elapsed().as_secs()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn messages_out_of_order_end_the_stream() {
    let harness = Harness::start().await;
    let early = FeedClient::open(&harness).await;
    let mut wrong = FeedClient::connect(&harness, "n1", None).await;
    wrong.change().await;
    for mut client in [early, wrong] {
        client.cursor = Some(pb::Cursor {
            epoch: "e".into(),
            revision: 1,
            digest: vec![0; 32].into(),
        });
        client.ack().await;
        let answer = client.receive().await;
        assert_refused(answer, Code::InvalidArgument, "INVALID_FIELD");
    }
}

#[tokio::test]
async fn watch_sends_the_table_then_the_changes_of_one_service() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.published().await;
    let watch = |service: &str| {
        let service = service.into();
        harness.ok(pb::WatchRoutesRequest { service })
    };
    let (mut all, mut one) = (watch("").await, watch("services/hello").await);
    let head = harness.head().await;
    for watch in [&mut all, &mut one] {
        let message = next(watch).await;
        assert!(message.snapshot && message.revision <= head);
        assert!(!message.epoch.is_empty() && !message.cluster.is_empty());
    }

    harness.service("other").await;
    harness.version("hello", "hello:1").await;
    let traffic = harness.split("hello", &[(1, 100)]).await;
    let changed = async {
        loop {
            let message = next(&mut one).await;
            let mut routes = message.routes.iter();
            assert!(routes.all(|r| r.service == "hello"), "{message:?}");
            if message.revision >= traffic.feed_revision {
                return message;
            }
        }
    };
    let changed = tokio::time::timeout(SOON, changed).await.expect("in time");
    assert_eq!(changed.routes[0].slots.len(), 100);

    harness.delete("hello").await;
    let gone = tokio::time::timeout(SOON, next(&mut one)).await;
    assert_eq!(gone.expect("in time").removed.len(), 1);
}

#[tokio::test]
async fn shutdown_ends_open_streams_and_is_quick() {
    let (mut harness, mut idle) = serving().await;
    idle.ack().await;
    let mut unanswered = FeedClient::connect(&harness, "n2", None).await;
    unanswered.change().await;
    let request = pb::WatchRoutesRequest::default();
    let mut watch = harness.ok(request).await;
    next(&mut watch).await;

    let started = Instant::now();
    harness.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    for client in [&mut idle, &mut unanswered] {
        assert!(matches!(
            client.receive().await,
            Ok(Some(Response::GoAway(_)))
        ));
        assert!(matches!(client.receive().await, Ok(None)));
    }
    assert_refused(watch.message().await, Code::Unavailable, "SHUTTING_DOWN");
}
