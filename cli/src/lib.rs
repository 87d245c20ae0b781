//! The `cless` command line.
//!
//! [`cli`] defines and dispatches the commands in `command`. [`args`] holds the flags they share and
//! [`parse`] the values of flags. [`config`] chooses the control plane and holds the token for it;
//! commands call it through [`client`] and print through [`output`]; [`error`] maps failures to
//! messages and exit codes. `cless dev` runs both planes in this process; all other commands only
//! call gRPC.

mod args;
mod cli;
mod client;
mod command;
mod complete;
mod compose;
mod config;
mod error;
mod file;
mod output;
mod parse;
mod signals;
mod suggest;
mod text;
mod traffic_split;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use cli::Cli;
use config::target::Choice;
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
    clap_complete::CompleteEnv::with_factory(cli::command).complete();
    let mut command = cli::command();
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = matches.and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        let choice = cli.choice(&matches);
        Ok((cli, choice))
    });
    let (cli, choice) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage_error(&error),
    };
    let global = &cli.global;
    let printer = Printer::new(global.output, global.quiet, global.proxy.clone());
    let result = refuse_former_variables().and_then(|()| execute(cli, &choice, &printer));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(printer.error(&error)),
    }
}

fn execute(cli: Cli, choice: &Choice, printer: &Printer) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io {
            operation: "start the runtime".to_owned(),
            source,
        })?;
    let result = runtime.block_on(cli.run(choice, printer));
    // A thread blocked on a prompt must not keep the process alive.
    runtime.shutdown_background();
    result
}

fn refuse_former_variables() -> Result<(), Error> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    match cless_proto::variables::refusal(&cli::former_variables(), is_set) {
        Some(message) => Err(Error::Usage {
            message,
            hint: None,
        }),
        None => Ok(()),
    }
}

/// Prints the error, or the help or version, that clap has in place of arguments.
fn usage_error(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A closed pipe is not a failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let words = std::env::args().skip(1);
    let variable = std::env::var("CLESS_OUTPUT").ok();
    if !asks_for_json(words, variable.as_deref()) {
        let _ = error.print();
        return ExitCode::from(exit::USAGE);
    }
    let message = error.render().to_string();
    // The usage and the pointer to the help are for people.
    let mut parts = message.split("\n\nUsage:");
    let message = parts.next().unwrap_or_default();
    let message = message.split("\n\nFor more information").next();
    let message = message.unwrap_or_default().trim_start_matches("error: ");
    let message = message.trim().to_owned();
    let printer = Printer::new(output::Format::Json, false, String::new());
    ExitCode::from(printer.error(&Error::Usage {
        message,
        hint: None,
    }))
}

/// Whether a command line that cannot be parsed has `-o json`, or else the variable has it.
fn asks_for_json(words: impl Iterator<Item = String>, variable: Option<&str>) -> bool {
    let words: Vec<String> = words.collect();
    let format = words.iter().enumerate().rev().find_map(|(at, word)| {
        let joined = ["--output=", "-o="]
            .iter()
            .find_map(|flag| word.strip_prefix(flag));
        match word.as_str() {
            "-o" | "--output" => words.get(at + 1).map(String::as_str),
            _ => joined.or_else(|| word.strip_prefix("-o").filter(|rest| !rest.is_empty())),
        }
    });
    format.or(variable) == Some("json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unparsable_command_line_still_tells_its_format() {
        let json =
            |words: &str, variable| asks_for_json(words.split(' ').map(str::to_owned), variable);
        assert!(json("service -o json gte", None));
        assert!(json("-ojson", None) && json("--output=json", None) && json("x", Some("json")));
        assert!(!json("-o yaml", Some("json")) && !json("x -o", None));
    }
}
