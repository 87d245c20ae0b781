//! Runs of the built `cless` against a real control plane in this process, without a data plane.
//!
//! Each test starts a control plane on a temporary database. Snapshots hold the exit code, stdout
//! and stderr, with times, ids and addresses filtered. [`fake_node::FakeNode`] stands in for nodes,
//! and [`failing_server::FailingServer`] for a broken control plane.

mod deploy;
mod errors;
mod failing_server;
mod fake_node;
mod node;
mod plane;
mod service;
mod traffic;
mod version;
