//! The HTTP proxy: from the connection of a client to an instance and back.
//!
//! ```text
//!  server ─► event_loop ─► downstream ─► request ─► upstream ─► wire
//!                              │            ├─────► log          ▲
//!                              └────────────┴────────────────────┘
//! ```
//!
//! Imports follow the arrows and never point back:
//!
//! - [`server`], [`event_loop`]: the threads, and the loop that each of them runs.
//! - [`downstream`]: connections of clients. It gives each request to [`request`].
//! - [`request`]: one request, from its head to the end of both bodies.
//! - [`upstream`]: connections to instances, generic over the request body.
//! - [`wire`]: codecs that both sides share. [`log`]: records of finished requests.
//!
//! State lies below the code that uses it: [`worker`] holds what requests and connections of a
//! thread share, [`client`] one client's connection, [`peers`] the messages between workers.
//! [`options`], [`conn_limits`], [`sockets`] and [`tls`] import nothing of the proxy.

mod client;
mod conn_limits;
mod downstream;
mod event_loop;
#[cfg(test)]
mod fuzz;
mod log;
pub mod options;
mod peers;
mod request;
pub mod server;
mod sockets;
pub mod tls;
mod upstream;
mod wire;
mod worker;

pub use options::ProxyOptions;
pub use server::{Proxy, ProxyDependencies};
pub use sockets::Sockets;
