//! The `cless` command line.
//!
//! [`cli`] defines and dispatches the commands in `command`. [`args`] holds the flags they share and
//! [`parse`] the values of flags. Commands call the control plane through [`client`] and print
//! through [`output`]; [`error`] maps failures to messages and exit codes. `cless dev` runs both
//! planes in this process; all other commands only call gRPC.

mod args;
mod cli;
mod client;
mod command;
mod error;
mod output;
mod parse;
mod text;
mod traffic_split;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use cli::Cli;
use error::{Error, exit};
use output::Printer;

/// The command line as clap knows it, for the tables of the guide.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is not a failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    let global = &cli.global;
    let printer = Printer::new(global.output, global.quiet, global.proxy.clone());
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io {
            operation: "start the runtime".to_owned(),
            source,
        })
        .and_then(|runtime| {
            let result = runtime.block_on(cli.run(&printer));
            // A thread blocked on a prompt must not keep the process alive.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            let report = error.report();
            printer.report(&report);
            ExitCode::from(report.exit)
        }
    }
}
