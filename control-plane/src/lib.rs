//! The control plane of cless.

pub mod domain;
pub mod store;
