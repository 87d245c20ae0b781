//! Control planes without a cluster, on any database, and data planes that follow several of them:
//! for tests and benches of the store.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::access::Access;
use crate::cluster::Api;
use crate::process::{self, Program, flags};
use crate::{http_client, paths};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A loopback address with a port that the system picks.
pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The URL of a SQLite file, which is created if it is missing.
pub fn sqlite(path: &Path) -> String {
    format!("sqlite://{}?mode=rwc", path.display())
}

/// A control plane.
#[derive(Debug)]
pub struct ControlPlane {
    program: Program,
    /// gRPC address.
    pub grpc: SocketAddr,
    /// The access of an administrator.
    pub access: Access,
}

impl ControlPlane {
    /// Starts a control plane without encryption and credentials; log, ready file and state are
    /// `DIR/LABEL.log`, `DIR/LABEL.ready` and `DIR/LABEL.data`.
    pub async fn start(
        dir: &Path,
        label: &str,
        listen: SocketAddr,
        database: &str,
    ) -> Result<Self> {
        Self::start_with(dir, label, listen, database, false).await
    }

    /// Like [`ControlPlane::start`], with encryption and credentials.
    pub async fn start_trusted(
        dir: &Path,
        label: &str,
        listen: SocketAddr,
        database: &str,
    ) -> Result<Self> {
        Self::start_with(dir, label, listen, database, true).await
    }

    async fn start_with(
        dir: &Path,
        label: &str,
        listen: SocketAddr,
        database: &str,
        trusted: bool,
    ) -> Result<Self> {
        let data = dir.join(format!("{label}.data"));
        let mut args = flags(&[
            ("--listen", &listen.to_string()),
            ("--database-url", database),
            ("--data-dir", &data.display().to_string()),
        ]);
        args.extend((!trusted).then(|| "--insecure".to_owned()));
        let path = paths::program("cless-control-plane")?;
        let (program, ready) = Program::serve(&path, args, &[], dir, label).await?;
        let grpc = address(&ready, "listen")?;
        let access = match trusted {
            true => Access::administrator(&data)?,
            false => Access::Insecure,
        };
        Ok(Self {
            program,
            grpc,
            access,
        })
    }

    /// The API over a new connection.
    pub fn api(&self) -> Result<Api> {
        Ok(Api::new(self.access.channel(self.grpc)?))
    }

    /// The process id.
    pub fn pid(&self) -> Result<u32> {
        self.program.pid()
    }

    /// Sends SIGKILL and waits for the exit.
    pub async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// Sends SIGTERM and waits for the clean exit.
    pub async fn stop(mut self) -> Result<()> {
        self.program.stop_cleanly(STOP_TIMEOUT).await
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        self.program.log_tail(lines)
    }
}

/// The API of a control plane that runs with `--insecure`.
pub fn api(grpc: SocketAddr) -> Result<Api> {
    Ok(Api::new(Access::Insecure.channel(grpc)?))
}

/// Runs `cless-control-plane` until it exits; returns its exit code and standard error.
pub async fn run(args: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    run_command(None, args).await
}

/// Like [`run`], with a subcommand.
pub async fn run_command(
    command: Option<&str>,
    args: &[(&str, &str)],
) -> Result<(Option<i32>, String)> {
    let mut program = tokio::process::Command::new(paths::program("cless-control-plane")?);
    program.args(command);
    program.args(flags(args));
    let outcome = process::run(program).await?;
    Ok((outcome.code, outcome.stderr))
}

/// A data plane that follows one of several control planes.
#[derive(Debug)]
pub struct Follower {
    program: Program,
    /// HTTP address of the proxy.
    pub listen: SocketAddr,
    /// Address of metrics and health.
    pub admin: SocketAddr,
}

impl Follower {
    /// Starts a data plane.
    pub async fn start(dir: &Path, name: &str, control_planes: &[SocketAddr]) -> Result<Self> {
        let addresses: Vec<String> = control_planes
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        let args = flags(&[
            ("--listen", &any_port().to_string()),
            ("--admin", &any_port().to_string()),
            ("--control-plane", &addresses.join(",")),
            ("--node", name),
            ("--log-format", "text"),
            ("--cache-dir", &dir.join(name).display().to_string()),
        ]);
        let path = paths::program("cless-data-plane")?;
        let (program, ready) = Program::serve(&path, args, &[], dir, name).await?;
        Ok(Self {
            listen: address(&ready, "listen")?,
            admin: address(&ready, "admin")?,
            program,
        })
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let response = http_client::get(self.admin, "localhost", "/metrics").await?;
        let text = response.text();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("no metric {name} in\n{text}"))?;
        Ok(value.trim().parse()?)
    }

    /// The control plane that it followed last, according to its log; `None` before the first.
    pub fn follows(&self) -> Option<SocketAddr> {
        let log = self.program.log_tail(usize::MAX);
        let line = log
            .lines()
            .rfind(|line| line.contains("following the route feed"))?;
        let (_, address) = line.split_once("http://")?;
        address.split(['/', ' ', '}']).next()?.parse().ok()
    }

    /// Sends SIGTERM and waits for the clean exit.
    pub async fn stop(mut self) -> Result<()> {
        self.program.stop_cleanly(STOP_TIMEOUT).await
    }
}

/// The address under `key` of a ready file; one to connect to, if the program listens on all.
pub(crate) fn address(ready: &Value, key: &str) -> Result<SocketAddr> {
    let text = ready[key].as_str();
    let text = text.with_context(|| format!("the ready file has no `{key}`: {ready}"))?;
    let mut address: SocketAddr = text.parse()?;
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    Ok(address)
}
