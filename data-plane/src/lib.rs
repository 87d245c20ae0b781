//! The cless data plane: an HTTP proxy that starts and reaps containers.
//!
//! It follows the route feed of a control plane ([`feed`]), finds service and version of each
//! request locally ([`route`]), takes a slot in an instance, starting one if it must
//! ([`pool`], [`instance`], [`scale`], [`engine`], [`runtime`]), and forwards ([`proxy`]). It needs the control plane to
//! learn of changes, never to serve. [`node`] wires the parts together.

mod admin;
pub mod engine;
pub mod feed;
mod file;
#[cfg(test)]
mod fuzz;
pub mod image;
pub mod instance;
pub mod isolation;
mod lifecycle;
pub mod metrics;
pub mod node;
pub mod options;
pub mod pool;
pub mod program;
pub mod proxy;
pub mod report;
pub mod route;
pub mod runtime;
pub mod scale;
pub mod trace;

pub use node::{Error, Running, start, start_on};
pub use options::Options;
