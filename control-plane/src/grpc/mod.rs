//! The gRPC API: thin handlers over the store, the feed and the nodes.
//!
//! A handler reads its request through [`convert`], which names all invalid fields at once, calls
//! one method of the store, and converts the result. [`status`] maps every error to a code with
//! details. [`server`] adds health, reflection and limits.

mod call_guard;
mod catalog;
pub(crate) mod convert;
mod enrollment;
mod membership;
mod node;
mod page;
mod route_feed;
mod server;
pub(crate) mod status;
mod stream_control;
mod stream_routes;
mod traffic;

pub(crate) use server::{GrpcServer, Health, listen};

#[cfg(feature = "test-util")]
pub(crate) use route_feed::accept_report;
#[cfg(feature = "test-util")]
pub(crate) use server::transport;
#[cfg(feature = "test-util")]
pub(crate) use stream_routes::serve as serve_stream;

use crate::domain::{self, Filter, FilterField, Reason, Timestamp, Violations};
use crate::feed::Feed;
use crate::nodes::Nodes;
use crate::nodes::planes::Planes;
use crate::nodes::replicas::Replicas;
use crate::store::Store;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The state of all handlers.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    /// The published route table.
    pub(crate) feed: Feed,
    /// The nodes, including those of other control planes.
    pub(crate) nodes: Nodes,
    /// Refreshes the nodes of other control planes.
    pub(crate) replicas: Replicas,
    /// The addresses of the control planes.
    pub(crate) planes: Planes,
    /// Ends open streams.
    pub(crate) shutdown: CancellationToken,
}

/// The wall clock. The rest of the program takes `now` as an argument.
fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Ends the validation of a request: `value`, or an error that names all violations.
///
/// `value` is `None` only if there is a violation.
fn validated<T>(value: Option<T>, violations: Violations) -> Result<T, Status> {
    violations
        .finish()
        .map_err(|error| status::invalid(&error))?;
    value.ok_or_else(|| Status::internal("a request was rejected without a violation"))
}

/// The value of a field that is validated alone.
fn parsed<T>(field: &str, value: Result<T, Reason>) -> Result<T, Status> {
    value.map_err(|reason| status::invalid(&domain::Error::invalid(field, reason.to_string())))
}

/// The filter of a list over these fields.
fn filter(text: &str, fields: &[FilterField]) -> Result<Filter, Status> {
    parsed("filter", Filter::parse(text, fields))
}

/// The value of an enum in a filter: `SERVING` for `STATE_SERVING`.
fn state_word(name: &'static str) -> &'static str {
    name.strip_prefix("STATE_").unwrap_or(name)
}
