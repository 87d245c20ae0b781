//! Load generators with one thread that check every response.
//!
//! - [`wrk`], [`h2load`]: closed loops by the tools of that name: each connection sends the next
//!   request after a response.
//! - [`open`]: an open loop: requests are due at fixed times and timed from then, so that a stall
//!   counts for every request that it delays.
//! - [`tunnel`]: messages echoed over WebSockets.
//!
//! A run with a single wrong response is an error, not a measurement.

use std::net::SocketAddr;
use std::time::Duration;

use crate::stats::quantile;

pub mod h2load;
pub mod open;
pub mod tunnel;
pub mod wrk;

/// The target of a run.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Address of the proxy.
    pub address: SocketAddr,
    /// Value of the host header.
    pub host: &'a str,
    /// Path with its leading slash.
    pub path: &'a str,
    /// Whether to use TLS; any certificate is accepted.
    pub tls: bool,
}

impl Target<'_> {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.path)
    }
}

/// Results of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Number of responses.
    pub requests: u64,
    /// Responses per second.
    pub rate: f64,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile of the latency.
    pub p99: Duration,
}

impl Run {
    fn of(latencies: &[Duration], took: Duration) -> Self {
        Self {
            requests: latencies.len() as u64,
            rate: latencies.len() as f64 / took.as_secs_f64(),
            p50: quantile(latencies, 0.5),
            p99: quantile(latencies, 0.99),
        }
    }
}
