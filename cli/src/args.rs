//! Groups of flags that several commands share.

mod settings;
mod spec;

use clap::Args;

pub(crate) use settings::SettingsArgs;
pub(crate) use spec::SpecArgs;

use crate::complete;
use crate::output::Format;
use crate::parse;

/// The flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// URL of the control plane; of several, separated by commas, the first that responds
    /// [default: that of the context, else http://127.0.0.1:7070]
    #[arg(long, global = true, env = "CLESS_SERVER", value_name = "URL")]
    #[arg(value_delimiter = ',')]
    pub(crate) server: Vec<String>,
    /// Control plane that `cless login` stored under this name [default: the current context]
    #[arg(long, global = true, env = "CLESS_CONTEXT", value_name = "NAME")]
    #[arg(add = complete::contexts())]
    pub(crate) context: Option<String>,
    /// Output format
    #[arg(
        long,
        short,
        global = true,
        env = "CLESS_OUTPUT",
        value_name = "FORMAT"
    )]
    #[arg(value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Name recorded in the traffic history [default: $USER@hostname]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// URL of the nodes' proxy; printed service URLs take its scheme and port
    #[arg(long, global = true, env = "CLESS_PROXY", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8080")]
    pub(crate) proxy: String,
    /// Suppress progress and notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// The service that a command is about.
#[derive(Debug, Args)]
pub(crate) struct ServiceArg {
    /// Service name
    #[arg(value_name = "SERVICE", value_parser = parse::service, add = complete::services())]
    pub(crate) id: String,
}

/// The flags of commands that delete.
#[derive(Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// Do not ask for confirmation
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Fail if the resource no longer has this etag
    #[arg(long)]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) etag: String,
}

/// The flag of commands that can validate without a change.
#[derive(Debug, Args)]
pub(crate) struct DryRunArgs {
    /// Validate the request without changing anything
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The flag of lists.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Maximum number of results, 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) limit: u32,
}

/// The flag of traffic changes.
#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    /// Reason recorded in the traffic history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}
