//! The feed of a control plane over any [`FeedSource`] and transport, for simulations: publisher,
//! streams and node registry, without database and socket. Random values are arguments.

use crate::feed::stream::Lifetime;
use crate::feed::{self, Feed};
use crate::grpc;
use crate::nodes::Nodes;
use crate::nodes::registry::NodeEntry;
use crate::store::FeedSource;
use cless_proto::v1 as pb;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A running feed. Clones share it.
#[derive(Debug, Clone)]
pub struct FeedPlane {
    feed: Feed,
    nodes: Nodes,
    shutdown: CancellationToken,
}

/// A node in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Name of the node.
    pub name: String,
    /// Whether it has an open stream.
    pub connected: bool,
    /// Epoch and revision of the table it serves. `None`: none reported.
    pub applied: Option<(String, i64)>,
    /// Number of services whose latest route it rejected.
    pub quarantined: usize,
    /// The reason why it rejected the last change. `None` once it applies one.
    pub refusal: Option<String>,
    /// Whether it has sent a status report.
    pub reported: bool,
}

impl FeedPlane {
    /// Loads the table and follows `source` until `shutdown`. The task is the publisher.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub async fn start(
        source: impl FeedSource,
        shutdown: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), String> {
        let (feed, publisher) = feed::start(source, shutdown.clone())
            .await
            .map_err(|error| error.to_string())?;
        let plane = Self {
            feed,
            nodes: Nodes::new(),
            shutdown,
        };
        Ok((plane, publisher))
    }

    /// Serves one `StreamRoutes` call, rotated after `rotate_after` with this `retry_after`.
    pub fn stream_routes<R>(
        &self,
        inbound: R,
        rotate_after: Duration,
        retry_after: Duration,
    ) -> impl Stream<Item = Result<pb::StreamRoutesResponse, Status>> + Send + Unpin + use<R>
    where
        R: Stream<Item = Result<pb::StreamRoutesRequest, Status>> + Send + Unpin + 'static,
    {
        let lifetime = Lifetime {
            rotate_after,
            retry_after,
        };
        grpc::serve_stream(
            inbound,
            &self.feed,
            &self.nodes,
            grpc::Speaker::trusted(),
            lifetime,
            false,
            self.shutdown.clone(),
        )
    }

    /// Replaces a node's report.
    ///
    /// # Errors
    /// Equivalent of `ReportNodeStatus`.
    pub fn report(&self, report: pb::ReportNodeStatusRequest) -> Result<(), Status> {
        grpc::accept_report(&self.nodes, report)
    }

    /// The newest published revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.feed.revision()
    }

    /// All nodes, sorted by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let view = |node: &NodeEntry| NodeView {
            name: node.identity.name.to_string(),
            connected: node.is_connected(),
            applied: node
                .applied
                .as_ref()
                .map(|at| (at.epoch.to_string(), at.revision)),
            quarantined: node.quarantined.len(),
            refusal: node.rejection.clone(),
            reported: node.report.is_some(),
        };
        self.nodes.all().iter().map(view).collect()
    }
}

/// The transport settings of a control plane.
#[must_use]
pub fn transport() -> tonic::transport::Server {
    grpc::transport()
}
