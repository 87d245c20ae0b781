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
//! - [`tls`]: certificates; [`access`]: the log; [`traced`]: spans; [`stats`]: counts; [`timing`]: `Server-Timing`.
//! - [`error`]: every answer that cless makes itself.

#[path = "log/access.rs"]
mod access;
#[path = "request/body.rs"]
mod body;
#[path = "request/route.rs"]
mod choose;
mod client;
#[path = "downstream/connection.rs"]
mod connection;
#[path = "request/error.rs"]
mod error;
#[path = "request/context.rs"]
mod exchange;
#[path = "request/h2_websocket.rs"]
mod extended;
#[path = "request/forwarded.rs"]
mod forwarded;
#[path = "wire/h1_framing.rs"]
pub mod framing;
#[cfg(test)]
mod fuzz;
#[path = "wire/write_coalescer.rs"]
mod gather;
#[path = "request/headers.rs"]
mod headers;
#[path = "wire/h2.rs"]
mod http2;
#[path = "wire/incoming.rs"]
mod incoming;
mod ints;
#[path = "wire/vectored_tcp.rs"]
mod joined;
#[path = "event_loop.rs"]
pub(crate) mod listener;
pub mod options;
#[path = "request/dispatch.rs"]
mod send;
pub mod server;
#[path = "request/handler.rs"]
mod service;
pub mod stats;
#[path = "worker/targets.rs"]
mod target;
#[path = "log/server_timing.rs"]
mod timing;
pub mod tls;
#[path = "log/spans.rs"]
mod traced;
#[path = "request/tunnel.rs"]
mod tunnel;
mod upstream;
#[path = "client/timeouts.rs"]
mod watch;
#[path = "downstream/metered_io.rs"]
mod wire;
mod worker;

pub use options::ProxyOptions;
pub use server::{Backing, Proxy, Sockets};
