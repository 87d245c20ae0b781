//! One node of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::http_client::{self, FullResponse};
use crate::process::Program;

/// A data plane.
#[derive(Debug)]
pub struct Node {
    /// Its name in the control plane.
    pub name: String,
    /// HTTP address of the proxy.
    pub listen: SocketAddr,
    /// Address of metrics and health.
    pub admin: SocketAddr,
    /// HTTPS address of the proxy; `None` if its flags do not enable it.
    pub tls: Option<SocketAddr>,
    /// Options beyond those that every node gets.
    pub setup: NodeSetup,
    /// Its process; `None` while it is down.
    pub(super) program: Option<Program>,
}

/// Options of a node beyond those that every node gets. A change applies from the next start.
#[derive(Debug, Clone, Default)]
pub struct NodeSetup {
    /// Executable; `None` for the `cless-data-plane` of this build.
    pub program: Option<PathBuf>,
    /// Additional flags.
    pub args: Vec<String>,
    /// Additional environment variables.
    pub env: Vec<(String, String)>,
}

impl NodeSetup {
    /// Sets flags with their values; everything else is default.
    pub fn flags(flags: &[&str]) -> Self {
        Self {
            args: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..Self::default()
        }
    }
}

impl Node {
    /// Sends a GET of `http://HOST/PATH` through this node on a new connection.
    pub async fn get(&self, host: &str, path: &str) -> Result<FullResponse> {
        http_client::get(self.listen, host, path).await
    }

    /// The process id.
    pub fn pid(&self) -> Result<u32> {
        self.program.as_ref().context("the node is down")?.pid()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.program
            .as_ref()
            .context("the node is down")?
            .signal(signal)
    }
}
