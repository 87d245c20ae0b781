//! The command line of `cless-data-plane`, here so that the guide's tables are made from it.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::Options;

/// Serves HTTP from containers, as the control plane's route table says.
#[derive(Debug, Parser)]
#[command(name = "cless-data-plane", version)]
pub struct Program {
    /// Addresses, folders, limits.
    #[command(flatten)]
    pub options: Options,

    /// How logs look, on stderr. `RUST_LOG` says which (default `info`).
    #[arg(long, env = "CLESS_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// Write `{"listen": "IP:PORT", "admin": "IP:PORT"}` to this file once it listens.
    #[arg(long, env = "CLESS_READY_FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
