//! The built programs as child processes.
//!
//! Each writes stdout and stderr to a log file and, once it serves, its addresses to a ready file.
//! Dropping a [`Program`] kills the process.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{paths, wait};

/// Includes database migrations on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts the program `name` of this build with its output appended to `DIR/LABEL.log`.
    pub fn start(name: &str, args: &[String], dir: &Path, label: &str) -> Result<Self> {
        Self::start_at(&paths::program(name)?, args, &[], dir, label)
    }

    /// Starts the executable at `path` with additional environment variables.
    pub fn start_at(
        path: &Path,
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
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let child = Command::new(path)
            .args(args)
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.into_owned(),
            child,
            log,
        })
    }

    /// Starts the executable at `path` with `--ready-file` and waits until it serves. Returns the
    /// content of the ready file as well.
    pub async fn serve(
        path: &Path,
        mut args: Vec<String>,
        env: &[(String, String)],
        dir: &Path,
        label: &str,
    ) -> Result<(Self, Value)> {
        let ready_file = dir.join(format!("{label}.ready"));
        // An earlier process may have left its file.
        let _ = std::fs::remove_file(&ready_file);
        args.extend(flags(&[(
            "--ready-file",
            &ready_file.display().to_string(),
        )]));
        let mut program = Self::start_at(path, &args, env, dir, label)?;
        let ready = program.ready(&ready_file).await?;
        Ok((program, ready))
    }

    /// File name of the executable.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id; an error once the process has exited.
    pub fn pid(&self) -> Result<u32> {
        let pid = self.child.id();
        pid.with_context(|| format!("{} has exited", self.name))
    }

    /// Waits for the JSON that the program writes to `ready_file` once it serves.
    pub async fn ready(&mut self, ready_file: &Path) -> Result<Value> {
        let what = format!("{} writes {}", self.name, ready_file.display());
        let outcome = wait::until(&what, READY_TIMEOUT, async || {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} exited at start: {status}", self.name);
            }
            match std::fs::read(ready_file) {
                Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
                Err(_) => Ok(None),
            }
        })
        .await;
        outcome.with_context(|| format!("its log:\n{}", self.log_tail(30)))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid()?)?), signal)?)
    }

    /// Sends SIGKILL and waits for the exit.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends SIGTERM, unless the process has exited, and waits for the exit.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(within).await
    }

    /// Like [`Program::stop`]; an exit code other than 0 is an error.
    pub async fn stop_cleanly(&mut self, within: Duration) -> Result<()> {
        let status = self.stop(within).await?;
        self.check_clean(status)
    }

    /// Waits for the exit.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let exited = timeout(within, self.child.wait()).await;
        Ok(exited.with_context(|| format!("{} does not exit within {within:?}", self.name))??)
    }

    /// Like [`Program::wait`]; an exit code other than 0 is an error.
    pub async fn wait_cleanly(&mut self, within: Duration) -> Result<()> {
        let status = self.wait(within).await?;
        self.check_clean(status)
    }

    fn check_clean(&self, status: ExitStatus) -> Result<()> {
        let log = self.log_tail(30);
        ensure!(
            status.success(),
            "{} exited with {status}\n{log}",
            self.name
        );
        Ok(())
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// The arguments of flags with their values; one without a value has an empty one.
pub(crate) fn flags(flags: &[(&str, &str)]) -> Vec<String> {
    flags
        .iter()
        .flat_map(|(flag, value)| [*flag, *value])
        .filter(|argument| !argument.is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

/// Exit code and output of a program that has exited.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// The standard output; an exit code other than 0 is an error.
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

/// Runs a program until it exits, for at most two minutes.
pub async fn run(mut command: Command) -> Result<Outcome> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(120), command.output())
        .await
        .with_context(|| format!("{command:?} does not exit"))?
        .with_context(|| format!("cannot start {command:?}"))?;
    Ok(Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
