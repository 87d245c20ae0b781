//! Long exchanges: silent streams end at the request timeout and all at the total timeout, tunnels
//! at neither, and both are drained in order.

use std::time::{Duration, Instant};

use cless_proto::v1::Route;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http2::{client, data, echo, request};
use super::tls::{certify, shake, with_folder};
use super::{HOST, OK, Stage, Wire, get};
use crate::feed::plane::within;

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const SWITCH: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// Sets a request timeout of one second.
pub(super) fn brief(route: &mut Route) {
    if let Some(settings) = &mut route.settings {
        settings.request_timeout = Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        });
    }
}

/// Sets a total timeout of two seconds.
fn bounded(route: &mut Route) {
    if let Some(settings) = &mut route.settings {
        settings.total_timeout = Some(prost_types::Duration {
            seconds: 2,
            nanos: 0,
        });
    }
}

/// The pause between two events, below the timeouts.
const PAUSE: Duration = Duration::from_millis(600);

/// Sends an event after each pause until the connection is cut, or `count` of them.
async fn speak(instance: &mut Wire, count: usize) {
    instance.send(EVENTS).await;
    for _ in 0..count {
        tokio::time::sleep(PAUSE).await;
        let sent = instance.stream.write_all(b"9\r\ndata: x\n\n\r\n").await;
        if sent.is_err() {
            return;
        }
    }
}

/// Asks for events and reads to the end; returns their number. The end must not look complete.
async fn events_over_http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> usize {
    let request = get("/events", "");
    stream.write_all(request.as_bytes()).await.expect("taken");
    let mut read = Vec::new();
    // A TLS connection that is cut has no end.
    let _ = within("the end", stream.read_to_end(&mut read)).await;
    let text = String::from_utf8_lossy(&read);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    text.matches("data: x").count()
}

async fn events_over_http2<S>(scheme: &str, stream: S) -> usize
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = h2::client::handshake(stream).await;
    let (mut client, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::get(format!("{scheme}://{HOST}/events"));
    let sent = client.send_request(request.body(()).expect("a request"), true);
    let response = within("a response", sent.expect("taken").0).await;
    let mut body = response.expect("a response").into_body();
    let mut read = 0;
    loop {
        match within("the end", body.data()).await {
            Some(Ok(data)) => {
                let text = String::from_utf8_lossy(&data).into_owned();
                read += text.matches("data: x").count();
                let _ = body.flow_control().release_capacity(data.len());
            }
            Some(Err(error)) => {
                assert!(error.is_reset(), "{error}");
                return read;
            }
            None => panic!("a clean end"),
        }
    }
}

/// Each way of a client to the events of an instance that sends `count` of them and falls silent.
/// Returns the events that each received, and the time until the end.
async fn events_of(shape: fn(&mut Route), count: usize) -> Vec<(usize, Duration)> {
    let folder = tempfile::tempdir().expect("a folder");
    let root = certify(folder.path(), "a", &[HOST]);
    let mut stage = Stage::with(shape, with_folder(folder.path(), false)).await;
    let (plain, tls) = (stage.address, stage.tls.expect("it listens"));
    let tcp = async || TcpStream::connect(plain).await.expect("it accepts");
    let secure = async |protocol: &[u8]| {
        let shaken = shake(tls, HOST, &[&root], &[protocol], &TLS13).await;
        shaken.expect("TLS")
    };
    let mut seen = Vec::new();
    for way in 0..4 {
        let received = async {
            match way {
                0 => events_over_http1(tcp().await).await,
                1 => events_over_http1(secure(b"http/1.1").await).await,
                2 => events_over_http2("http", tcp().await).await,
                _ => events_over_http2("https", secure(b"h2").await).await,
            }
        };
        let began = Instant::now();
        let spoken = async {
            let (mut instance, _) = stage.instance().await;
            speak(&mut instance, count).await;
            // The instance is told by the end of its connection.
            assert_eq!(instance.rest().await, "");
        };
        let (events, ()) = futures_util::future::join(received, spoken).await;
        seen.push((events, began.elapsed()));
    }
    stage.stop().await;
    seen
}

#[tokio::test]
async fn a_stream_that_speaks_lives_and_a_silent_one_is_cut() {
    for (events, took) in events_of(brief, 5).await {
        assert_eq!(events, 5);
        // A second after the last one.
        let since = took.saturating_sub(PAUSE * 5);
        assert!(since >= Duration::from_millis(950), "{since:?}");
        assert!(since < Duration::from_secs(3), "{since:?}");
    }
}

#[tokio::test]
async fn the_total_timeout_cuts_a_stream_that_speaks() {
    for (events, took) in events_of(bounded, 100).await {
        assert!((2..=3).contains(&events), "{events}");
        assert!(took >= Duration::from_secs(2), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

/// A body that never waits, so that no timer is polled.
#[tokio::test]
async fn the_total_timeout_cuts_a_stream_without_a_pause() {
    let mut stage = Stage::with(bounded, |_| ()).await;
    let (mut client, mut instance, _) = stage.asked(get("/events", "")).await;
    let began = Instant::now();
    instance.send(EVENTS).await;
    let flood = tokio::spawn(async move {
        let chunk = [b"10000\r\n", &vec![b'x'; 0x10000][..], b"\r\n"].concat();
        while instance.stream.write_all(&chunk).await.is_ok() {}
    });
    let mut block = vec![0; 1 << 20];
    within("the end", async {
        while matches!(client.stream.read(&mut block).await, Ok(1..)) {}
    })
    .await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1900), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    within("the instance is told", flood)
        .await
        .expect("no panic");
    stage.stop().await;
}

#[tokio::test]
async fn a_response_without_a_head_is_late_at_the_total_timeout() {
    let mut stage = Stage::with(bounded, |_| ()).await;
    let began = Instant::now();
    let (mut client, _instance, _) = stage.asked(get("/", "")).await;
    client.answered(504).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1900), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    stage.stop().await;
}

/// Bytes in either direction count, before the response's head and behind it.
#[tokio::test]
async fn an_upload_that_keeps_sending_is_not_silent() {
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let mut stage = Stage::with(brief, |_| ()).await;
    for is_early in [false, true] {
        let request = get("/", CHUNKED).replacen("GET", "POST", 1);
        let (mut client, mut instance, _) = stage.asked(request).await;
        if is_early {
            instance.send(EVENTS).await;
            client.head().await;
        }
        for _ in 0..5 {
            tokio::time::sleep(PAUSE).await;
            client.send("1\r\nx\r\n").await;
            instance.until("1\r\nx\r\n").await;
        }
        client.send("0\r\n\r\n").await;
        instance.until("0\r\n\r\n").await;
        match is_early {
            true => {
                instance.send("2\r\nok\r\n0\r\n\r\n").await;
                client.until("ok\r\n0\r\n\r\n").await;
            }
            false => {
                instance.send(OK).await;
                client.answered(200).await;
            }
        }
    }
    // A silent one is late.
    let request = get("/", CHUNKED).replacen("GET", "POST", 1);
    let (mut client, mut instance, _) = stage.asked(request).await;
    client.send("1\r\nx\r\n").await;
    instance.until("x\r\n").await;
    client.answered(504).await;
    stage.stop().await;
}

/// The client's pause is not the instance's silence.
#[tokio::test]
async fn a_client_that_reads_late_gets_the_rest() {
    const LENGTH: usize = 16 << 20;
    let mut stage = Stage::with(brief, |_| ()).await;
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
    instance.send(head).await;
    let written = tokio::spawn(async move {
        instance.send(vec![b'x'; LENGTH - 1]).await;
        tokio::time::sleep(PAUSE).await;
        instance.send("y").await;
        instance
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.head().await;
    let mut body = vec![0; LENGTH - client.read.len()];
    let read = within("the body", client.stream.read_exact(&mut body)).await;
    assert!(read.is_ok(), "{read:?}");
    assert_eq!(body.last(), Some(&b'y'));
    drop(within("the instance", written).await);
    stage.stop().await;
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
async fn a_tunnel_outlasts_the_timeouts() {
    let shape = |route: &mut Route| {
        brief(route);
        bounded(route);
    };
    let mut stage = Stage::with(shape, |_| ()).await;
    let (mut client, mut instance, _) = stage.asked(get("/", SWITCH)).await;
    instance.send(SWITCHED).await;
    client.head().await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
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
