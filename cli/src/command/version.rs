//! `version`: create, get, list, verify, delete.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::verify::{self, Proof};
use crate::args::{DryRunArgs, LimitArgs, SpecArgs, YesArgs};
use crate::client::{Client, version_name};
use crate::error::Error;
use crate::output::Printer;
use crate::parse::{self, VersionRef};

/// What to do with the versions of a service.
#[derive(Debug, Subcommand)]
pub(crate) enum VersionCommand {
    /// Create one; it starts nothing and gets no traffic
    Create(Box<CreateArgs>),
    /// Show one: how it runs, its proof, its last failure and cold start by node
    Get(WhichArgs),
    /// Show all, newest first
    List(ListArgs),
    /// Ask every connected node to prove that it starts
    Verify(VerifyArgs),
    /// Delete one that gets no traffic and has no tag
    Delete(DeleteArgs),
}

/// Which version.
#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    /// v3, 3, @latest or @prev
    #[arg(value_name = "VERSION", default_value = "@latest")]
    version: VersionRef,
}

/// A new version.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Whose versions.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Which version to prove.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// How long the nodes may take
    #[arg(long, env = "CLESS_TIMEOUT", value_name = "TIME", value_parser = parse::duration)]
    #[arg(default_value = "120s")]
    timeout: Duration,
}

/// Which version to delete.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    /// v3, 3, @latest or @prev
    #[arg(value_name = "VERSION")]
    version: VersionRef,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) async fn run(
    command: VersionCommand,
    client: &Client,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        VersionCommand::Create(args) => create(*args, client, printer).await,
        VersionCommand::Get(WhichArgs { service, version }) => {
            let number = client.resolve(&service, version).await?;
            printer.one(&client.get_version(&service, number).await?)
        }
        VersionCommand::List(args) => printer.list(
            &client
                .list_versions(&args.service, args.limit.limit)
                .await?,
        ),
        VersionCommand::Verify(args) => verify(args, client, printer).await,
        VersionCommand::Delete(args) => delete(args, client, printer).await,
    }
}

async fn create(args: CreateArgs, client: &Client, printer: &Printer) -> Result<(), Error> {
    let id = &args.service;
    let dry_run = args.dry_run.dry_run;
    let version = client
        .create_version(id, args.spec.to_proto()?, dry_run)
        .await?;
    printer.one(&version)?;
    if dry_run {
        printer.note("nothing was changed");
    } else {
        printer.note(&format!(
            "created {}; it gets no traffic: cless traffic set {id} v{}=100",
            version.name, version.number
        ));
    }
    Ok(())
}

async fn verify(args: VerifyArgs, client: &Client, printer: &Printer) -> Result<(), Error> {
    let WhichArgs { service, version } = args.which;
    let number = client.resolve(&service, version).await?;
    printer.unfinished(Some(format!(
        "the proof goes on: see it with `cless version get {service} v{number}`"
    )));
    match verify::prove(client, printer, &service, number, args.timeout).await? {
        Proof::Verified(version) => printer.one(version.as_ref()),
        Proof::NoNodes => Err(Error::Conflict {
            message: format!(
                "{}: no node is connected to prove it",
                version_name(&service, number)
            ),
            hint: "start one with `cless-data-plane`, or both planes with `cless dev`".to_owned(),
        }),
    }
}

async fn delete(args: DeleteArgs, client: &Client, printer: &Printer) -> Result<(), Error> {
    let number = client.resolve(&args.service, args.version).await?;
    let name = version_name(&args.service, number);
    if !args.yes.yes {
        printer.confirm(&format!("Delete {name}?")).await?;
    }
    client
        .delete_version(&args.service, number, args.yes.etag)
        .await?;
    printer.deleted(&name)
}
