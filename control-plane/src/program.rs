//! The command line of `cless-control-plane`, here so that the guide's tables are made from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::Options;

/// Owns the state of a cless cluster, serves its gRPC API and streams the route table.
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

    /// Write `{"listen": "IP:PORT"}` to this file once it serves.
    #[arg(long, env = "CLESS_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// A task on the database, in place of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mark the database as restored from a backup. Run once after a restore done by hand, while
    /// the control plane is stopped: data planes then take the whole route table anew.
    NewEpoch {
        /// The database.
        #[command(flatten)]
        options: Options,

        /// Log lines.
        #[command(flatten)]
        log: Log,
    },

    /// Write a backup of a SQLite database to a file. The control plane may run meanwhile.
    Backup {
        /// The database.
        #[command(flatten)]
        options: Options,

        /// Log lines.
        #[command(flatten)]
        log: Log,

        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },

    /// Put a backup in the place of a SQLite database, in a new epoch: data planes then take the
    /// whole route table anew. The control plane must be stopped.
    Restore {
        /// The database.
        #[command(flatten)]
        options: Options,

        /// Log lines.
        #[command(flatten)]
        log: Log,

        /// The backup.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,

        /// Replace a database that exists; it is kept under another name.
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

/// Format of log lines.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}
