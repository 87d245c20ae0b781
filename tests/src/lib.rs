//! Shared code of the end-to-end tests, the demo and the benches.
//!
//! - [`image`]: images built through the engine's API without a registry: the sample app, Debian's
//!   nginx and others.
//! - [`process`]: the built programs as child processes: ready files, logs, signals.
//! - [`cluster`]: a control plane with any number of data planes, and the API calls of tests.
//! - [`control_plane`]: control planes alone, on any database, and data planes that follow several.
//! - [`engine`]: the actual containers and networks of the engine, by label.
//! - [`registry`]: a real registry on loopback; [`wire`]: a slow or broken network in front of it.
//! - [`firewall`]: the actual packet filter rules of the kernel, by node.
//! - [`engine_proxy`]: a fault-injecting proxy in front of the engine; [`private_engine`]: an
//!   engine that a test may kill.
//! - [`http_client`]: requests to a proxy under a given host name, and raw bytes for malformed
//!   ones.
//! - [`grpc`]: a gRPC service with calls of every kind, and its client; [`tls`]: certificates and
//!   TLS clients.
//! - [`wait`]: conditions with a deadline, instead of sleeps.
//! - [`stats`]: medians and confidence bounds.
//! - [`cpu`], [`load`], [`chart`]: for benches: CPU affinity and usage, load generators, bar
//!   charts.
//! - [`report`]: the `target/bench/*.json` files.
//! - [`paths`]: locations of build results.
//!
//! Callers are tests and `main` functions, so failures are `anyhow` errors for people to read. Only
//! [`image`] and [`paths`], which the other modules build on, have typed errors.

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
