//! The command line: what can be typed, and its help.
//!
//! Every flag has an environment variable `CLESS_<FLAG>` (a test holds that), except the two that
//! would mean something else there: `traffic set --tag` (`deploy --tag` takes another shape) and
//! `instance list --node` (`CLESS_NODE` is a data plane's own name).

mod settings;
mod spec;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand};

pub(crate) use settings::SettingsArgs;
pub(crate) use spec::SpecArgs;

use crate::command;
use crate::output::Format;

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 error, 2 usage, 4 not allowed, 5 not found, 6 conflict, 7 the new version did not
prove itself and traffic is unchanged, 8 no answer in time and the outcome is unknown, 130 interrupted.

Every flag has an environment variable CLESS_<FLAG>; a flag that may be repeated takes one value
from it. Data goes to stdout; progress, questions and errors go to stderr.";

/// Serverless containers on machines you own.
#[derive(Debug, Parser)]
#[command(name = "cless", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The control plane
    #[arg(long, global = true, env = "CLESS_SERVER", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:7070")]
    pub(crate) server: String,
    /// How data is written to stdout
    #[arg(
        long,
        short,
        global = true,
        env = "CLESS_OUTPUT",
        value_name = "FORMAT"
    )]
    #[arg(value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Who the history says made the change: $USER@hostname unless given
    #[arg(long, global = true, env = "CLESS_ACTOR", value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// Where callers reach the nodes: gives printed addresses their scheme and port
    #[arg(long, global = true, env = "CLESS_PROXY", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8080")]
    pub(crate) proxy: String,
    /// No progress and no notes on stderr
    #[arg(long, short, global = true, env = "CLESS_QUIET")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
}

/// The commands, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a control plane and a node in this process, for this machine alone
    Dev(Box<command::dev::DevArgs>),
    /// Create a version (and its service, if new), prove that it starts, and send it traffic
    Deploy(Box<command::deploy::DeployArgs>),
    /// A name, its hosts and its settings
    #[command(subcommand)]
    Service(Box<command::service::ServiceCommand>),
    /// The immutable versions of a service: an image and how to run it
    #[command(subcommand)]
    Version(Box<command::version::VersionCommand>),
    /// Which share of the requests each version gets
    #[command(subcommand)]
    Traffic(command::traffic::TrafficCommand),
    /// Put an older traffic revision in force again
    Rollback(command::traffic::RollbackArgs),
    /// The machines that run the containers
    #[command(subcommand)]
    Node(command::node::NodeCommand),
    /// The containers that run now
    #[command(subcommand)]
    Instance(command::node::InstanceCommand),
    /// Print the completion script of a shell
    #[command(after_help = "For example: cless completion bash > /etc/bash_completion.d/cless")]
    Completion(command::completion::CompletionArgs),
}

/// For commands that change something after asking.
#[derive(Debug, Args)]
pub(crate) struct YesArgs {
    /// Do not ask
    #[arg(long, short, env = "CLESS_YES")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) yes: bool,
    /// Refuse if the etag is no longer this
    #[arg(
        long,
        env = "CLESS_ETAG",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) etag: String,
}

/// For commands that can be tried out.
#[derive(Debug, Args)]
pub(crate) struct DryRunArgs {
    /// Check everything, change nothing
    #[arg(long, env = "CLESS_DRY_RUN")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) dry_run: bool,
}

/// For lists.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// At most this many; 0: all
    #[arg(long, env = "CLESS_LIMIT", value_name = "N", default_value_t = 0)]
    pub(crate) limit: u32,
}

/// For changes of traffic.
#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    /// Why, for the history
    #[arg(long, env = "CLESS_REASON", value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// DESIGN: every flag has an environment variable `CLESS_<FLAG>`.
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
