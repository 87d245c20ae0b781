//! One instance: a container of a version, as requests and its pool see it.
//!
//! - [`instance`]: the shared part of an instance, which requests enter and connections belong to.
//! - [`state`]: the state machine of an instance; pure.
//! - [`admission`]: state and number of requests in one atomic word.
//! - [`passive_health`]: when failed requests cause a health check.

pub mod admission;
mod atomic;
#[expect(
    clippy::module_inception,
    reason = "the folder holds what an instance is made of, the file the instance"
)]
mod instance;
pub(crate) mod passive_health;
pub(crate) mod state;

pub use instance::{Instance, Starvation};
