//! The HTTP proxy: one request at a time, from its head to the end of both bodies.
//!
//! ```text
//!  listener ─► connection ─► service: own answers ─► choose ─► Pool::admit ─► send ─► body, tunnel
//!     │ limits    │ wire, framing       │ 400, 405, 421   │ 404, 503  │ 503, 504     │ 502, 504
//!     └───────────┴──────────────────── error ────────────┴───────────┴──────────────┘
//! ```
//!
//! - [`server`]: started and drained; [`worker`]: its threads; [`options`]: its flags.
//! - [`listener`], [`connection`]: accepted, TLS, the protocol told apart.
//! - [`wire`]: a connection's bytes, looked at by [`framing`] (PURE: where a request ends, strictly).
//! - [`watch`] (PURE): when a client has cost enough; [`client`]: a connection as its worker knows it.
//! - [`service`]: the walk of a request; [`choose`], [`send`], [`tunnel`] its parts.
//! - [`headers`], [`forwarded`]: PURE: what heads lose and gain; [`extended`]: WebSockets over HTTP/2.
//! - [`exchange`]: one request and its response; [`incoming`], [`body`]: what passes and holds it; [`http2`]: streams.
//! - [`target`], [`upstream`]: a worker's versions, and its connections to instances.
//! - [`tls`]: certificates; [`access`]: the log; [`traced`]: spans; [`timing`]: `Server-Timing`.
//! - [`error`]: every answer that cless makes itself.

mod access;
mod body;
mod choose;
mod client;
mod connection;
mod error;
mod exchange;
mod extended;
mod forwarded;
pub mod framing;
#[cfg(test)]
mod fuzz;
mod gather;
mod headers;
mod http2;
mod incoming;
mod ints;
mod joined;
pub(crate) mod listener;
pub mod options;
mod send;
pub mod server;
mod service;
mod target;
mod timing;
pub mod tls;
mod traced;
mod tunnel;
mod upstream;
mod watch;
mod wire;
mod worker;

pub use options::ProxyOptions;
pub use server::{Backing, Proxy, Sockets};
