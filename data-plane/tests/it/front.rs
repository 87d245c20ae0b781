//! A complete data plane with a scripted control plane and engine, an origin that records each
//! byte, and clients that send arbitrary bytes.

pub(crate) mod client;
pub(crate) mod origin;

use std::net::SocketAddr;
use std::sync::Arc;

use cless_data_plane::runtime::fake::Fake;
use cless_data_plane::{Options, Running, start_on};
use tempfile::TempDir;

use self::origin::Origin;
use crate::feed::plane::{Plane, Routes, Stream};

/// The host whose only version is the origin.
pub(crate) const HOST: &str = "a.localhost";

pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    /// HTTPS address; `None` unless the test enabled it.
    pub(crate) tls_address: Option<SocketAddr>,
    pub(crate) origin: Origin,
    node: Running,
    // Kept alive: the node depends on them.
    _feed: (Plane, Stream),
    _folder: TempDir,
}

impl Front {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(choose: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Fake::default();
        let origin = Origin::serve(engine.visitors());
        let mut plane = Plane::start().await;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut options = Options {
            listen: any,
            admin: any,
            control_planes: vec![plane.uri()],
            node: "one".to_owned(),
            cache_dir: folder.path().to_owned(),
            drain_timeout: 1,
            ..Options::default()
        };
        choose(&mut options);
        let node = start_on(options, Arc::new(engine)).await;
        let node = node.expect("the node starts");
        let (mut stream, _) = plane.accept().await;
        stream
            .send(Routes::default().with("a", "a:1").snapshot())
            .await;
        stream.ack().await;
        Self {
            address: node.proxy_addr(),
            tls_address: node.tls_addr(),
            origin,
            node,
            _feed: (plane, stream),
            _folder: folder,
        }
    }

    /// Checks that a well-behaved client is served.
    pub(crate) async fn serves(&self, when: &str) {
        let answers = client::exchange(
            self.address,
            format!("GET /well HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes(),
            1,
        )
        .await;
        assert_eq!(answers.statuses(), [200], "a good client {when}");
    }

    /// Number of connections closed by a limit.
    pub(crate) async fn closed(&self, reason: &str) -> u64 {
        let answers = client::exchange(
            self.node.admin_addr(),
            b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n",
            1,
        )
        .await;
        let text = answers.all.first().map_or(&[][..], |answer| &answer.body);
        let name = format!("cless_connections_closed_total{{reason=\"{reason}\"}} ");
        let text = String::from_utf8_lossy(text);
        let mut counts = text.lines().filter_map(|line| line.strip_prefix(&name));
        counts
            .next()
            .and_then(|count| count.parse().ok())
            .unwrap_or(0)
    }

    pub(crate) async fn stop(self) {
        self.node.shutdown().await;
    }
}
