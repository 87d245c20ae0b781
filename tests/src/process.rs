//! The built programs as child processes.
//!
//! Each writes stdout and stderr to a log file and, once it serves, its addresses to a ready file.
//! A program that is dropped is killed.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{paths, wait};

/// How long a program may take to serve: migrations, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `name` with its output appended to `DIR/LABEL.log`.
    pub fn start(name: &str, args: &[String], dir: &Path, label: &str) -> Result<Self> {
        Self::start_in(name, args, &[], dir, label)
    }

    /// The same, with more in its environment.
    pub fn start_in(
        name: &str,
        args: &[String],
        env: &[(String, String)],
        dir: &Path,
        label: &str,
    ) -> Result<Self> {
        let log = dir.join(format!("{label}.log"));
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)?;
        let child = Command::new(paths::program(name)?)
            .args(args)
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// What was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, until it has been seen to end.
    pub fn pid(&self) -> Result<u32> {
        let pid = self.child.id();
        pid.with_context(|| format!("{} has ended", self.name))
    }

    /// Waits for the JSON the program writes to `ready_file` once it serves.
    pub async fn ready(&mut self, ready_file: &Path) -> Result<Value> {
        let what = format!("{} writes {}", self.name, ready_file.display());
        let outcome = wait::until(&what, READY_WITHIN, async || {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at start: {status}", self.name);
            }
            match std::fs::read(ready_file) {
                Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
                Err(_) => Ok(None),
            }
        })
        .await;
        outcome.with_context(|| format!("its log:\n{}", self.log_tail(30)))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid()?)?), signal)?)
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.end(within).await
    }

    /// Waits for the end of a program that was told to end.
    pub async fn end(&mut self, within: Duration) -> Result<ExitStatus> {
        let ended = timeout(within, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not end within {within:?}", self.name))??)
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last lines it wrote.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// What a program that ran to its end said.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Outcome {
    /// Its stdout, if it ended with 0.
    pub fn ok(self) -> Result<String> {
        if self.code != Some(0) {
            bail!(
                "exit code {:?}\nstdout: {}\nstderr: {}",
                self.code,
                self.stdout,
                self.stderr
            );
        }
        Ok(self.stdout)
    }
}

/// Runs a program to its end, for at most two minutes.
pub async fn run(mut command: Command) -> Result<Outcome> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(120), command.output())
        .await
        .with_context(|| format!("{command:?} does not end"))?
        .with_context(|| format!("cannot start {command:?}"))?;
    Ok(Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
