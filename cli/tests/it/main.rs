//! Runs of the built `cless` against a real control plane in this process, without a data plane.
//!
//! Each test starts a control plane on a temporary database. A snapshot is a session: each command
//! after `$ `, its exit code unless 0, its stdout, and its stderr after `! `, with times, ids and
//! addresses filtered. [`fake_node::FakeNode`] stands in for nodes, and
//! [`failing_server::FailingServer`] for a broken control plane,
//! and [`secure_plane::SecurePlane`] for one that knows a single token.

mod deploy;
mod errors;
mod failing_server;
mod fake_node;
mod import;
mod login;
mod node;
mod plane;
mod secure_plane;
mod service;
mod token;
mod traffic;
mod version;
