//! WebSockets over HTTP/2 (RFC 8441) from client to instance.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use cless_tests::cluster::Cluster;
use http::{Request, Version};
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::pause::{pause_after, wait_paused};
use crate::{SOON, http2, sample};

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Opens a connection and awaits the server's settings, which permit extended CONNECT (RFC 8441
/// section 4).
async fn connect(node: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let mut sender = http2::over(TcpStream::connect(node).await?).await?;
    let unknown = Request::get("http://unknown.localhost/").version(Version::HTTP_2);
    let answer = sender.send_request(unknown.body(Full::default())?).await?;
    ensure!(answer.status() == 404, "{answer:?}");
    Ok(sender)
}

/// An open WebSocket on one stream.
struct WebSocket(TokioIo<Upgraded>);

impl WebSocket {
    async fn open(sender: &mut SendRequest<Full<Bytes>>) -> Result<Self> {
        let mut request = Request::connect("http://hello.localhost/websocket")
            .version(Version::HTTP_2)
            .header("sec-websocket-version", "13")
            .body(Full::default())?;
        let protocol = hyper::ext::Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        let answer = timeout(SOON, sender.send_request(request)).await??;
        ensure!(answer.status() == 200, "{answer:?}");
        let upgraded = hyper::upgrade::on(answer).await?;
        Ok(Self(TokioIo::new(upgraded)))
    }

    /// Sends a frame, masked as required of clients (RFC 6455 section 5.3), and expects this reply.
    async fn exchanges(&mut self, opcode: u8, payload: &[u8], expected: u8) -> Result<()> {
        let mask = [7, 77, 177, 217];
        let length = u8::try_from(payload.len()).context("a short payload")?;
        let mut frame = vec![0x80 | opcode, 0x80 | length];
        frame.extend(mask);
        let masked = payload.iter().zip(mask.into_iter().cycle());
        frame.extend(masked.map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).await?;
        let mut back = vec![0; 2 + payload.len()];
        let read = timeout(SOON, self.0.read_exact(&mut back)).await;
        read.context("silent")??;
        ensure!(back[..2] == [0x80 | expected, length], "{back:?}");
        ensure!(&back[2..] == payload, "{back:?}");
        Ok(())
    }

    async fn echoes(&mut self, word: &str) -> Result<()> {
        self.exchanges(TEXT, word.as_bytes(), TEXT).await
    }

    /// Completes the closing handshake (RFC 6455 section 7.1.2); no data may follow.
    async fn closes(mut self) -> Result<()> {
        let normal = 1000_u16.to_be_bytes();
        self.exchanges(CLOSE, &normal, CLOSE).await?;
        let mut rest = Vec::new();
        timeout(SOON, self.0.read_to_end(&mut rest)).await??;
        ensure!(rest.is_empty(), "{rest:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc_8441_a_websocket_starts_a_version_and_keeps_it_running_until_it_closes() -> Result<()>
{
    let cluster = Cluster::start(1).await?;
    let node = cluster.node(0).listen;
    let (pause, idle) = (Duration::from_millis(100), Duration::from_secs(4));
    let image = sample().await?;
    cluster
        .serve("hello", image, pause_after(pause, idle))
        .await?;
    ensure!(
        cluster.containers(Some("hello")).await?.is_empty(),
        "it runs before the first request"
    );

    // From zero.
    let mut sender = connect(node).await?;
    let mut socket = WebSocket::open(&mut sender).await?;
    socket.echoes("first").await?;
    socket.exchanges(PING, b"are you there", PONG).await?;
    let started = cluster.wait_containers("hello", 1, SOON).await?;

    // Silent for longer than the pause delay and the idle timeout.
    tokio::time::sleep(idle + Duration::from_secs(1)).await;
    let found = cluster.containers(Some("hello")).await?;
    ensure!(
        found.len() == 1 && found[0].id == started[0].id,
        "{found:?}"
    );
    ensure!(found[0].state == "running", "{found:?}");
    socket.echoes("after a while").await?;

    // A second stream on the same connection outlives the first.
    let mut second = WebSocket::open(&mut sender).await?;
    socket.closes().await?;
    second.echoes("alone").await?;
    second.closes().await?;

    // From pause, on the same connection.
    wait_paused(&cluster, "hello").await?;
    let mut socket = WebSocket::open(&mut sender).await?;
    socket.echoes("resumed").await?;
    socket.closes().await?;
    cluster.wait_containers("hello", 0, SOON).await?;
    cluster.finish().await
}
