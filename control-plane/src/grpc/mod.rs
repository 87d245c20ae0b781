//! The gRPC API: thin handlers over the store, the feed and the nodes.
//!
//! A handler reads its request through [`convert`], which names all invalid fields at once, calls
//! one method of the store, and converts the result. [`status`] maps every error to a code with
//! details. [`server`] adds health, reflection and limits.

pub(crate) mod acceptor;
mod audit;
mod authorize;
mod call_guard;
mod catalog;
pub(crate) mod convert;
mod enrollment;
mod membership;
mod node;
mod node_scope;
mod page;
pub(crate) mod peer;
mod route_feed;
mod server;
mod speaker;
pub(crate) mod status;
mod stream_control;
mod stream_routes;
mod token;
mod traffic;

pub(crate) use server::{GrpcServer, Health, listen};

#[cfg(feature = "test-util")]
pub(crate) use route_feed::accept_report;
#[cfg(feature = "test-util")]
pub(crate) use server::transport;
#[cfg(feature = "test-util")]
pub(crate) use speaker::Speaker;
#[cfg(feature = "test-util")]
pub(crate) use stream_routes::serve as serve_stream;

use crate::auth::{Auth, Ca, Caller, Refused};
use crate::domain::{self, Filter, FilterField, Reason, ServiceId, Timestamp, Violations};
use crate::feed::Feed;
use crate::nodes::Nodes;
use crate::nodes::planes::Planes;
use crate::nodes::replicas::Replicas;
use crate::store::{self, Store};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

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
    /// The authority that certifies nodes; `None` without TLS.
    pub(crate) ca: Option<Arc<Ca>>,
    /// Decides who may call.
    pub(crate) auth: Auth,
    /// Ends open streams.
    pub(crate) shutdown: CancellationToken,
}

impl Api {
    /// Checks the scope of a caller, before the existence of the service.
    fn permit(&self, caller: &Caller, service: &ServiceId) -> Result<(), Status> {
        let checked = caller.check_service(service);
        checked.map_err(|refused| self.refuse(caller, &refused))
    }

    /// Notes a refusal for the audit log.
    fn refuse(&self, caller: &Caller, refused: &Refused) -> Status {
        self.auth.note_refusal(caller, refused);
        status::refused(refused)
    }

    /// The status of a failed write of hosts, which the scope of the caller may forbid.
    fn refused_write(&self, caller: &Caller, error: store::Error) -> Status {
        match error {
            store::Error::HostForbidden { host, principal } => {
                let resource = format!("the host {host}");
                self.refuse(
                    caller,
                    &Refused::Scope {
                        resource,
                        principal,
                    },
                )
            }
            other => status::store(other),
        }
    }
}

/// The caller, whom [`authorize`] has put into every request.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.cloned().ok_or_else(status::not_authorized)
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
