//! `completion`: the script with which a shell completes `cless` commands and live names.

use clap::Args;
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::error::Error;
use crate::output::Printer;

/// The variable with which the script asks this program for completions.
pub(crate) const VARIABLE: &str = "COMPLETE";

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell to generate the script for
    shell: Shell,
}

/// Prints the script, which calls this program at each completion.
pub(crate) fn run(args: &CompletionArgs, printer: &Printer) -> Result<(), Error> {
    let name = args.shell.to_string();
    let mut script = Vec::new();
    let written = match Shells::builtins().completer(&name) {
        Some(shell) => shell.write_registration(VARIABLE, "cless", "cless", "cless", &mut script),
        None => Err(std::io::Error::other("not supported")),
    };
    written.map_err(|source| Error::Io {
        operation: format!("write the script for {name}"),
        source,
    })?;
    printer.data(&String::from_utf8_lossy(&script))
}
