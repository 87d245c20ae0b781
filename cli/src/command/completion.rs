//! `completion`: the script a shell loads to complete `cless` commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Error;
use crate::output::Printer;

/// Which shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell that will load it
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs, printer: &Printer) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cless", &mut script);
    printer.data(&String::from_utf8_lossy(&script))
}
