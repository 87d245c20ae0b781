//! The gRPC API: thin handlers over the store, the feed and the nodes.
//!
//! A handler reads its request through [`convert`] (all that is wrong is named at once), calls one
//! method of the store, and writes the answer; [`status`] turns every error into a code with
//! details. [`server`] puts the services together with health, reflection and limits.

mod call_guard;
mod catalog;
pub(crate) mod convert;
mod node;
mod page;
mod route_feed;
mod server;
pub(crate) mod status;
mod stream_routes;
mod traffic;

pub(crate) use server::{Listening, listen};

#[cfg(feature = "test-util")]
pub(crate) use route_feed::report as accept_report;
#[cfg(feature = "test-util")]
pub(crate) use server::transport;
#[cfg(feature = "test-util")]
pub(crate) use stream_routes::serve as serve_stream;

use crate::domain::{Timestamp, Violations};
use crate::feed::Feed;
use crate::nodes::Nodes;
use crate::nodes::replicas::Replicas;
use crate::store::Store;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What all handlers share.
#[derive(Clone)]
pub(crate) struct Plane {
    /// The state.
    pub(crate) store: Store,
    /// The published route table.
    pub(crate) feed: Feed,
    /// The data planes.
    pub(crate) nodes: Nodes,
    /// Those of other control planes.
    pub(crate) replicas: Replicas,
    /// Ends open streams.
    pub(crate) shutdown: CancellationToken,
}

/// The wall clock, read at this edge only.
fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Ends the reading of a request: the refusal of all that was noted, or what was read.
///
/// A reader returns `None` only after it has noted why.
fn read<T>(value: Option<T>, violations: Violations) -> Result<T, Status> {
    violations
        .finish()
        .map_err(|error| status::invalid(&error))?;
    value.ok_or_else(|| Status::internal("a request was refused without a reason"))
}
