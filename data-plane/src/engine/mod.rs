//! Safe use of a container engine: every call may fail, hang, or succeed without saying so.
//!
//! - [`context`]: the engine as all tasks of a node share it.
//! - [`confirmed_calls`]: calls whose outcome is confirmed when the response is lost.
//! - [`error_class`]: the meaning of a failed call; pure.
//! - [`availability`]: whether the engine answers; pure.
//! - [`start_limiter`]: the node's limit on concurrent starts.
//! - [`start_order`]: which of the waiting starts is next; pure.
//! - [`oci_runtime`]: the OCI runtime that containers run under.
//! - [`policy`]: what the operator allows versions beyond the default; pure.
//! - [`sandbox`]: network namespaces kept ready for new instances.

pub mod availability;
pub(crate) mod confirmed_calls;
pub(crate) mod context;
pub(crate) mod error_class;
pub mod oci_runtime;
pub mod policy;
pub(crate) mod sandbox;
pub(crate) mod start_limiter;
pub(crate) mod start_order;
