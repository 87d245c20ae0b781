//! Long-lived streams keep their version running and are drained before a shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_proto::v1::version_spec::Protocol;
use cless_tests::cluster::{Cluster, NodeSetup, duration, settings};
use cless_tests::grpc::Client;
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::Streaming;

use crate::grpc::spec;
use crate::{SOON, sample};

/// Settings with an idle timeout of one second.
fn short_idle_timeout() -> v1::ServiceSettings {
    v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(1)),
        ..settings()
    }
}

/// An open WebSocket, or a response of which the head was read.
struct OpenStream {
    stream: BufReader<TcpStream>,
}

impl OpenStream {
    async fn open(node: SocketAddr, path: &str, fields: &str, status: &str) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(node).await?);
        let head = format!("GET {path} HTTP/1.1\r\nHost: hello.localhost\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut open = Self { stream };
        let first = open.line().await?;
        ensure!(first.contains(status), "{first}");
        while !open.line().await?.trim().is_empty() {}
        Ok(open)
    }

    async fn websocket(node: SocketAddr) -> Result<Self> {
        let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        Self::open(node, "/upgrade", fields, " 101 ").await
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = timeout(SOON, self.stream.read_line(&mut line)).await;
        ensure!(read.context("silent")?? > 0, "it ended");
        Ok(line)
    }

    async fn echoes(&mut self, word: &str) -> Result<()> {
        self.stream
            .write_all(format!("{word}\n").as_bytes())
            .await?;
        let back = self.line().await?;
        ensure!(back.trim() == word, "{back:?}");
        Ok(())
    }

    async fn rest(&mut self) -> Result<String> {
        let mut rest = String::new();
        timeout(SOON * 2, self.stream.read_to_string(&mut rest)).await??;
        Ok(rest)
    }
}

/// An open bidirectional gRPC call.
struct Chat {
    send: mpsc::Sender<String>,
    answers: Streaming<String>,
}

impl Chat {
    async fn open(node: SocketAddr, host: &str) -> Result<Self> {
        let (send, words) = mpsc::channel(1);
        let mut client = Client::connect(node, host).await?;
        let answers = client.chat(ReceiverStream::new(words)).await?;
        Ok(Self { send, answers })
    }

    async fn answers(&mut self, expected: &str) -> Result<()> {
        self.send.send("word".to_owned()).await?;
        let answer = timeout(SOON, self.answers.message()).await??;
        ensure!(answer.as_deref() == Some(expected), "{answer:?}");
        Ok(())
    }

    /// Ends the call, which must end without an error.
    async fn ends(mut self) -> Result<()> {
        drop(self.send);
        let last = timeout(SOON, self.answers.message()).await??;
        ensure!(last.is_none(), "{last:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_stay_on_their_version_when_traffic_moves() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = cluster.node(0).listen;
    cluster
        .serve("hello", sample().await?, short_idle_timeout())
        .await?;
    let mut api = cluster.api()?;
    api.create_service("echo", short_idle_timeout()).await?;
    api.create_version_of("echo", spec(Protocol::H2c, "one").await?)
        .await?;
    cluster.set_traffic("echo", &[(1, 100)]).await?;

    let mut websocket = OpenStream::websocket(node).await?;
    websocket.echoes("before").await?;
    let path = "/stream?seconds=8&every_ms=100";
    let mut events = OpenStream::open(node, path, "Connection: close\r\n", " 200 ").await?;
    events.line().await?;
    let mut chat = Chat::open(node, "echo.localhost").await?;
    chat.answers("one: word").await?;
    let first = cluster.wait_containers("hello", 1, SOON).await?;

    let env = [("GREETING", "two")];
    api.create_version("hello", sample().await?, &env).await?;
    api.create_version_of("echo", spec(Protocol::H2c, "two").await?)
        .await?;
    cluster.set_traffic("hello", &[(2, 100)]).await?;
    cluster.set_traffic("echo", &[(2, 100)]).await?;
    ensure!(
        cluster.get("hello", "/").await?.text().trim() == "two",
        "the old version answers"
    );
    let mut client = Client::connect(node, "echo.localhost").await?;
    ensure!(
        client.say("word").await?.get_ref() == "two: word",
        "the old version answers"
    );

    // Longer than the idle timeout of both services.
    tokio::time::sleep(Duration::from_secs(3)).await;
    websocket.echoes("after").await?;
    chat.answers("one: word").await?;
    let events = events.rest().await?;
    ensure!(
        events.contains("end\n") && events.ends_with("0\r\n\r\n"),
        "cut: {events:?}"
    );
    websocket.echoes("to the end").await?;
    chat.ends().await?;
    let found = cluster.containers(Some("hello")).await?;
    ensure!(
        found.iter().any(|one| one.id == first[0].id),
        "it was removed with an open tunnel"
    );

    // Without streams the instances become idle.
    drop(websocket);
    cluster.wait_containers("hello", 0, SOON).await?;
    cluster.wait_containers("echo", 0, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_complete_on_a_stopping_node() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let node = cluster.node(0).listen;
    cluster.serve("hello", sample().await?, settings()).await?;
    let mut api = cluster.api()?;
    api.create_service("echo", settings()).await?;
    api.create_version_of("echo", spec(Protocol::H2c, "one").await?)
        .await?;
    cluster.set_traffic("echo", &[(1, 100)]).await?;
    let mut websocket = OpenStream::websocket(node).await?;
    let path = "/stream?seconds=4&every_ms=100";
    let mut events = OpenStream::open(node, path, "", " 200 ").await?;
    let mut chat = Chat::open(node, "echo.localhost").await?;
    chat.answers("one: word").await?;

    cluster.node(0).signal(Signal::SIGTERM)?;
    let closed = cless_tests::wait::until("the listener closes", SOON, async || {
        Ok(TcpStream::connect(node).await.err())
    });
    closed.await?;
    websocket.echoes("while it drains").await?;
    chat.answers("one: word").await?;
    chat.ends().await?;
    let events = events.rest().await?;
    ensure!(
        events.contains("end\n") && events.ends_with("0\r\n\r\n"),
        "cut: {events:?}"
    );
    websocket.echoes("last").await?;
    ensure!(
        cluster.containers(Some("hello")).await?.len() == 1,
        "removed with an open tunnel"
    );
    drop(websocket);
    cluster.node_ends(0).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_tunnel_delays_a_stop_only_for_the_drain_timeout() -> Result<()> {
    let setup = NodeSetup::flags(&["--drain-timeout", "2"]);
    let mut cluster = Cluster::start_with(1, setup).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    let mut websocket = OpenStream::websocket(cluster.node(0).listen).await?;
    websocket.echoes("before").await?;
    let begin = tokio::time::Instant::now();
    cluster.node(0).signal(Signal::SIGTERM)?;
    websocket.echoes("while it drains").await?;
    cluster.node_ends(0).await?;
    ensure!(begin.elapsed() >= Duration::from_secs(2), "it did not wait");
    ensure!(
        websocket.rest().await.is_ok_and(|rest| rest.is_empty()),
        "more came"
    );
    cluster.finish().await
}
