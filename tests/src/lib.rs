//! Shared code of the end-to-end tests, the demo and the benches.
//!
//! - Set-up: [`cluster`] (a control plane with data planes), [`control_plane`] (control planes
//!   alone), [`access`], [`process`], [`image`], [`registry`], [`private_engine`].
//! - Faults: [`engine_proxy`] in front of the engine, [`wire`] in front of a registry.
//! - Clients: [`http_client`], [`grpc`], [`tls`].
//! - Actual state: [`engine`] (containers and networks by label), [`firewall`] (rules by node).
//! - Benches: [`load`], [`cpu`], [`stats`], [`report`], [`chart`].
//!
//! Callers are tests and `main` functions, so failures are `anyhow` errors for people to read. Only
//! [`image`] and [`paths`], which the other modules build on, have typed errors.

pub mod access;
pub mod chart;
pub mod cluster;
pub mod control_plane;
pub mod cpu;
pub mod debian;
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
