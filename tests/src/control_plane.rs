//! Control planes alone, on any database, and data planes that follow them: for tests and benches that
//! are about the store.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tonic::transport::Endpoint;

use crate::cluster::Api;
use crate::process::{self, Program};
use crate::{http_client, paths};

const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A port that the system chooses.
pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The URL of a SQLite file, made if it is not there.
pub fn sqlite(path: &Path) -> String {
    format!("sqlite://{}?mode=rwc", path.display())
}

/// A control plane.
#[derive(Debug)]
pub struct ControlPlane {
    program: Program,
    /// Where it serves gRPC.
    pub grpc: SocketAddr,
}

impl ControlPlane {
    /// Starts one; its log and ready file go to `dir` under `label`.
    pub async fn start(
        dir: &Path,
        label: &str,
        listen: SocketAddr,
        database: &str,
    ) -> Result<Self> {
        let ready_file = dir.join(format!("{label}.ready"));
        let _ = std::fs::remove_file(&ready_file);
        let args = flags(&[
            ("--listen", &listen.to_string()),
            ("--database-url", database),
            ("--ready-file", &ready_file.display().to_string()),
        ]);
        let mut program = Program::start("cless-control-plane", &args, dir, label)?;
        let ready = program.ready(&ready_file).await?;
        let grpc = ready["listen"].as_str().context("no address")?.parse()?;
        Ok(Self { program, grpc })
    }

    /// Its API, over a connection of its own.
    pub fn api(&self) -> Result<Api> {
        api(self.grpc)
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.program.pid()
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// SIGTERM, and waits for the clean end.
    pub async fn stop(mut self) -> Result<()> {
        let status = self.program.stop(STOP_WITHIN).await?;
        ensure!(
            status.success(),
            "it ended with {status}: {}",
            self.program.log_tail(20)
        );
        Ok(())
    }

    /// The last lines it wrote.
    pub fn log_tail(&self, lines: usize) -> String {
        self.program.log_tail(lines)
    }
}

/// The API at an address.
pub fn api(grpc: SocketAddr) -> Result<Api> {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}"))?;
    Ok(Api::new(
        endpoint.timeout(Duration::from_secs(30)).connect_lazy(),
    ))
}

/// Runs `cless-control-plane` to its end; returns its exit code and what it wrote to stderr.
pub async fn run(args: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    run_command(None, args).await
}

/// Runs a subcommand of `cless-control-plane`.
pub async fn run_command(
    command: Option<&str>,
    args: &[(&str, &str)],
) -> Result<(Option<i32>, String)> {
    let mut program = tokio::process::Command::new(paths::program("cless-control-plane")?);
    program.args(command);
    for (flag, value) in args {
        program.arg(flag);
        if !value.is_empty() {
            program.arg(value);
        }
    }
    let outcome = process::run(program).await?;
    Ok((outcome.code, outcome.stderr))
}

/// A data plane that follows control planes at several addresses.
#[derive(Debug)]
pub struct Follower {
    program: Program,
    /// Where it proxies.
    pub listen: SocketAddr,
    /// Where its metrics are.
    pub admin: SocketAddr,
}

impl Follower {
    /// Starts one.
    pub async fn start(dir: &Path, name: &str, control_planes: &[SocketAddr]) -> Result<Self> {
        let ready_file = dir.join(format!("{name}.ready"));
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
            ("--ready-file", &ready_file.display().to_string()),
        ]);
        let mut program = Program::start("cless-data-plane", &args, dir, name)?;
        let ready = program.ready(&ready_file).await?;
        let address = |key: &str| -> Result<SocketAddr> {
            Ok(ready[key].as_str().context("no address")?.parse()?)
        };
        Ok(Self {
            listen: address("listen")?,
            admin: address("admin")?,
            program,
        })
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let answer = http_client::get(self.admin, "localhost", "/metrics").await?;
        let text = answer.text();
        for line in text.lines() {
            if let Some(value) = line
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(' '))
            {
                return Ok(value.trim().parse()?);
            }
        }
        bail!("no metric {name} in\n{text}")
    }

    /// The control plane that it followed last, as its log says; none if it has followed none yet.
    pub fn follows(&self) -> Option<SocketAddr> {
        let log = self.program.log_tail(usize::MAX);
        let line = log
            .lines()
            .rfind(|line| line.contains("following the route feed"))?;
        let (_, address) = line.split_once("http://")?;
        address.split('/').next()?.parse().ok()
    }

    /// SIGTERM, and waits for the clean end.
    pub async fn stop(mut self) -> Result<()> {
        let status = self.program.stop(STOP_WITHIN).await?;
        ensure!(
            status.success(),
            "it ended with {status}: {}",
            self.program.log_tail(20)
        );
        Ok(())
    }
}

fn flags(flags: &[(&str, &str)]) -> Vec<String> {
    flags
        .iter()
        .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
        .collect()
}
