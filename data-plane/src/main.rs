//! `cless-data-plane`: the proxy of one node.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use cless_data_plane::program::{LogFormat, Program};
use mimalloc::MiMalloc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Each request makes and frees some dozens of small pieces of memory on one thread.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let program = Program::parse();
    log_to_stderr(program.log_format);
    match run(program).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(program: Program) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let running = cless_data_plane::start(program.options).await?;
    if let Some(path) = &program.ready_file {
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
    // A second signal ends at once.
    tokio::select! {
        () = running.shutdown() => Ok(()),
        _ = terminate.recv() => anyhow::bail!("ended by a second signal, before draining was done"),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted before draining was done"),
    }
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}
