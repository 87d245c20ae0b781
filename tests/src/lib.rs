//! What the end-to-end tests, the demo and the benches of cless share.
//!
//! - [`image`]: images made through the engine's API, without a registry: the sample app and Debian's
//!   nginx.
//! - [`process`]: the built programs as child processes: ready files, logs, signals.
//! - [`cluster`]: one control plane and any number of data planes, and the calls tests make on them.
//! - [`control_plane`]: control planes alone, on any database, and data planes that follow several.
//! - [`engine`]: what the engine really holds, by label.
//! - [`registry`]: a real registry on loopback; [`wire`]: a network before it that is slow or breaks.
//! - [`firewall`]: what the kernel's packet filter really holds, by node.
//! - [`engine_proxy`]: a man in the middle before the engine, which makes it fail on demand;
//!   [`private_engine`]: an engine of a test's own, which it may kill.
//! - [`http_client`]: requests to a proxy under a given host name, and raw bytes for bad ones.
//! - [`grpc`]: a gRPC service with calls of every kind, and its client; [`tls`]: certificates and clients.
//! - [`wait`]: conditions with a deadline, instead of sleeps.
//! - [`stats`]: medians, bounds of chance.
//! - [`cpu`], [`load`], [`chart`]: for benches: cores and what processes use; load; a picture of it.
//! - [`report`]: the `target/bench/*.json` files.
//! - [`paths`]: where the build put things.
//!
//! Everything here is called by tests and by `main`s, so failures are `anyhow` errors for a person to
//! read; [`image`] and [`paths`], which others build upon, have typed ones.

pub mod chart;
pub mod cluster;
pub mod control_plane;
pub mod cpu;
mod debian;
pub mod engine;
pub mod engine_proxy;
pub mod firewall;
pub mod grpc;
pub mod http_client;
pub mod image;
pub mod load;
pub mod paths;
pub mod private_engine;
pub mod process;
pub mod registry;
pub mod report;
pub mod stats;
pub mod tls;
pub mod wait;
pub mod wire;
