//! The `cless` command line.
//!
//! [`args`] says what can be typed, [`parse`] understands single values, `command` does the work
//! over [`client`], [`output`] prints, and [`error`] maps whatever went wrong to messages and the
//! exit code. `cless dev` runs both planes in this process; every other command only talks gRPC.

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

/// The command line as clap has it, for the guide.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process; the exit code is the program's.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with 0, errors to stderr with 2; a closed pipe is no failure.
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
            doing: "start the runtime".to_owned(),
            source,
        })
        .and_then(|runtime| {
            let result = runtime.block_on(cli.run(&printer));
            // A thread that waits for an answer on the terminal must not hold the process.
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
