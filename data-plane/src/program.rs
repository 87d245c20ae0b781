//! The command line of `cless-data-plane`; public, because the tables of the guide come from it.

use std::path::PathBuf;

use clap::Parser;
use cless_proto::log::LogFormat;

use crate::Options;

/// Serves HTTP from containers according to the control plane's route table.
#[derive(Debug, Parser)]
#[command(name = "cless-data-plane", version)]
pub struct Program {
    /// Options of the node.
    #[command(flatten)]
    pub options: Options,

    /// Format of log lines on stderr, which `RUST_LOG` filters (default: info).
    #[arg(
        long,
        env = "CLESS_NODE_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Write `{"listen": "IP:PORT", "admin": "IP:PORT"}` to this file once the node is listening.
    #[arg(long, env = "CLESS_NODE_READY_FILE")]
    pub ready_file: Option<PathBuf>,
}
