//! Load on a proxy from one thread, with every status checked.
//!
//! - [`wrk`], [`h2load`]: the tools of that name, for closed loops: each connection asks again once it
//!   is answered.
//! - [`open`]: requests that are due at fixed times, answered or not. Each is timed from when it was
//!   due, so that a stall is seen by all that it delays.
//! - [`tunnel`]: messages echoed over WebSockets.
//!
//! A run in which one answer is not what it should be is an error, not a number.

use std::net::SocketAddr;
use std::time::Duration;

use crate::stats::quantile;

pub mod h2load;
pub mod open;
pub mod tunnel;
pub mod wrk;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The proxy.
    pub address: SocketAddr,
    /// The host it is asked for.
    pub host: &'a str,
    /// The path, with its slash.
    pub path: &'a str,
    /// Over TLS, whatever certificate is shown.
    pub tls: bool,
}

impl Target<'_> {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.path)
    }
}

/// What one run saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered a second.
    pub rate: f64,
    /// Half were answered within this.
    pub p50: Duration,
    /// 99 in 100 were.
    pub p99: Duration,
}

impl Run {
    /// Of the latencies of all requests, answered within `took`.
    fn of(latencies: &[Duration], took: Duration) -> Self {
        Self {
            requests: latencies.len() as u64,
            rate: latencies.len() as f64 / took.as_secs_f64(),
            p50: quantile(latencies, 0.5),
            p99: quantile(latencies, 0.99),
        }
    }
}
