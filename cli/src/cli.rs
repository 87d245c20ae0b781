//! The command line as a whole: the list of commands, and the dispatch to each of them.
//!
//! Every flag has an environment variable `CLESS_<FLAG>`. Two flags are exempt because the variable
//! has another meaning: `traffic set --tag` (`deploy --tag` takes a tag alone) and
//! `instance list --node` (`CLESS_NODE` is the name of a data plane).

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::args::GlobalArgs;
use crate::client::ApiClient;
use crate::command::{completion, deploy, dev, node, service, traffic, version};
use crate::error::Error;
use crate::output::Printer;

const AFTER_HELP: &str = "\
Exit codes:
  0    Success
  1    Error
  2    Invalid usage
  4    Permission denied
  5    Not found
  6    Conflict
  7    The new version failed verification; traffic is unchanged
  8    No response in time; the outcome is unknown
  130  Interrupted

Every flag can be set with an environment variable CLESS_<FLAG>, with one value if it is repeatable.
Data is written to stdout; progress, prompts and errors are written to stderr.";

/// Serverless containers on machines you own.
#[derive(Debug, Parser)]
#[command(name = "cless", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// All commands, in the order of `--help`.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run a control plane and a node on this machine, in one process
    Dev(Box<dev::DevArgs>),
    #[command(flatten)]
    Remote(RemoteCommand),
    /// Generate shell completions
    #[command(after_help = "Example: cless completion bash > /etc/bash_completion.d/cless")]
    Completion(completion::CompletionArgs),
}

/// The commands that call a control plane.
#[derive(Debug, Subcommand)]
enum RemoteCommand {
    /// Create a version, verify that it starts, and send traffic to it
    Deploy(Box<deploy::DeployArgs>),
    /// Manage services
    #[command(subcommand)]
    Service(Box<service::ServiceCommand>),
    /// Manage the versions of a service
    #[command(subcommand)]
    Version(Box<version::VersionCommand>),
    /// Manage the traffic split between versions
    #[command(subcommand)]
    Traffic(traffic::TrafficCommand),
    /// Restore an earlier traffic revision
    Rollback(traffic::RollbackArgs),
    /// Show nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Show running instances
    #[command(subcommand)]
    Instance(node::InstanceCommand),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Those of the command, or [`Error::Interrupted`] after SIGINT.
    pub(crate) async fn run(self, printer: &Printer) -> Result<(), Error> {
        let Self { global, command } = self;
        match command {
            // `dev` handles signals itself.
            Command::Dev(args) => dev::run(*args, printer).await,
            Command::Completion(args) => completion::run(&args, &mut Self::command(), printer),
            Command::Remote(command) => tokio::select! {
                result = Box::pin(command.run(global, printer)) => result,
                _ = tokio::signal::ctrl_c() => {
                    Err(Error::Interrupted { hint: printer.take_interrupt_hint() })
                }
            },
        }
    }
}

impl RemoteCommand {
    async fn run(self, global: GlobalArgs, printer: &Printer) -> Result<(), Error> {
        let client = &ApiClient::connect(&global.server, actor(global.actor)).await?;
        match self {
            Self::Deploy(args) => deploy::run(*args, client, printer).await,
            Self::Service(command) => service::run(*command, client, printer).await,
            Self::Version(command) => version::run(*command, client, printer).await,
            Self::Traffic(command) => traffic::run(command, client, printer).await,
            Self::Rollback(args) => traffic::rollback(args, client, printer).await,
            Self::Node(command) => node::run(command, client, printer).await,
            Self::Instance(command) => node::instances(command, client, printer).await,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        fn walk(command: &clap::Command, path: &str) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let exempt = [("traffic set", "tag"), ("instance list", "node")];
                if exempt.contains(&(path, long)) || matches!(long, "help" | "version") {
                    continue;
                }
                let expected = format!("CLESS_{}", long.to_uppercase().replace('-', "_"));
                let env = arg.get_env().and_then(|env| env.to_str());
                assert_eq!(env, Some(expected.as_str()), "{path} --{long}");
            }
            for sub in command.get_subcommands() {
                walk(sub, format!("{path} {}", sub.get_name()).trim());
            }
        }
        walk(&Cli::command(), "");
    }
}
