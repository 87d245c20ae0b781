//! `token`: the tokens of people and programs.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use cless_proto::v1 as pb;

use crate::args::{DryRunArgs, LimitArgs};
use crate::client::ApiClient;
use crate::error::Error;
use crate::output::Printer;
use crate::parse;

/// The `token` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it; it is shown only once
    #[command(after_help = CREATE_HELP)]
    Create(CreateArgs),
    /// List tokens, without their secrets
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Revoke tokens: their calls are refused and their streams end
    Revoke(RevokeArgs),
}

const CREATE_HELP: &str = "\
Example: cless token create deployer --service 'team-*' --expires 90d";

/// The rights of a token; each includes those before it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Reads everything, values of `env` included
    Viewer,
    /// Also changes services, versions and traffic
    Deployer,
    /// Also manages tokens and nodes, and reads the audit log
    Admin,
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Rights of the token
    #[arg(value_name = "ROLE")]
    role: RoleName,
    /// Only these services, such as `web` or `team-*`; may be repeated
    #[arg(long, value_name = "PATTERN")]
    service: Vec<String>,
    /// Hosts that these services may get beside their default ones, such as
    /// `*.example.org`; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "service")]
    host: Vec<String>,
    /// Time until the token expires, such as 90d [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse::positive_duration)]
    expires: Option<Duration>,
    /// Text for people: what uses the token
    #[arg(long, value_name = "TEXT")]
    #[arg(default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `token list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Include tokens that are revoked or have expired
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Arguments of `token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Ids of the tokens, as `token list` shows them
    #[arg(value_name = "TOKEN", required = true)]
    tokens: Vec<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

pub(crate) async fn run(
    command: TokenCommand,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        TokenCommand::Create(args) => create(args, client, printer).await,
        TokenCommand::List(args) => {
            let tokens = client.list_tokens(args.limit.limit, args.all).await?;
            printer.list(&tokens)
        }
        TokenCommand::Revoke(args) => {
            for token in &args.tokens {
                let id = token.strip_prefix("tokens/").unwrap_or(token);
                let name = format!("tokens/{id}");
                let dry = args.dry_run.dry_run;
                let revoked = client.revoke_token(&name, dry).await?;
                printer.changed(if dry { "would revoke" } else { "revoked" }, &revoked.name)?;
            }
            Ok(())
        }
    }
}

async fn create(args: CreateArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    use pb::token::Role;
    let role = match args.role {
        RoleName::Viewer => Role::Viewer,
        RoleName::Deployer => Role::Deployer,
        RoleName::Admin => Role::Admin,
    };
    let scope = (!args.service.is_empty()).then_some(pb::token::Scope {
        services: args.service,
        hosts: args.host,
    });
    let token = pb::Token {
        role: role.into(),
        scope,
        description: args.description,
        ..Default::default()
    };
    let dry = args.dry_run.dry_run;
    let created = client.create_token(token, args.expires, dry).await?;
    if dry {
        printer.note("the token can be created");
        return Ok(());
    }
    printer.show(&created)?;
    printer.note("keep it: it is not shown again");
    Ok(())
}
