//! The command line of `cless-control-plane`; public, because the tables of the guide come from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cless_proto::log::LogFormat;

use crate::Options;

/// Owns the state of a cless cluster, serves its gRPC API and streams the route table
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Program {
    /// A task on the database; `None` serves.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Options of the control plane.
    #[command(flatten)]
    pub options: Options,

    /// Options of logging.
    #[command(flatten)]
    pub log: Log,

    /// File to write `{"listen": "IP:PORT"}` to once the control plane serves
    #[arg(long, env = "CLESS_CONTROL_PLANE_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// A task on the database, in place of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mark the database as restored from a backup. Run once after a manual restore, while the
    /// control plane is stopped: data planes then reload the whole route table
    NewEpoch {
        /// Database and domain.
        #[command(flatten)]
        options: Options,

        /// Options of logging.
        #[command(flatten)]
        log: Log,
    },

    /// Tokens, without a token
    Token {
        /// The task.
        #[command(subcommand)]
        command: TokenCommand,
    },

    /// Replace the authority of the cluster. The first call makes a new one, which nodes and clients
    /// get to know while both are trusted; a call with --finish a day later ends trust in the old one
    RotateCa {
        /// Database, domain and state files.
        #[command(flatten)]
        options: Options,

        /// Options of logging.
        #[command(flatten)]
        log: Log,

        /// End trust in the old authority
        #[arg(long)]
        finish: bool,

        /// With --finish: do not wait until nodes know the new authority. Nodes that do not must join
        /// again
        #[arg(long, requires = "finish")]
        force: bool,
    },

    /// Replace the master key, and seal the keys in the database by the new one. Copy the file
    /// `master-key` to all other control planes afterwards
    RotateKeys {
        /// Database, domain and state files.
        #[command(flatten)]
        options: Options,

        /// Options of logging.
        #[command(flatten)]
        log: Log,
    },

    /// Write a backup of a SQLite database to a file; the control plane may be running
    Backup {
        /// Database and domain.
        #[command(flatten)]
        options: Options,

        /// Options of logging.
        #[command(flatten)]
        log: Log,

        /// File to write; it must not exist
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },

    /// Replace a SQLite database by a backup, in a new epoch: data planes then reload the whole
    /// route table. The control plane must be stopped
    Restore {
        /// Database and domain.
        #[command(flatten)]
        options: Options,

        /// Options of logging.
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

/// A task on tokens, for whoever can use the database and its state files.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token of an administrator and print it, when all others are lost. The control plane
    /// may be running
    New {
        /// Database and domain.
        #[command(flatten)]
        options: Options,

        /// Options of logging.
        #[command(flatten)]
        log: Log,
    },
}

/// Options of logging.
#[derive(Debug, Args)]
pub struct Log {
    /// Format of log lines on stderr; `RUST_LOG` filters them
    #[arg(long, env = "CLESS_CONTROL_PLANE_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}
