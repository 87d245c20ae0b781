//! Groups of flags that several commands share.

mod settings;
mod spec;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

pub(crate) use settings::SettingsArgs;
pub(crate) use spec::SpecArgs;

use crate::output::Format;
use crate::parse;

/// The flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// URL of the control plane
    #[arg(long, global = true, env = "CLESS_SERVER", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:7070")]
    pub(crate) server: String,
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
    #[arg(long, global = true, env = "CLESS_ACTOR", value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// URL of the nodes' proxy; printed service URLs take its scheme and port
    #[arg(long, global = true, env = "CLESS_PROXY", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8080")]
    pub(crate) proxy: String,
    /// Suppress progress and notes
    #[arg(long, short, global = true, env = "CLESS_QUIET")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
}

/// The service that a command is about.
#[derive(Debug, Args)]
pub(crate) struct ServiceArg {
    /// Service name
    #[arg(value_name = "SERVICE", value_parser = parse::service)]
    pub(crate) id: String,
}

/// The flags of commands that delete.
#[derive(Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// Do not ask for confirmation
    #[arg(long, short, env = "CLESS_YES")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) yes: bool,
    /// Fail if the resource no longer has this etag
    #[arg(long, env = "CLESS_ETAG")]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) etag: String,
}

/// The flag of commands that can validate without a change.
#[derive(Debug, Args)]
pub(crate) struct DryRunArgs {
    /// Validate the request without changing anything
    #[arg(long, env = "CLESS_DRY_RUN")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) dry_run: bool,
}

/// The flag of lists.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Maximum number of results, 0 for all
    #[arg(long, env = "CLESS_LIMIT", value_name = "N", default_value_t = 0)]
    pub(crate) limit: u32,
}

/// The flag of traffic changes.
#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    /// Reason recorded in the traffic history
    #[arg(long, env = "CLESS_REASON", value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}
