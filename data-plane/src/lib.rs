//! The cless data plane: an HTTP proxy that starts and reaps containers.
//!
//! It joins a cluster ([`enrollment`]), follows the route feed of a control plane ([`feed`]) and maps
//! each request to a service and version ([`route`]). The request takes a slot in an instance, which
//! is started if needed ([`pool`], [`instance`], [`lifecycle`], [`scale`], [`engine`], [`runtime`]),
//! and is forwarded ([`proxy`]). The control plane is needed to learn of changes, never to serve. [`node`] wires the
//! parts together.
//!
//! The public interface is [`start`], [`check_engine`], [`Options`], [`Running`], [`Error`] and [`program`]. The
//! feature `test-util` publishes the other modules for tests and benches.

#![cfg_attr(
    not(feature = "test-util"),
    expect(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "these items are public with the feature test-util"
    )
)]

mod admin;
mod backoff;
mod drain;
mod error_chain;
mod file;
#[cfg(test)]
mod fuzz;
mod lifecycle;
mod node;
mod options;
pub mod program;

#[cfg(not(feature = "test-util"))]
mod engine;
#[cfg(not(feature = "test-util"))]
mod enrollment;
#[cfg(not(feature = "test-util"))]
mod feed;
#[cfg(not(feature = "test-util"))]
mod image;
#[cfg(not(feature = "test-util"))]
mod instance;
#[cfg(not(feature = "test-util"))]
mod isolation;
#[cfg(not(feature = "test-util"))]
mod metrics;
#[cfg(not(feature = "test-util"))]
mod pool;
#[cfg(not(feature = "test-util"))]
mod proxy;
#[cfg(not(feature = "test-util"))]
mod report;
#[cfg(not(feature = "test-util"))]
mod route;
#[cfg(not(feature = "test-util"))]
mod runtime;
#[cfg(not(feature = "test-util"))]
mod scale;
#[cfg(not(feature = "test-util"))]
mod trace;

#[cfg(feature = "test-util")]
pub mod engine;
#[cfg(feature = "test-util")]
pub mod enrollment;
#[cfg(feature = "test-util")]
pub mod feed;
#[cfg(feature = "test-util")]
pub mod image;
#[cfg(feature = "test-util")]
pub mod instance;
#[cfg(feature = "test-util")]
pub mod isolation;
#[cfg(feature = "test-util")]
pub mod metrics;
#[cfg(feature = "test-util")]
pub mod pool;
#[cfg(feature = "test-util")]
pub mod proxy;
#[cfg(feature = "test-util")]
pub mod report;
#[cfg(feature = "test-util")]
pub mod route;
#[cfg(feature = "test-util")]
pub mod runtime;
#[cfg(feature = "test-util")]
pub mod scale;
#[cfg(feature = "test-util")]
pub mod trace;

pub use node::{Error, Running, check_engine, start};
pub use options::Options;
pub use proxy::ProxyOptions;
pub use trace::TraceOptions;

#[cfg(feature = "test-util")]
pub use node::start_on;
