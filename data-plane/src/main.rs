//! The program `cless-data-plane`: flags, logs, signals.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use cless_proto::log::{self, LogFormat};
use mimalloc::MiMalloc;
use tokio::signal::unix::{SignalKind, signal};

/// A request makes dozens of small allocations on one thread, which mimalloc serves faster.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Serves HTTP from containers according to the control plane's route table.
#[derive(Parser)]
#[command(name = "cless-data-plane", version)]
struct Args {
    #[command(flatten)]
    options: cless_data_plane::Options,

    /// Format of log lines on stderr, which `RUST_LOG` filters (default: info).
    #[arg(long, env = "CLESS_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,

    /// Write `{"listen": "IP:PORT", "admin": "IP:PORT"}` to this file once the node is listening.
    #[arg(long, env = "CLESS_READY_FILE")]
    ready_file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let log = log::Log {
        format: args.log_format,
        filter: log::filter("info"),
        color: std::io::stderr().is_terminal(),
        flatten: false,
    };
    log.start()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let running = cless_data_plane::start(args.options).await?;
    if let Some(path) = &args.ready_file {
        let ready = serde_json::json!({
            "listen": running.proxy_addr().to_string(),
            "tls_listen": running.tls_addr().map(|address| address.to_string()),
            "admin": running.admin_addr().to_string(),
        });
        let partial = path.with_extension("partial");
        std::fs::write(&partial, ready.to_string())
            .and_then(|()| std::fs::rename(&partial, path))
            .with_context(|| format!("cannot write --ready-file {}", path.display()))?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    // A second signal ends the process at once.
    tokio::select! {
        () = running.shutdown() => Ok(()),
        _ = terminate.recv() => anyhow::bail!("ended by a second signal before draining completed"),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted before draining completed"),
    }
}
