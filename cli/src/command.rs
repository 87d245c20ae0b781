//! The commands, one file per group, and what they share: who acts, and how a signal ends them.

pub(crate) mod completion;
pub(crate) mod deploy;
pub(crate) mod dev;
pub(crate) mod node;
mod prove;
pub(crate) mod service;
pub(crate) mod traffic;
pub(crate) mod version;

use crate::args::{Cli, Command, GlobalArgs};
use crate::client::Client;
use crate::error::Error;
use crate::output::Printer;

/// Runs the command; a signal from the terminal ends it with what is left half done.
///
/// # Errors
/// Whatever the command met.
pub(crate) async fn run(cli: Cli, printer: &Printer) -> Result<(), Error> {
    let Cli { global, command } = cli;
    match command {
        // It has its own way with signals.
        Command::Dev(args) => dev::run(*args, printer).await,
        Command::Completion(args) => completion::run(&args, printer),
        command => tokio::select! {
            result = Box::pin(remote(&global, command, printer)) => result,
            _ = tokio::signal::ctrl_c() => {
                Err(Error::Interrupted { left: printer.take_unfinished() })
            }
        },
    }
}

/// The commands that talk to a control plane.
async fn remote(global: &GlobalArgs, command: Command, printer: &Printer) -> Result<(), Error> {
    let client = Client::connect(&global.server, actor(global.actor.clone())).await?;
    let client = &client;
    match command {
        Command::Deploy(args) => deploy::run(*args, client, printer).await,
        Command::Service(command) => service::run(*command, client, printer).await,
        Command::Version(command) => version::run(*command, client, printer).await,
        Command::Traffic(command) => traffic::run(command, client, printer).await,
        Command::Rollback(args) => traffic::rollback(args, client, printer).await,
        Command::Node(command) => node::run(command, client, printer).await,
        Command::Instance(command) => node::instances(command, client, printer).await,
        Command::Dev(_) | Command::Completion(_) => unreachable!("they need no control plane"),
    }
}

/// `--actor`, or `$USER@hostname`.
fn actor(given: Option<String>) -> String {
    given.unwrap_or_else(|| {
        let user = ["USER", "LOGNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok());
        let user = user.filter(|user| !user.is_empty());
        let user = user.unwrap_or_else(|| format!("uid-{}", nix::unistd::getuid()));
        let host = nix::unistd::gethostname()
            .ok()
            .and_then(|host| host.into_string().ok());
        match host {
            Some(host) => format!("{user}@{host}"),
            None => user,
        }
    })
}
