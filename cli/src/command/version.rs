//! `version`: create, get, list, verify, delete.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::verify::{self, Verified};
use crate::args::{ConfirmArgs, DryRunArgs, LimitArgs, ServiceArg, SpecArgs};
use crate::client::{ApiClient, version_name};
use crate::error::Error;
use crate::output::Printer;
use crate::parse::{self, VersionRef};

/// The `version` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum VersionCommand {
    /// Create a version without starting it or sending traffic to it
    Create(Box<CreateArgs>),
    /// Show a version with its verification and its status on each node
    Get(VersionArgs),
    /// List versions, newest first
    List(ListArgs),
    /// Verify on every connected node that a version starts
    Verify(VerifyArgs),
    /// Delete a version that has no traffic and no tag
    Delete(DeleteArgs),
}

/// A version of a service.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// Version: v3, 3, @latest or @prev
    #[arg(value_name = "VERSION", default_value = "@latest")]
    version: VersionRef,
}

/// Arguments of `version create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    service: ServiceArg,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Arguments of `version list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    service: ServiceArg,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Arguments of `version verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    version: VersionArgs,
    /// Timeout of the verification
    #[arg(long, env = "CLESS_TIMEOUT", value_name = "DURATION", value_parser = parse::duration)]
    #[arg(default_value = "120s")]
    timeout: Duration,
}

/// Arguments of `version delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// Version: v3, 3, @latest or @prev
    #[arg(value_name = "VERSION")]
    version: VersionRef,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

pub(crate) async fn run(
    command: VersionCommand,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        VersionCommand::Create(args) => create(*args, client, printer).await,
        VersionCommand::Get(VersionArgs { service, version }) => {
            let number = client.resolve(&service.id, version).await?;
            printer.show(&client.get_version(&service.id, number).await?)
        }
        VersionCommand::List(args) => printer.list(
            &client
                .list_versions(&args.service.id, args.limit.limit)
                .await?,
        ),
        VersionCommand::Verify(args) => verify(args, client, printer).await,
        VersionCommand::Delete(args) => delete(args, client, printer).await,
    }
}

async fn create(args: CreateArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let id = &args.service.id;
    let dry_run = args.dry_run.dry_run;
    let version = client
        .create_version(id, args.spec.to_proto()?, dry_run)
        .await?;
    printer.show(&version)?;
    if dry_run {
        printer.note("dry run: nothing was changed");
    } else {
        printer.note(&format!(
            "created {} without traffic; to send traffic: cless traffic set {id} v{}=100",
            version.name, version.number
        ));
    }
    Ok(())
}

async fn verify(args: VerifyArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let VersionArgs { service, version } = args.version;
    let service = &service.id;
    let number = client.resolve(service, version).await?;
    printer.set_interrupt_hint(Some(format!(
        "the verification continues: check it with `cless version get {service} v{number}`"
    )));
    match verify::verify(client, printer, service, number, args.timeout).await? {
        Verified::OnNodes(version) => printer.show(version.as_ref()),
        Verified::NoNodes => Err(Error::Conflict {
            message: format!(
                "{}: no node is connected to verify it",
                version_name(service, number)
            ),
            hint: "start one with `cless-data-plane`, or both planes with `cless dev`".to_owned(),
        }),
    }
}

async fn delete(args: DeleteArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let service = &args.service.id;
    let number = client.resolve(service, args.version).await?;
    let name = version_name(service, number);
    if !args.confirm.yes {
        printer.confirm(&format!("Delete {name}?")).await?;
    }
    client
        .delete_version(service, number, args.confirm.etag)
        .await?;
    printer.deleted(&name)
}
