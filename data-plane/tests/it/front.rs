//! A complete data plane with a scripted control plane and engine, an origin that records each
//! byte, and clients that send arbitrary bytes.

pub(crate) mod client;
pub(crate) mod origin;

use std::net::SocketAddr;

use cless_data_plane::Options;

use self::origin::Origin;
use crate::proxy::Stage;

/// The host whose only version is the origin.
pub(crate) const HOST: &str = "a.localhost";

pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) origin: Origin,
    pub(crate) stage: Stage,
}

impl Front {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(choose: impl FnOnce(&mut Options)) -> Self {
        let mut stage = Stage::choosing(|options| {
            options.drain_timeout = 1;
            choose(options);
        })
        .await;
        Self {
            address: stage.address,
            origin: Origin::serve(stage.take_visitors()),
            stage,
        }
    }

    /// Checks that a well-behaved client is served.
    pub(crate) async fn serves(&self, when: &str) {
        let request = format!("GET /well HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answers = client::exchange(self.address, request.as_bytes(), 1).await;
        assert_eq!(answers.statuses(), [200], "a good client {when}");
    }

    /// Number of connections closed by a limit.
    pub(crate) async fn closed(&self, reason: &str) -> u64 {
        let name = format!("cless_connections_closed_total{{reason=\"{reason}\"}} ");
        let metrics = self.stage.metrics().await;
        let mut counts = metrics.lines().filter_map(|line| line.strip_prefix(&name));
        counts
            .next()
            .map_or(0, |count| count.parse().expect("a number"))
    }

    pub(crate) async fn stop(self) {
        self.stage.stop().await;
    }
}
