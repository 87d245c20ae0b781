//! Runs of the built `cless` against a real control plane in this process, without a data plane.
//!
//! Each test has a control plane of its own on a temporary database, and compares what a person
//! sees: exit code, stdout and stderr, with times, ids and addresses filtered. What needs nodes is
//! played by [`node::FakeNode`], which speaks the feed; what needs a broken server by
//! [`refusing::Refusing`].

mod deploy;
mod errors;
mod node;
mod nodes;
mod plane;
mod refusing;
mod service;
mod traffic;
mod version;
