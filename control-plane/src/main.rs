//! The program `cless-control-plane`: logs and signals.

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use cless_control_plane::Options;
use cless_control_plane::program::{Command, Program, TokenCommand};
use cless_proto::log::{self, LogFormat};
use cless_proto::variables;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let program = Program::parse();
    variables::refuse(Program::command());
    match execute(program).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(program: Program) -> anyhow::Result<()> {
    match program.command {
        Some(Command::NewEpoch { options, log }) => {
            start_log(log.log_format)?;
            new_epoch(&options).await
        }
        Some(Command::Token {
            command: TokenCommand::New { options, log },
        }) => {
            start_log(log.log_format)?;
            let token = cless_control_plane::new_admin_token(&options).await?;
            writeln!(std::io::stdout(), "{token}").context("cannot print the token")
        }
        Some(Command::RotateCa {
            options,
            log,
            finish,
            force,
        }) => {
            start_log(log.log_format)?;
            let fingerprint = cless_control_plane::rotate_ca(&options, finish, force).await?;
            if finish {
                tracing::info!(%fingerprint, "the old authority is trusted no more");
            } else {
                tracing::info!(
                    %fingerprint,
                    "the new authority issues certificates, and both are trusted; run `rotate-ca \
                     --finish` in a day"
                );
            }
            Ok(())
        }
        Some(Command::RotateKeys { options, log }) => {
            start_log(log.log_format)?;
            let id = cless_control_plane::rotate_keys(&options).await?;
            tracing::info!(
                id,
                "the master key is replaced; copy it to all other control planes"
            );
            Ok(())
        }
        Some(Command::Backup { options, log, to }) => {
            start_log(log.log_format)?;
            backup(&options, &to).await
        }
        Some(Command::Restore {
            options,
            log,
            from,
            force,
        }) => {
            start_log(log.log_format)?;
            restore(&options, &from, force).await
        }
        None => {
            start_log(program.log.log_format)?;
            run(program.options, program.ready_file.as_deref()).await
        }
    }
}

async fn new_epoch(options: &Options) -> anyhow::Result<()> {
    let epoch = cless_control_plane::new_epoch(options).await?;
    tracing::info!(epoch, "the database has a new epoch");
    Ok(())
}

async fn backup(options: &Options, to: &Path) -> anyhow::Result<()> {
    cless_control_plane::backup(options, to).await?;
    tracing::info!(backup = %to.display(), "the backup is complete, verified and on disk; it does not hold the master key: keep a copy of `master-key` apart from it");
    Ok(())
}

async fn restore(options: &Options, from: &Path, force: bool) -> anyhow::Result<()> {
    let (epoch, replaced) = cless_control_plane::restore(options, from, force).await?;
    match replaced {
        Some(kept) => {
            tracing::info!(epoch, kept = %kept.display(), "restored in a new epoch; the previous database is kept");
        }
        None => tracing::info!(epoch, "restored in a new epoch"),
    }
    Ok(())
}

async fn run(options: Options, ready_file: Option<&Path>) -> anyhow::Result<()> {
    // Before the start, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = tokio::select! {
        started = cless_control_plane::start(options) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Some(path) = ready_file {
        let ready = serde_json::json!({ "listen": running.addr().to_string() });
        let partial = path.with_extension("partial");
        std::fs::write(&partial, ready.to_string())
            .and_then(|()| std::fs::rename(&partial, path))
            .with_context(|| format!("cannot write --ready-file {}", path.display()))?;
    }
    tokio::select! {
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "shutting down"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "shutting down"),
    }
    running.shutdown().await;
    Ok(())
}

/// Starts the log, filtered by `RUST_LOG`.
fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let log = log::Log {
        format,
        filter: log::filter("info,sqlx=warn,sea_orm=warn"),
        color: true,
        flatten: true,
    };
    Ok(log.start()?)
}
