//! `context`: the control planes that this user has logged in to.

use clap::{Args, Subcommand};

use crate::complete;
use crate::config::store;
use crate::error::Error;
use crate::output::{ContextEntry, Printer};

/// The `context` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List contexts
    #[command(visible_alias = "ls")]
    List,
    /// Make a context the one of commands that name none
    Use(NameArg),
    /// Remove a context with its token
    #[command(visible_alias = "rm")]
    Remove(NameArg),
}

/// The context that a command is about.
#[derive(Debug, Args)]
pub(crate) struct NameArg {
    /// Name of the context
    #[arg(value_name = "NAME", add = complete::contexts())]
    name: String,
}

pub(crate) fn run(command: ContextCommand, printer: &Printer) -> Result<(), Error> {
    match command {
        ContextCommand::List => {
            let config = store::read()?;
            let entries = config.contexts().map(|(name, context)| ContextEntry {
                name: name.to_string(),
                current: config.current() == Some(name),
                servers: context.servers.iter().map(ToString::to_string).collect(),
                ca_fingerprints: context.pins.iter().map(ToString::to_string).collect(),
                token: context
                    .token
                    .as_ref()
                    .map(|token| format!("tokens/{}", token.id())),
            });
            printer.contexts(&entries.collect::<Vec<_>>())
        }
        ContextCommand::Use(NameArg { name }) => {
            let name = store::file()?.change(|config| Ok(config.use_context(&name)?))?;
            printer.note(&format!("the context `{name}` is current"));
            Ok(())
        }
        ContextCommand::Remove(NameArg { name }) => {
            let (name, is_none_current) = store::file()?.change(|config| {
                let name = config.remove(&name)?;
                Ok((name, config.current().is_none()))
            })?;
            printer.note(&format!("removed the context `{name}`"));
            if is_none_current {
                printer.note("no context is current: choose one with `cless context use NAME`");
            }
            Ok(())
        }
    }
}
