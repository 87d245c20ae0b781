//! `completion`: the script with which a shell completes `cless` commands.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::Error;
use crate::output::Printer;

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell to generate the script for
    shell: Shell,
}

/// Prints the completion script of `command`, the whole command line.
pub(crate) fn run(
    args: &CompletionArgs,
    command: &mut Command,
    printer: &Printer,
) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "cless", &mut script);
    printer.data(&String::from_utf8_lossy(&script))
}
