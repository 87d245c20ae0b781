//! One node of a cluster.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::http_client::{self, Answer};
use crate::process::Program;

/// A data plane.
#[derive(Debug)]
pub struct Node {
    /// Its name in the control plane.
    pub name: String,
    /// Where it proxies.
    pub listen: SocketAddr,
    /// Where its metrics and health are.
    pub admin: SocketAddr,
    /// Where it proxies HTTPS, if its set-up says so.
    pub tls: Option<SocketAddr>,
    /// What it is started with besides what every node is.
    pub setup: NodeSetup,
    /// Its process; none while it is down.
    pub(super) program: Option<Program>,
}

/// What a data plane is started with besides what every node is. It counts from its next start on.
#[derive(Debug, Clone, Default)]
pub struct NodeSetup {
    /// Flags.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
}

impl NodeSetup {
    /// With these flags and their values, and an environment as it is.
    pub fn flags(flags: &[&str]) -> Self {
        Self {
            args: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            env: Vec::new(),
        }
    }
}

impl Node {
    /// One GET of `http://HOST/PATH` through this node, on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Result<Answer> {
        http_client::get(self.listen, host, path).await
    }

    /// The id of its process.
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
