//! The feed's side of a control plane, over any [`FeedSource`] and any transport, for simulations.
//!
//! It is the publisher, the streams and the registry of nodes that a control plane runs; what is left
//! out is the database and the socket. Chance comes in as an argument.

use crate::feed::stream::Lifetime;
use crate::feed::{self, Feed};
use crate::grpc;
use crate::nodes::Nodes;
use crate::store::FeedSource;
use cless_proto::v1 as pb;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A running feed; clones share it.
#[derive(Debug, Clone)]
pub struct FeedPlane {
    feed: Feed,
    nodes: Nodes,
    shutdown: CancellationToken,
}

/// A node as the plane knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether it has an open stream.
    pub connected: bool,
    /// Epoch and revision of the table it serves.
    pub applied: Option<(String, i64)>,
    /// How many routes it keeps at their last good value.
    pub quarantined: usize,
    /// Why it refused the last change, until it applies one.
    pub refusal: Option<String>,
    /// Whether it has reported what it runs.
    pub reported: bool,
}

impl FeedPlane {
    /// Loads the table and follows `source` until `shutdown`; the task is the publisher.
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

    /// Serves one `StreamRoutes` call, which is rotated after `rotate_after` with this `retry_after`.
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
            lifetime,
            self.shutdown.clone(),
        )
    }

    /// Takes in a node's report.
    ///
    /// # Errors
    /// As `ReportNodeStatus`.
    pub fn report(&self, report: pb::ReportNodeStatusRequest) -> Result<(), Status> {
        grpc::take_report(&self.nodes, report)
    }

    /// The newest revision that is published.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.feed.revision()
    }

    /// All nodes, in the order of their names.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let view = |node: &crate::nodes::registry::Node| NodeView {
            name: node.identity.name.to_string(),
            connected: node.is_connected(),
            applied: node
                .applied
                .as_ref()
                .map(|at| (at.epoch.to_string(), at.revision)),
            quarantined: node.quarantined.len(),
            refusal: node.refusal.clone(),
            reported: node.report.is_some(),
        };
        self.nodes.all().iter().map(view).collect()
    }
}

/// How a control plane serves its connections.
#[must_use]
pub fn transport() -> tonic::transport::Server {
    grpc::transport()
}
