//! What the end-to-end tests, the demo and the benches of cless share.
//!
//! - [`image`]: images made through the engine's API, without a registry: the sample app and Debian's
//!   nginx.
//! - [`process`]: the built programs as child processes: ready files, logs, signals.
//! - [`cluster`]: one control plane and any number of data planes, and the calls tests make on them.
//! - [`engine`]: what the engine really holds, by label.
//! - [`http_client`]: requests to a proxy under a given host name, and raw bytes for bad ones.
//! - [`wait`]: conditions with a deadline, instead of sleeps.
//! - [`stats`]: medians and binomial bounds.
//! - [`cpu`]: cores, and what processes use of them.
//! - [`report`]: the `target/bench/*.json` files.
//! - [`paths`]: where the build put things.
//!
//! Everything here is called by tests and by `main`s, so failures are `anyhow` errors for a person to
//! read; [`image`] and [`paths`], which others build upon, have typed ones.

pub mod cluster;
pub mod cpu;
pub mod engine;
pub mod http_client;
pub mod image;
pub mod paths;
pub mod process;
pub mod report;
pub mod stats;
pub mod wait;
