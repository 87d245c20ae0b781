//! Connections to instances: kept, given up, and never left to hold an app.

use std::time::{Duration, Instant};

use super::{OK, Stage, Wire, get};
use crate::feed::plane::within;

/// Requests at once, fewer than an instance takes.
const BURST: usize = 64;

/// RFC 9110 section 9.2.2: what may have been acted on is not sent again unasked.
#[tokio::test]
async fn a_request_is_sent_again_only_if_no_byte_of_it_was() {
    let mut stage = Stage::start().await;
    let mut client = stage.client(get("/1", "")).await;
    let (mut instance, _) = stage.instance().await;
    instance.send(OK).await;
    client.until("ok").await;
    // Closed while it was idle: the next request goes out on another.
    drop(instance);
    client.send(get("/2", "")).await;
    let (mut instance, head) = stage.instance().await;
    assert!(head.starts_with("get /2 "), "{head}");
    instance.send(OK).await;
    client.until("ok").await;
    // Closed once it had read: what the instance did with it nobody knows.
    client.send(get("/3", "")).await;
    assert!(instance.head().await.starts_with("get /3 "));
    drop(instance);
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 502"), "{head}");
    assert!(stage.visitors.try_recv().is_err(), "it was sent twice");
    stage.stop().await;
}

/// Serves one connection at a time, each until it closes, as a single-threaded app does.
async fn one_at_a_time(mut visitors: tokio::sync::mpsc::UnboundedReceiver<tokio::net::TcpStream>) {
    while let Some(stream) = visitors.recv().await {
        let mut wire = Wire::of(stream);
        while wire.maybe_until("\r\n\r\n").await.is_some() {
            wire.send(OK).await;
        }
    }
}

#[tokio::test]
async fn an_app_with_one_thread_is_not_left_waiting_on_an_idle_connection() {
    // By the setting, and without it.
    for concurrency in [1, 80] {
        let shape = move |route: &mut cless_proto::v1::Route| {
            if let Some(settings) = &mut route.settings {
                settings.concurrency = Some(concurrency);
                settings.max_instances = Some(1);
            }
        };
        let mut stage = Stage::with(shape, |options| options.proxy.workers = 2).await;
        let (_, none) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(one_at_a_time(std::mem::replace(&mut stage.visitors, none)));
        // Neighbours are served by different threads: each would keep a connection of its own.
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(stage.client("").await);
        }
        let began = Instant::now();
        for _ in 0..3 {
            for client in &mut clients {
                client.send(get("/", "")).await;
                client.until("ok").await;
            }
        }
        // Six changes of thread: an idle connection left open would cost over a second each.
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(4),
            "{took:?} with concurrency {concurrency}"
        );
        stage.stop().await;
    }
}

#[tokio::test]
async fn a_burst_does_not_wait_for_a_slow_app() {
    let mut stage = Stage::start().await;
    let mut clients = Vec::new();
    for _ in 0..BURST {
        clients.push(stage.client(get("/", "")).await);
    }
    let began = Instant::now();
    let mut held = Vec::new();
    for _ in 0..BURST {
        held.push(stage.instance().await);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop(held);
    stage.stop().await;
}

#[tokio::test]
async fn requests_in_progress_end_before_the_node_does() {
    let mut stage = Stage::start().await;
    let mut client = stage.client(get("/", "")).await;
    let mut idle = stage.client("").await;
    let (mut instance, _) = stage.instance().await;
    let Stage { node, address, .. } = stage;
    let stopped = tokio::spawn(async move { node.shutdown().await });
    // No new connection, and one without a request ends.
    within("the listener closes", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    instance.send(OK).await;
    let answer = client.until("ok").await.to_ascii_lowercase();
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(client.rest().await, "");
    drop(idle.rest().await);
    within("the node stops", stopped).await.expect("no panic");
}
