//! The command line: what can be typed, and its help.
//!
//! Every flag has an environment variable `CLESS_<FLAG>` (a test holds that), except the two that
//! would mean something else there: `traffic set --tag` (`deploy --tag` takes another shape) and
//! `instance list --node` (`CLESS_NODE` is a data plane's own name).

mod settings;
mod spec;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

pub(crate) use settings::SettingsArgs;
pub(crate) use spec::SpecArgs;

use crate::output::Format;

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
