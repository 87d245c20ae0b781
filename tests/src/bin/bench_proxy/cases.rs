//! The cases and their load.

use std::path::Path;

use anyhow::{Context as _, Result};
use cless_tests::cpu;
use cless_tests::load::h2load::Width;
use cless_tests::load::{Run, Target, h2load, tunnel, wrk};

use super::peers::Peer;

/// Host of the service, used with every proxy.
pub(crate) const HOST: &str = "bench.localhost";
/// Bytes of a WebSocket message.
const MESSAGE: usize = 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// HTTP/1.1 requests.
    Http1 { connections: usize },
    /// HTTP/2 requests, with prior knowledge or over TLS.
    Http2 { width: Width },
    /// Unary gRPC calls.
    Grpc { width: Width },
    /// Echoes over WebSockets.
    WebSocket { connections: usize },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) load: Load,
    pub(crate) tls: bool,
    /// Whether requests are logged; these cases have separate proxy processes.
    pub(crate) logs: bool,
}

const fn case(name: &'static str, path: &'static str, load: Load) -> Case {
    Case {
        name,
        path,
        load,
        tls: false,
        logs: false,
    }
}

const fn tls(case: Case) -> Case {
    Case { tls: true, ..case }
}

const fn http1(connections: usize) -> Load {
    Load::Http1 { connections }
}

const fn http2(connections: usize, streams: usize) -> Load {
    Load::Http2 {
        width: Width {
            connections,
            streams,
        },
    }
}

const fn grpc(connections: usize, streams: usize) -> Load {
    Load::Grpc {
        width: Width {
            connections,
            streams,
        },
    }
}

const ECHO: &str = "/bench.Echo/Unary";

/// All cases. A name consists of protocol, size and connections (`x4`: streams per connection).
pub(crate) const CASES: [Case; 15] = [
    case("h1-1k-c32", "/1k", http1(32)),
    case("h1-1k-c256", "/1k", http1(256)),
    case("h1-64k-c32", "/64k", http1(32)),
    case("h1-64k-c256", "/64k", http1(256)),
    case("h2-1k-c32x4", "/1k", http2(32, 4)),
    case("h2-1k-c256", "/1k", http2(256, 1)),
    case("h2-64k-c32x4", "/64k", http2(32, 4)),
    case("h2-64k-c256", "/64k", http2(256, 1)),
    case("grpc-c32x4", ECHO, grpc(32, 4)),
    case("grpc-c256", ECHO, grpc(256, 1)),
    case("ws-1k-c32", "/ws", Load::WebSocket { connections: 32 }),
    case("ws-1k-c256", "/ws", Load::WebSocket { connections: 256 }),
    tls(case("h1-tls-1k-c32", "/1k", http1(32))),
    tls(case("h2-tls-1k-c32x4", "/1k", http2(32, 4))),
    Case {
        logs: true,
        ..case("h1-log-1k-c32", "/1k", http1(32))
    },
];

/// One run of a case on a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) run: Run,
    /// CPU of the proxy in microseconds per request.
    pub(crate) cpu: f64,
    /// Resident memory after the run in MB.
    pub(crate) rss: f64,
}

impl Case {
    pub(crate) async fn run(&self, peer: &Peer, seconds: u64, scratch: &Path) -> Result<Sample> {
        let port = match (self.tls, self.load) {
            (true, _) => peer.ports.tls,
            (false, Load::Http1 { .. } | Load::WebSocket { .. }) => peer.ports.h1,
            (false, Load::Http2 { .. } | Load::Grpc { .. }) => peer.ports.h2c,
        };
        let target = Target {
            address: ([127, 0, 0, 1], port).into(),
            host: HOST,
            path: self.path,
            tls: self.tls,
        };
        let before = cpu::usage(peer.pid)?;
        let run = match self.load {
            Load::Http1 { connections } => wrk::run(target, connections, seconds).await,
            Load::Http2 { width } => h2load::run(target, width, seconds, None, scratch).await,
            Load::Grpc { width } => {
                let message = scratch.join("grpc-message");
                std::fs::write(&message, message_with_prefix(100))?;
                h2load::run(target, width, seconds, Some(&message), scratch).await
            }
            Load::WebSocket { connections } => {
                tunnel::run(target, connections, seconds, MESSAGE).await
            }
        };
        let run = run.with_context(|| format!("{} under {}", peer.racer.name(), self.name))?;
        let after = cpu::usage(peer.pid)?;
        let cpu = after.cpu.saturating_sub(before.cpu);
        Ok(Sample {
            run,
            cpu: cpu.as_secs_f64() * 1e6 / run.requests.max(1) as f64,
            rss: after.rss as f64 / 1e6,
        })
    }
}

fn message_with_prefix(bytes: u8) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, bytes];
    message.resize(message.len() + usize::from(bytes), b'x');
    message
}
