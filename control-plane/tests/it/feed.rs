//! The route feed on the wire: resume, deltas, refusals, ends.

use crate::harness::{Harness, SOON, eventually, refused};
use crate::proxy::Proxy;
use cless_proto::v1 as pb;
use pb::begin::Kind;
use pb::stream_routes_request::Message as Say;
use pb::stream_routes_response::Message as Heard;
use std::time::{Duration, Instant};
use tonic::Code;

/// A control plane that publishes one service, and a proxy that was sent it and has not answered.
async fn serving() -> (Harness, Proxy) {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.published().await;
    let mut proxy = Proxy::connect(&harness, "n1", None).await;
    proxy.change().await;
    (harness, proxy)
}

#[tokio::test]
async fn a_proxy_gets_a_snapshot_then_deltas_of_what_changed() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.service("other").await;
    harness.published().await;
    let mut proxy = Proxy::connect(&harness, "n1", None).await;
    let first = proxy.change().await;
    assert_eq!(
        (first.kind, first.from, first.upserts),
        (Kind::Snapshot, None, 2)
    );
    proxy.ack().await;

    harness.version("hello", "hello:1").await;
    let traffic = harness.split("hello", &[(1, 100)]).await;
    proxy.reach(traffic.feed_revision).await;
    let route = proxy.route("hello").expect("a route");
    assert_eq!(route.slots, vec![1; 100]);
    assert_eq!(route.hosts, ["hello.localhost"]);
    let spec = route.versions[0].spec.clone().expect("a spec");
    assert_eq!(
        (spec.image.as_str(), spec.cpu_millis, spec.port),
        ("hello:1", 1000, 0)
    );

    harness.delete("other").await;
    let gone = proxy.change().await;
    assert_eq!((gone.kind, gone.upserts, gone.removed), (Kind::Delta, 0, 1));
    assert_eq!(gone.to.revision, harness.head().await);
}

#[tokio::test]
async fn a_known_cursor_resumes_by_delta_also_after_a_restart() {
    let (harness, proxy) = serving().await;
    proxy.ack().await;
    harness.service("second").await;
    harness.published().await;

    let mut again = Proxy::connect(&harness, "n1", Some(&proxy)).await;
    let change = again.change().await;
    assert_eq!((change.kind, change.upserts), (Kind::Delta, 1));
    again.ack().await;

    harness.service("third").await;
    let harness = harness.restart().await;
    let mut later = Proxy::connect(&harness, "n1", Some(&again)).await;
    let change = later.change().await;
    assert_eq!(
        (change.kind, change.upserts, change.from),
        (Kind::Delta, 1, again.cursor)
    );
}

#[tokio::test]
async fn a_proxy_at_the_head_confirms_an_empty_delta() {
    let (harness, proxy) = serving().await;
    let mut again = Proxy::connect(&harness, "n1", Some(&proxy)).await;
    let change = again.change().await;
    assert_eq!((change.kind, change.chunks), (Kind::Delta, 0));
}

#[tokio::test]
async fn another_epoch_or_digest_gets_a_snapshot_and_a_future_revision_a_refusal() {
    let (harness, proxy) = serving().await;
    let known = proxy.cursor.clone().expect("a cursor");
    let epoch = pb::Cursor {
        epoch: "another".into(),
        ..known.clone()
    };
    let digest = pb::Cursor {
        digest: vec![7; 32].into(),
        ..known.clone()
    };
    for have in [epoch, digest] {
        let mut odd = Proxy::silent(&harness).await;
        odd.hello("n1", Some(have)).await;
        assert_eq!(odd.change().await.kind, Kind::Snapshot);
    }
    let ahead = pb::Cursor {
        revision: known.revision + 1,
        ..known
    };
    let mut odd = Proxy::silent(&harness).await;
    odd.hello("n1", Some(ahead)).await;
    refused(odd.heard().await, Code::Unavailable, "REPLICA_BEHIND");
}

#[tokio::test]
async fn nothing_is_sent_before_the_answer_and_then_all_at_once() {
    let harness = Harness::start().await;
    let mut proxy = Proxy::connect(&harness, "n1", None).await;
    proxy.change().await;
    for id in ["a", "b", "c"] {
        harness.service(id).await;
    }
    let early = tokio::time::timeout(Duration::from_millis(300), proxy.heard()).await;
    assert!(early.is_err(), "sent without an answer: {early:?}");
    proxy.ack().await;
    let head = harness.head().await;
    proxy.reach(head).await;
    assert_eq!(proxy.routes.len(), 3);
}

#[tokio::test]
async fn corruption_is_answered_by_a_snapshot_and_shown() {
    let (harness, mut proxy) = serving().await;
    proxy.nack(pb::nack::Kind::Corrupt, None).await;
    assert_eq!(proxy.change().await.kind, Kind::Snapshot);
    let request = pb::GetNodeRequest {
        name: "nodes/n1".into(),
    };
    let node = harness
        .nodes()
        .get_node(request.clone())
        .await
        .expect("a node")
        .into_inner();
    assert!(
        node.nack_reason.contains("on purpose"),
        "{}",
        node.nack_reason
    );
    proxy.ack().await;
    eventually("the refusal is forgotten", || async {
        let node = harness
            .nodes()
            .get_node(request.clone())
            .await
            .expect("a node");
        node.into_inner().nack_reason.is_empty()
    })
    .await;
}

#[tokio::test]
async fn after_a_rejection_nothing_comes_until_the_head_moves() {
    let (harness, mut proxy) = serving().await;
    proxy.ack().await;
    let serving = (proxy.routes.clone(), proxy.cursor.clone());
    harness.service("bad").await;
    proxy.change().await;
    // It keeps what it had.
    (proxy.routes, proxy.cursor) = serving;
    proxy
        .nack(pb::nack::Kind::Rejected, proxy.cursor.clone())
        .await;
    let early = tokio::time::timeout(Duration::from_millis(300), proxy.heard()).await;
    assert!(early.is_err(), "sent again: {early:?}");
    harness.service("good").await;
    let change = proxy.change().await;
    assert_eq!((change.kind, change.upserts), (Kind::Delta, 2));
}

#[tokio::test]
async fn a_large_table_comes_in_chunks() {
    let harness = Harness::start().await;
    let labels = std::collections::BTreeMap::from([("team".to_owned(), "x".repeat(60))]);
    let hosts = |n: usize| (0..40).map(move |h| format!("{}-{n}-{h}.example", "x".repeat(40)));
    for n in 0..60 {
        let service = pb::Service {
            hosts: hosts(n).collect(),
            labels: labels.clone(),
            ..Default::default()
        };
        let request = pb::CreateServiceRequest {
            service_id: format!("s{n}"),
            service: Some(service),
            ..Default::default()
        };
        harness
            .catalog()
            .create_service(request)
            .await
            .expect("created");
    }
    let head = harness.head().await;
    let mut proxy = Proxy::connect(&harness, "n1", None).await;
    let change = proxy.change().await;
    assert!(change.chunks > 1, "{change:?}");
    proxy.ack().await;
    proxy.reach(head).await;
    assert_eq!(proxy.routes.len(), 60);
}

#[tokio::test]
async fn a_stream_without_hello_is_ended() {
    let harness = Harness::start().await;
    let mut proxy = Proxy::silent(&harness).await;
    let begun = Instant::now();
    refused(proxy.heard().await, Code::DeadlineExceeded, "NO_HELLO");
    assert!(
        (4..8).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn words_out_of_order_end_the_stream() {
    let harness = Harness::start().await;
    let cursor = || pb::Cursor {
        epoch: "e".into(),
        revision: 1,
        digest: vec![0; 32].into(),
    };
    let ack = || {
        Say::Ack(pb::Ack {
            cursor: Some(cursor()),
            quarantined: Vec::new(),
        })
    };
    let mut early = Proxy::silent(&harness).await;
    early.say(ack()).await;
    refused(early.heard().await, Code::InvalidArgument, "INVALID_FIELD");
    let mut wrong = Proxy::connect(&harness, "n1", None).await;
    wrong.change().await;
    wrong.say(ack()).await;
    refused(wrong.heard().await, Code::InvalidArgument, "INVALID_FIELD");
}

#[tokio::test]
async fn watch_shows_the_table_then_changes_of_one_service() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.published().await;
    let watch = |service: &str| {
        let request = pb::WatchRoutesRequest {
            service: service.into(),
        };
        let mut feed = harness.feed();
        async move {
            feed.watch_routes(request)
                .await
                .expect("a stream")
                .into_inner()
        }
    };
    let (mut all, mut one) = (watch("").await, watch("services/hello").await);
    let head = harness.head().await;
    let first = |message: pb::WatchRoutesResponse| {
        assert!(message.snapshot && message.revision <= head);
        assert!(!message.epoch.is_empty() && !message.cluster.is_empty());
    };
    first(all.message().await.expect("no error").expect("no end"));
    first(one.message().await.expect("no error").expect("no end"));

    harness.service("other").await;
    harness.version("hello", "hello:1").await;
    let traffic = harness.split("hello", &[(1, 100)]).await;
    let changed = async {
        loop {
            let message = one.message().await.expect("no error").expect("no end");
            assert!(
                message.routes.iter().all(|route| route.service == "hello"),
                "{message:?}"
            );
            if message.revision >= traffic.feed_revision {
                return message;
            }
        }
    };
    let changed = tokio::time::timeout(SOON, changed).await.expect("in time");
    assert_eq!(changed.routes[0].slots.len(), 100);

    harness.delete("hello").await;
    let gone = tokio::time::timeout(SOON, one.message())
        .await
        .expect("in time");
    assert_eq!(gone.expect("no error").expect("no end").removed.len(), 1);
}

#[tokio::test]
async fn shutdown_tells_open_streams_and_is_quick() {
    let (mut harness, mut idle) = serving().await;
    idle.ack().await;
    let mut unanswered = Proxy::connect(&harness, "n2", None).await;
    unanswered.change().await;
    let request = pb::WatchRoutesRequest::default();
    let mut watch = harness
        .feed()
        .watch_routes(request)
        .await
        .expect("a stream")
        .into_inner();
    watch.message().await.expect("no error").expect("the table");

    let begun = Instant::now();
    harness.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    for proxy in [&mut idle, &mut unanswered] {
        assert!(matches!(proxy.heard().await, Ok(Some(Heard::GoAway(_)))));
        assert!(matches!(proxy.heard().await, Ok(None)));
    }
    refused(watch.message().await, Code::Unavailable, "SHUTTING_DOWN");
}
