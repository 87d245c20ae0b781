//! The command line as a whole: the list of commands, and the dispatch to each of them.
//!
//! Only flags about the surroundings of a command have an environment variable: the control plane
//! and its authority, the proxy and the output format. A variable that changes what a command does
//! would act where nobody sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, Parser, Subcommand};
use cless_proto::variables;

use crate::args::{GlobalArgs, LimitArgs, ServiceArg};
use crate::client::{ApiClient, probe};
use crate::command::service::ServiceCommand;
use crate::command::{
    audit, completion, context, deploy, dev, import, login, node, service, status, token, traffic,
    version,
};
use crate::config::store;
use crate::config::target::{self, Choice};
use crate::error::{ConnectAttempt, Error};
use crate::output::Printer;
use crate::signals::Signals;
use crate::{suggest, text};

const AFTER_HELP: &str = "\
Exit codes:
  0    Success
  1    Error
  2    Invalid usage
  4    Permission denied
  5    Not found
  6    Conflict
  7    The new version is not verified; traffic is unchanged
  8    No response in time; the outcome is unknown
  130  Interrupted

Data is written to stdout; progress, prompts and errors are written to stderr.";

const LOGIN_HELP: &str = "\
Example: cless login https://plane.example.org:7070

The first start of a control plane writes the token of an administrator to the
file admin-token in its --data-dir. The token goes to ~/.config/cless/config.toml.";

/// Limit of the search for a name like the one given.
const SUGGEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of names among which it is sought.
const MAX_NAMES: u32 = 1000;
/// Limit of the end of what an interrupted command has begun.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);

/// Serverless containers on machines you own.
#[derive(Debug, Parser)]
#[command(name = "cless", version, after_help = AFTER_HELP, term_width = 80)]
#[command(arg_required_else_help = true)]
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
    /// Store the trust in a control plane and the token for it
    #[command(after_help = LOGIN_HELP)]
    Login(login::LoginArgs),
    /// Remove the token of the current context, or of --context
    Logout,
    /// Manage the control planes that you have logged in to
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Generate shell completions
    #[command(after_help = "Example: cless completion bash > /etc/bash_completion.d/cless")]
    Completion(completion::CompletionArgs),
}

/// The commands that call a control plane.
#[derive(Debug, Subcommand)]
enum RemoteCommand {
    /// Create a version, verify that it starts, and send traffic to it
    Deploy(Box<deploy::DeployArgs>),
    /// Create services and versions from a compose file
    Import(import::ImportArgs),
    /// Manage services
    #[command(subcommand)]
    Service(Box<service::ServiceCommand>),
    /// Manage the versions of a service
    #[command(subcommand)]
    Version(Box<version::VersionCommand>),
    /// Manage the traffic split between versions
    #[command(subcommand)]
    Traffic(traffic::TrafficCommand),
    /// Restore the traffic in force before, a version or a traffic revision
    Rollback(traffic::RollbackArgs),
    /// Show nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Show running instances
    #[command(subcommand)]
    Instance(node::InstanceCommand),
    /// Manage tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show who changed what, and refused calls
    Audit(audit::AuditArgs),
    /// Show services with their traffic, instances and nodes on one screen
    Status(status::StatusArgs),
    /// Short for `service list`
    Ls(LimitArgs),
    /// Short for `instance list`
    Ps(node::ListArgs),
    /// Short for `service get`
    Describe(ServiceArg),
    /// Short for `service delete`
    Rm(service::DeleteArgs),
}

impl Cli {
    /// What the user gave to choose the control plane; a flag is told from a variable.
    pub(crate) fn choice(&self, matches: &ArgMatches) -> Choice {
        let variable = |name| {
            std::env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let is_flag = |id| is_flag(matches, id);
        let servers = variable("CLESS_SERVER");
        let servers = servers.iter().flat_map(|servers| servers.split(','));
        let global = &self.global;
        Choice {
            server_flag: global
                .server
                .iter()
                .filter(|_| is_flag("server"))
                .cloned()
                .collect(),
            context_flag: global.context.clone().filter(|_| is_flag("context")),
            server_variable: servers.map(str::to_owned).collect(),
            context_variable: variable("CLESS_CONTEXT"),
            token: variable("CLESS_TOKEN"),
            fingerprints: variable("CLESS_CA_FINGERPRINT"),
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Those of the command, or [`Error::Interrupted`] after SIGINT.
    pub(crate) async fn run(self, choice: &Choice, printer: &Printer) -> Result<(), Error> {
        let Self { global, command } = self;
        match command {
            // `dev` handles signals itself.
            Command::Dev(args) => dev::run(*args, printer).await,
            Command::Completion(args) => completion::run(&args, printer),
            Command::Login(args) => {
                let mut signals = Signals::new()?;
                tokio::select! {
                    result = Box::pin(login::login(args, actor(global.actor), printer)) => result,
                    () = signals.next() => Err(Error::Interrupted { hints: Vec::new() }),
                }
            }
            Command::Logout => login::logout(choice, printer),
            Command::Context(command) => context::run(command, printer),
            Command::Remote(command) => {
                let mut signals = Signals::new()?;
                let actor = actor(global.actor);
                let target = target::choose(choice, &store::read()?)?;
                let client = tokio::select! {
                    client = ApiClient::connect(&target, actor) => client?,
                    () = signals.next() => return Err(Error::Interrupted { hints: Vec::new() }),
                };
                tokio::select! {
                    result = Box::pin(command.run(&client, printer)) => match result {
                        Err(error) => Err(explain(error, &client).await),
                        ok => ok,
                    },
                    () = signals.next() => {
                        let mut hints: Vec<_> = printer.take_interrupt_hint().into_iter().collect();
                        hints.extend(abandon(&client, &mut signals).await);
                        Err(Error::Interrupted { hints })
                    }
                }
            }
        }
    }
}

/// Whether a global argument is on the command line, at whatever command.
fn is_flag(matches: &ArgMatches, id: &str) -> bool {
    let is_here = matches.value_source(id) == Some(ValueSource::CommandLine);
    let below = matches.subcommand();
    is_here || below.is_some_and(|(_, matches)| is_flag(matches, id))
}

/// Adds what helps and only the control plane, or the server in its place, can tell.
async fn explain(error: Error, client: &ApiClient) -> Error {
    let server = client.server();
    if error.is_unlike_the_api()
        && let Some(found) = probe::identify(server).await
    {
        return Error::Connect {
            attempts: vec![ConnectAttempt {
                server: server.to_string(),
                reason: format!("{found} answers there"),
                is_untrusted: false,
            }],
        };
    }
    let nearest = tokio::time::timeout(SUGGEST_TIMEOUT, suggestion(&error, client));
    let nearest = nearest.await.ok().flatten();
    error.with_hints(nearest.into_iter().collect())
}

/// The existing name most like that of a missing service or node.
async fn suggestion(error: &Error, client: &ApiClient) -> Option<String> {
    let missing = error.missing_resource()?;
    let (collection, rest) = missing.split_once('/')?;
    let id = rest.split('/').next()?;
    let names: Vec<String> = match collection {
        "services" => {
            let services = client.list_services(MAX_NAMES).await.ok()?;
            services.into_iter().map(|service| service.name).collect()
        }
        "nodes" => {
            let nodes = client.list_nodes(MAX_NAMES).await.ok()?;
            nodes.into_iter().map(|node| node.name).collect()
        }
        _ => return None,
    };
    let ids = names.iter().filter_map(|name| name.rsplit('/').next());
    let nearest = suggest::nearest(id, ids)?;
    Some(format!("did you mean `{}`?", text::clean(nearest)))
}

/// Ends the verification that an interrupted command has begun; returns the line about it. Another
/// signal or a timeout ends the attempt.
async fn abandon(client: &ApiClient, signals: &mut Signals) -> Option<String> {
    let result = tokio::select! {
        result = client.abandon() => result.map(|(name, result)| (name, result.is_ok())),
        () = tokio::time::sleep(ABANDON_TIMEOUT) => Some((String::new(), false)),
        () = signals.next() => Some((String::new(), false)),
    };
    let (name, is_cancelled) = result?;
    Some(if is_cancelled {
        format!("the verification of {name} is cancelled")
    } else {
        "the verification may continue until its timeout".to_owned()
    })
}

impl RemoteCommand {
    async fn run(self, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
        match self {
            Self::Deploy(args) => deploy::run(*args, client, printer).await,
            Self::Import(args) => import::run(args, client, printer).await,
            Self::Service(command) => service::run(*command, client, printer).await,
            Self::Version(command) => version::run(*command, client, printer).await,
            Self::Traffic(command) => traffic::run(command, client, printer).await,
            Self::Rollback(args) => traffic::rollback(args, client, printer).await,
            Self::Node(command) => node::run(command, client, printer).await,
            Self::Instance(command) => node::instances(command, client, printer).await,
            Self::Token(command) => token::run(command, client, printer).await,
            Self::Audit(args) => audit::run(args, client, printer).await,
            Self::Status(args) => status::run(args, client, printer).await,
            Self::Ls(args) => service::run(ServiceCommand::List(args), client, printer).await,
            Self::Ps(args) => {
                node::instances(node::InstanceCommand::List(args), client, printer).await
            }
            Self::Describe(service) => {
                service::run(ServiceCommand::Get(service), client, printer).await
            }
            Self::Rm(args) => service::run(ServiceCommand::Delete(args), client, printer).await,
        }
    }
}

/// The command line, whose usage lines show optional flags only as `[OPTIONS]`. Clap itself lists in
/// the usage of an error each optional flag that is set, as if it were required.
pub(crate) fn command() -> clap::Command {
    fn with_plain_usage(command: &mut clap::Command) {
        let usage = command.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim().to_owned();
        *command = std::mem::take(command).override_usage(usage);
        command.get_subcommands_mut().for_each(with_plain_usage);
    }
    let mut command = Cli::command();
    command.build();
    with_plain_usage(&mut command);
    command
}

/// The variables that flags no longer have, each with its replacement. A name that the planes'
/// programs had too names their new variables.
pub(crate) fn former_variables() -> BTreeMap<String, String> {
    let planes = [
        cless_control_plane::program::Program::command(),
        cless_data_plane::program::Program::command(),
    ];
    let planes = planes.map(|plane| (plane.get_name().to_owned(), variables::former(&plane)));
    let mut names = variables::former(&Cli::command());
    for (old, now) in &mut names {
        for (program, former) in &planes {
            if let Some(variable) = former.get(old) {
                now.push_str(&format!(", or for {program} {variable}"));
            }
        }
    }
    names
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
    fn help_fits_80_columns_at_any_depth() {
        let mut commands = vec![command()];
        while let Some(mut command) = commands.pop() {
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                let width = line.chars().count();
                assert!(width <= 80, "{}: {width}: {line}", command.get_name());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn only_surroundings_have_variables() {
        let mut found = std::collections::BTreeSet::new();
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let variables = command.get_arguments().filter_map(clap::Arg::get_env);
            found.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        }
        assert!(
            found.iter().eq([
                "CLESS_CA_FINGERPRINT",
                "CLESS_CONTEXT",
                "CLESS_OUTPUT",
                "CLESS_PROXY",
                "CLESS_SERVER"
            ]),
            "{found:?}"
        );
    }

    #[test]
    fn former_variables_name_what_replaces_them() {
        let former = former_variables();
        let now = |old: &str| former.get(old).map(String::as_str);
        assert_eq!(now("CLESS_CLEAR"), Some("--clear"));
        assert_eq!(
            now("CLESS_IDLE_TIMEOUT"),
            Some("--idle-timeout, or for cless-data-plane CLESS_NODE_IDLE_TIMEOUT")
        );
        assert_eq!(
            now("CLESS_LISTEN"),
            Some(
                "--listen, or for cless-control-plane CLESS_CONTROL_PLANE_LISTEN, \
                 or for cless-data-plane CLESS_NODE_LISTEN"
            )
        );
        for none in ["CLESS_SERVER", "CLESS_VERSION", "CLESS_SERVICE"] {
            assert_eq!(now(none), None);
        }
    }
}
