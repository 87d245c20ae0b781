//! Long exchanges: streams end at the request timeout, tunnels do not, and both are drained in
//! order.

use std::time::{Duration, Instant};

use cless_proto::v1::Route;
use http::HeaderValue;
use http_body_util::BodyExt as _;

use super::http2::{client, data, echo, request};
use super::{Stage, get};
use crate::feed::plane::within;

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const SWITCH: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// Sets a request timeout of one second.
fn brief(route: &mut Route) {
    if let Some(settings) = &mut route.settings {
        settings.request_timeout = Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        });
    }
}

#[tokio::test]
async fn events_end_incomplete_at_the_request_timeout() {
    let mut stage = Stage::with(brief, |_| ()).await;
    let (mut client, mut instance, _) = stage.asked(get("/events", "")).await;
    instance.send(EVENTS).await;
    instance.send("9\r\ndata: 1\n\n\r\n").await;
    client.until("data: 1").await;
    let rest = client.rest().await;
    assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    // The instance is notified by the end of its connection.
    assert_eq!(instance.rest().await, "");
    stage.stop().await;
}

#[tokio::test]
async fn a_grpc_stream_is_reset_at_the_request_timeout() {
    let mut stage = Stage::with(brief, |_| ()).await;
    let _seen = echo(&mut stage);
    let mut client = client(&stage).await;
    let (feed, mut call) = request("/pkg.Service/Bidi");
    let kind = HeaderValue::from_static("application/grpc");
    call.headers_mut().insert("content-type", kind);
    let response = within("a response", client.send_request(call)).await;
    let mut body = response.expect("it is answered").into_body();
    feed.send(data("one")).await.expect("it is taken");
    let first = within("a frame", body.frame()).await.expect("more");
    assert_eq!(first.expect("whole").into_data().expect("data"), "one");
    let last = within("the end", body.frame()).await.expect("no clean end");
    assert!(last.is_err(), "{last:?}");
    stage.stop().await;
}

#[tokio::test]
async fn a_tunnel_outlasts_the_request_timeout() {
    let mut stage = Stage::with(brief, |_| ()).await;
    let (mut client, mut instance, _) = stage.asked(get("/", SWITCH)).await;
    instance.send(SWITCHED).await;
    client.head().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.send("ping").await;
    instance.until("ping").await;
    instance.send("pong").await;
    client.until("pong").await;
    drop((client, instance));
    stage.stop().await;
}

#[tokio::test]
async fn streams_and_tunnels_complete_on_a_stopping_node() {
    let mut stage = Stage::choosing(|options| options.drain_timeout = 30).await;
    let (mut events, mut source, _) = stage.asked(get("/events", "")).await;
    source.send(EVENTS).await;
    events.head().await;
    let (mut tunnel, mut far, _) = stage.asked(get("/", SWITCH)).await;
    far.send(SWITCHED).await;
    tunnel.head().await;
    let Stage { node, address, .. } = stage;
    let began = Instant::now();
    let stopped = tokio::spawn(async move { node.shutdown().await });
    within("the listener closes", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Both directions still work.
    source.send("9\r\ndata: 1\n\n\r\n").await;
    events.until("data: 1").await;
    tunnel.send("ping").await;
    far.until("ping").await;
    source.send("0\r\n\r\n").await;
    events.until("0\r\n\r\n").await;
    assert!(!stopped.is_finished(), "a tunnel is open");
    far.send("bye").await;
    drop(far);
    assert_eq!(tunnel.rest().await, "bye");
    // Each direction ends separately: a client may still send to an instance that has finished.
    drop(tunnel);
    within("the node stops", stopped).await.expect("no panic");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "the node did not wait for the tunnel"
    );
}

#[tokio::test]
async fn unfinished_exchanges_are_cancelled_at_the_drain_timeout() {
    let mut stage = Stage::choosing(|options| options.drain_timeout = 1).await;
    let (mut events, mut source, _) = stage.asked(get("/events", "")).await;
    source.send(EVENTS).await;
    events.head().await;
    let (mut tunnel, mut far, _) = stage.asked(get("/", SWITCH)).await;
    far.send(SWITCHED).await;
    tunnel.head().await;
    let began = Instant::now();
    within("the node stops", stage.node.shutdown()).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "it did not wait");
    let rest = events.rest().await;
    assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    assert_eq!(tunnel.rest().await, "");
}

#[tokio::test]
async fn a_stopping_node_does_not_wait_for_silent_connections() {
    let stage = Stage::choosing(|options| options.drain_timeout = 30).await;
    let mut mute = stage.client("").await;
    let mut slow = stage.client("GET / HT").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let stopped = tokio::spawn(async move { stage.node.shutdown().await });
    assert_eq!(mute.rest().await, "");
    assert!(began.elapsed() < Duration::from_secs(3), "it waited");
    // A started request may be completed.
    assert!(!stopped.is_finished(), "a request is under way");
    slow.send("TP/1.1\r\nHost: unknown.localhost\r\n\r\n").await;
    slow.answered(404).await;
    within("the node stops", stopped).await.expect("no panic");
    assert!(began.elapsed() < Duration::from_secs(6), "it waited");
}
