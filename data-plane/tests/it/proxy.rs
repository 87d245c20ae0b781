//! The proxy between raw sockets, message by message: requirements of RFCs 9110, 9112 and 9113, and
//! features of cless. Names cite the section.
//!
//! A [`Stage`] is a complete data plane with a scripted control plane and engine. A test acts as
//! the client and as the instance, and receives the connections to the instance.

mod answers;
mod breaks;
mod half_close;
mod http1;
mod http2;
mod interim;
mod labels;
mod limits;
mod log;
mod long;
mod malformed;
mod stream_limits;
mod streams;
mod switch;
pub(crate) mod tls;
mod traces;
mod unparsed;
mod upstream;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cless_data_plane::runtime::fake::Fake;
use cless_data_plane::{Options, Running, start_on};
use cless_proto::v1 as pb;
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::feed::plane::{self, Plane, Routes, Stream, within};

/// The host whose only version is the instance.
const HOST: &str = "a.localhost";
/// Time without data after which a connection counts as quiet.
const QUIET: Duration = Duration::from_millis(150);

fn spoken(protocol: pb::version_spec::Protocol) -> impl FnOnce(&mut pb::Route) {
    move |route| {
        for version in &mut route.versions {
            if let Some(spec) = &mut version.spec {
                spec.protocol = protocol.into();
            }
        }
    }
}

/// A data plane with one service.
pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    /// HTTPS address; `None` unless the test enabled it.
    pub(crate) tls: Option<SocketAddr>,
    admin: SocketAddr,
    visitors: mpsc::UnboundedReceiver<TcpStream>,
    node: Running,
    engine: Fake,
    feed: (Plane, Stream),
    _folder: TempDir,
}

impl Stage {
    async fn start() -> Self {
        Self::choosing(|_| ()).await
    }

    pub(crate) async fn choosing(choose: impl FnOnce(&mut Options)) -> Self {
        Self::with(|_| (), choose).await
    }

    async fn with(shape: impl FnOnce(&mut pb::Route), choose: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Fake::default();
        let visitors = engine.visitors();
        let mut plane = Plane::start().await;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut options = Options {
            listen: any,
            admin: any,
            control_planes: vec![plane.uri()],
            node: "one".to_owned(),
            cache_dir: folder.path().join("cache"),
            drain_timeout: 5,
            ..Options::default()
        };
        options.proxy.workers = 2;
        choose(&mut options);
        let node = start_on(options, Arc::new(engine.clone())).await;
        let node = node.expect("the node starts");
        let (mut stream, _) = plane.accept().await;
        let mut route = plane::route("a", "a:1");
        shape(&mut route);
        let routes = Routes::default().with_bytes("a", route.encode_to_vec());
        stream.send(routes.snapshot()).await;
        stream.ack().await;
        Self {
            address: node.proxy_addr(),
            tls: node.tls_addr(),
            admin: node.admin_addr(),
            visitors,
            node,
            engine,
            feed: (plane, stream),
            _folder: folder,
        }
    }

    async fn speaking(protocol: pb::version_spec::Protocol) -> Self {
        Self::with(spoken(protocol), |_| ()).await
    }

    /// A client connection on which `bytes` were sent.
    async fn client(&self, bytes: impl AsRef<[u8]>) -> Wire {
        let stream = within("a connection", TcpStream::connect(self.address)).await;
        let mut wire = Wire::of(stream.expect("the proxy accepts"));
        wire.send(bytes).await;
        wire
    }

    /// The next connection to the instance that carries a request; probes carry none.
    async fn instance(&mut self) -> (Wire, String) {
        loop {
            let stream = within("a connection to the instance", self.visitors.recv()).await;
            let mut wire = Wire::of(stream.expect("the engine lives"));
            if let Some(head) = wire.maybe_head().await {
                return (wire, head);
            }
        }
    }

    /// A client that sent `bytes`, the instance that received the request, and its head.
    async fn asked(&mut self, bytes: impl AsRef<[u8]>) -> (Wire, Wire, String) {
        let client = self.client(bytes).await;
        let (instance, head) = self.instance().await;
        (client, instance, head)
    }

    /// The connections to the instance from now on.
    pub(crate) fn take_visitors(&mut self) -> mpsc::UnboundedReceiver<TcpStream> {
        let (_, none) = mpsc::unbounded_channel();
        std::mem::replace(&mut self.visitors, none)
    }

    /// Waits until the metrics contain this line.
    async fn until_measured(&self, line: &str) {
        within(line, async {
            while !self.metrics().await.lines().any(|one| one == line) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) async fn metrics(&self) -> String {
        self.scrape("").await
    }

    /// The response of `/metrics` to these fields.
    async fn scrape(&self, fields: &str) -> String {
        let stream = TcpStream::connect(self.admin).await;
        let mut wire = Wire::of(stream.expect("the admin port accepts"));
        let host = "Host: a\r\nConnection: close\r\n";
        wire.send(format!("GET /metrics HTTP/1.1\r\n{host}{fields}\r\n"))
            .await;
        wire.rest().await
    }

    pub(crate) async fn stop(self) {
        within("the node stops", self.node.shutdown()).await;
    }
}

pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
    /// The last head in its original case.
    last_head: String,
}

impl Wire {
    fn of(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            read: Vec::new(),
            last_head: String::new(),
        }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.stream.write_all(bytes.as_ref()).await;
        sent.expect("the other end is there");
    }

    /// Data up to and including `end`.
    async fn until(&mut self, end: &str) -> String {
        let found = within(end, self.maybe_until(end)).await;
        found.unwrap_or_else(|| {
            let read = String::from_utf8_lossy(&self.read);
            panic!("the connection ended before {end:?}; it brought {read:?}")
        })
    }

    async fn maybe_until(&mut self, end: &str) -> Option<String> {
        loop {
            let found = self
                .read
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + end.len());
                let taken = std::mem::replace(&mut self.read, rest);
                return Some(String::from_utf8_lossy(&taken).into_owned());
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// A head in lower case; `None` at the end of the connection.
    async fn maybe_head(&mut self) -> Option<String> {
        self.last_head = within("a head", self.maybe_until("\r\n\r\n")).await?;
        Some(self.last_head.to_ascii_lowercase())
    }

    /// A head in lower case.
    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.to_ascii_lowercase()
    }

    /// The head of a response with this status.
    async fn answered(&mut self, status: u16) -> String {
        let head = self.head().await;
        let expected = format!("http/1.1 {status}");
        assert!(head.starts_with(&expected), "not {status}: {head}");
        head
    }

    async fn rest(&mut self) -> String {
        let end = self.stream.read_to_end(&mut self.read);
        let _ = within("the end of the connection", end).await;
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// Ends the sending side.
    async fn end(&mut self) {
        let ended = self.stream.shutdown().await;
        ended.expect("the other end is there");
    }

    /// Ends the connection with a reset.
    fn reset(self) {
        let set = self.stream.set_zero_linger();
        set.expect("an option");
    }

    /// Checks that no data arrives for [`QUIET`].
    async fn is_quiet(&mut self) {
        let read = self.stream.read_buf(&mut self.read);
        let read = tokio::time::timeout(QUIET, read).await;
        assert!(
            read.is_err() && self.read.is_empty(),
            "unexpected data: {read:?}"
        );
    }
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

/// The instance responds, and the client receives it.
async fn answers_ok(instance: &mut Wire, client: &mut Wire) {
    instance.send(OK).await;
    client.until("ok").await;
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
