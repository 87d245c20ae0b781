//! The command line of `cless-control-plane`, here so that the guide's tables are made from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cless_proto::log::LogFormat;

use crate::Options;

/// Owns the state of a cless cluster, serves its gRPC API and streams the route table
#[derive(Debug, Parser)]
#[command(
    name = "cless-control-plane",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Program {
    /// Without one the program serves.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address, database, domain.
    #[command(flatten)]
    pub options: Options,

    /// Log lines.
    #[command(flatten)]
    pub log: Log,

    /// File to write `{"listen": "IP:PORT"}` to once the control plane serves
    #[arg(long, env = "CLESS_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// A task on the database, in place of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mark the database as restored from a backup. Run once after a manual restore, while the
    /// control plane is stopped: data planes then reload the whole route table
    NewEpoch {
        /// The database.
        #[command(flatten)]
        options: Options,

        /// Log lines.
        #[command(flatten)]
        log: Log,
    },

    /// Write a backup of a SQLite database to a file; the control plane may be running
    Backup {
        /// The database.
        #[command(flatten)]
        options: Options,

        /// Log lines.
        #[command(flatten)]
        log: Log,

        /// File to write; it must not exist
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },

    /// Replace a SQLite database by a backup, in a new epoch: data planes then reload the whole
    /// route table. The control plane must be stopped
    Restore {
        /// The database.
        #[command(flatten)]
        options: Options,

        /// Log lines.
        #[command(flatten)]
        log: Log,

        /// The backup file
        #[arg(long, value_name = "FILE")]
        from: PathBuf,

        /// Replace an existing database, which is kept under another name
        #[arg(long)]
        force: bool,
    },
}

/// Log lines.
#[derive(Debug, Args)]
pub struct Log {
    /// How log lines are written to stderr.
    #[arg(long, env = "CLESS_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}
