//! WebSockets over HTTP/2 (RFC 8441).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cless_proto::v1::version_spec::Protocol;
use http::{Request, Response, Version};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{HOST, Stage, Wire};
use crate::feed::plane::within;

type Sender = SendRequest<Empty<Bytes>>;

/// A client that has received the proxy's settings.
async fn client(stage: &Stage) -> Sender {
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = within("a handshake", shaken).await.expect("HTTP/2");
    tokio::spawn(connection);
    // Extended CONNECT requires the proxy's setting (RFC 8441 section 4).
    let unknown = Request::get("http://unknown.localhost/").version(Version::HTTP_2);
    let answered = sender.send_request(unknown.body(Empty::new()).expect("a request"));
    assert_eq!(
        within("an answer", answered).await.expect("one").status(),
        404
    );
    sender
}

fn connect(protocol: &'static str) -> Request<Empty<Bytes>> {
    let mut request = Request::connect(format!("http://{HOST}/chat?room=1"))
        .version(Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(Empty::new())
        .expect("a request");
    let protocol = hyper::ext::Protocol::from_static(protocol);
    request.extensions_mut().insert(protocol);
    request
}

/// The accept value for the key in a head (RFC 6455 section 4.2.2).
fn accept_of(head: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut named = lines.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = named.next().expect("a key");
    let bytes = BASE64_STANDARD.decode(key).expect("base64");
    assert_eq!(bytes.len(), 16, "{key}");
    let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    BASE64_STANDARD.encode(Sha1::digest(format!("{key}{guid}")))
}

/// An open WebSocket and the instance's end of it.
async fn opened(stage: &mut Stage, sender: &mut Sender) -> (Response<Incoming>, Wire) {
    let answered = sender.send_request(connect("websocket"));
    let played = async {
        let (mut instance, head) = stage.instance().await;
        assert!(head.starts_with("get /chat?room=1 http/1.1\r\n"), "{head}");
        for field in [
            &format!("host: {HOST}\r\n"),
            "connection: upgrade\r\n",
            "upgrade: websocket\r\n",
            "sec-websocket-version: 13\r\n",
            "sec-websocket-protocol: chat\r\n",
            "via: 2.0 cless\r\n",
        ] {
            assert!(head.contains(field), "{field} in {head}");
        }
        let accept = accept_of(&instance.last_head);
        let early = "early";
        instance
            .send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-accept: {accept}\r\nsec-websocket-protocol: chat\r\n\r\n{early}"
            ))
            .await;
        instance
    };
    let both = futures_util::future::join(answered, played);
    let (response, instance) = within("a response", both).await;
    (response.expect("it is answered"), instance)
}

#[tokio::test]
async fn rfc_8441_section_5_a_websocket_runs_over_a_stream() {
    let mut stage = Stage::start().await;
    let mut sender = client(&stage).await;
    let (mut response, mut instance) = opened(&mut stage, &mut sender).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    let socket = within("a stream", hyper::upgrade::on(&mut response)).await;
    let mut socket = TokioIo::new(socket.expect("upgraded"));
    // Data directly after the instance's head is kept.
    let mut read = [0; 5];
    within("bytes", socket.read_exact(&mut read))
        .await
        .expect("more");
    assert_eq!(&read, b"early");
    socket.write_all(b"ping").await.expect("it is taken");
    socket.flush().await.expect("it is taken");
    instance.until("ping").await;
    instance.send("pong").await;
    within("bytes", socket.read_exact(&mut read[..4]))
        .await
        .expect("more");
    assert_eq!(&read[..4], b"pong");
    assert!(stage.metrics().await.contains("cless_tunnels 1"));
    // Its end ends the stream; other streams continue.
    drop(instance);
    let mut rest = Vec::new();
    let ended = within("the end", socket.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty(), "{ended:?} {rest:?}");
    let (response, instance) = opened(&mut stage, &mut sender).await;
    assert_eq!(response.status(), 200);
    drop((socket, response, sender, instance));
    stage.stop().await;
}

#[tokio::test]
async fn rfc_8441_section_5_a_reset_stream_ends_the_websocket() {
    let mut stage = Stage::start().await;
    let mut sender = client(&stage).await;
    let (response, mut instance) = opened(&mut stage, &mut sender).await;
    drop(response);
    assert_eq!(instance.rest().await, "");
    // Even while the instance keeps its end open.
    stage.until_measured("cless_tunnels 0").await;
    drop(instance);
    stage.stop().await;
}

#[tokio::test]
async fn rfc_6455_section_4_1_an_instance_that_does_not_switch_opens_no_tunnel() {
    let mut stage = Stage::start().await;
    let mut sender = client(&stage).await;
    for (answer, status) in [
        // A success status would be a tunnel to the client (RFC 9110 section 9.3.6).
        ("200 OK\r\ncontent-length: 0\r\n", 502),
        (
            "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
            502,
        ),
        (
            "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: AAAA\r\n",
            502,
        ),
        ("403 Forbidden\r\ncontent-length: 0\r\n", 403),
    ] {
        let answered = sender.send_request(connect("websocket"));
        let played = async {
            let (mut instance, _) = stage.instance().await;
            instance.send(format!("HTTP/1.1 {answer}\r\n")).await;
            instance
        };
        let both = futures_util::future::join(answered, played);
        let (response, _instance) = within("a response", both).await;
        let response = response.expect("it is answered");
        assert_eq!(response.status(), status, "{answer}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9220_section_3_other_protocols_and_instances_are_refused() {
    let stage = Stage::start().await;
    let mut sender = client(&stage).await;
    let answered = sender.send_request(connect("connect-udp"));
    let response = within("an answer", answered).await.expect("one");
    assert_eq!(response.status(), 501);
    drop(sender);
    stage.stop().await;
    // No upgrade is sent to an HTTP/2 instance.
    let stage = Stage::speaking(Protocol::H2c).await;
    let mut sender = client(&stage).await;
    let answered = sender.send_request(connect("websocket"));
    let response = within("an answer", answered).await.expect("one");
    assert_eq!(response.status(), 501);
    drop(sender);
    // Nor as a GET without it.
    let fields = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let mut old = stage.client(super::get("/", fields)).await;
    let head = old.head().await;
    assert!(head.starts_with("http/1.1 501"), "{head}");
    stage.stop().await;
}
