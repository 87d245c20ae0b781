//! `version`: create, get, list, verify, delete.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cless_proto::v1 as pb;

use super::reference::resolve;
use super::verify::{self, VerifyFlags};
use crate::args::{ConfirmArgs, DryRunArgs, LimitArgs, ServiceArg, SpecArgs};
use crate::client::{ApiClient, version_name};
use crate::complete;
use crate::error::Error;
use crate::file;
use crate::output::{Printer, version_from_yaml};
use crate::parse::VersionRef;

/// Maximum size of a file of `--file`; a version has 16 KiB of variables and words.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The `version` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum VersionCommand {
    /// Create a version without starting it or sending traffic to it
    Create(Box<CreateArgs>),
    /// Show a version with its verification and its status on each node
    #[command(visible_alias = "describe")]
    Get(VersionArgs),
    /// List versions, newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Verify on every connected node that a version starts
    Verify(VerifyArgs),
    /// Forget what a version's image was resolved to; the next start resolves it again
    ResetImage(ResetImageArgs),
    /// Delete a version that has no traffic and no tag
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A version of a service.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// Version: v3, 3, @latest or @prev [default: the newest]
    #[arg(value_name = "VERSION", add = complete::versions())]
    version: Option<VersionRef>,
}

impl VersionArgs {
    async fn resolve(&self, client: &ApiClient, printer: &Printer) -> Result<i32, Error> {
        let service = &self.service.id;
        if let Some(reference) = self.version {
            return resolve(client, printer, service, reference).await;
        }
        let newest = client.list_versions(service, 1).await?;
        let newest = newest.first().map(|version| version.number);
        newest.ok_or_else(|| Error::Conflict {
            message: format!("services/{service} has no version"),
            hint: format!("create one with `cless deploy {service} --image IMAGE`"),
        })
    }
}

/// Arguments of `version create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// Version in YAML or JSON, as `version get -o yaml` prints it; flags override it; - for stdin
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
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
    #[command(flatten)]
    verify: VerifyFlags,
}

/// Arguments of `version reset-image`.
#[derive(Debug, Args)]
pub(crate) struct ResetImageArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// Version: v3, 3, @latest or @prev
    #[arg(value_name = "VERSION", add = complete::versions())]
    version: VersionRef,
    /// Fail if the version no longer has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `version delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// Version: v3, 3, @latest or @prev
    #[arg(value_name = "VERSION", add = complete::versions())]
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
        VersionCommand::Get(args) => {
            let number = args.resolve(client, printer).await?;
            printer.show(&client.get_version(&args.service.id, number).await?)
        }
        VersionCommand::List(args) => printer.list(
            &client
                .list_versions(&args.service.id, args.limit.limit)
                .await?,
        ),
        VersionCommand::Verify(args) => verify(args, client, printer).await,
        VersionCommand::ResetImage(args) => reset_image(args, client, printer).await,
        VersionCommand::Delete(args) => delete(args, client, printer).await,
    }
}

async fn create(args: CreateArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let id = &args.service.id;
    let dry_run = args.dry_run.dry_run;
    let base = match &args.file {
        Some(file) => read_spec(file)?,
        None => pb::VersionSpec::default(),
    };
    let spec = args.spec.apply(base)?;
    if spec.image.is_empty() {
        return Err(Error::Usage {
            message: "--image is required".to_owned(),
            hint: Some("add it, or give a whole version with --file".to_owned()),
        });
    }
    let version = client.create_version(id, spec, dry_run).await?;
    printer.show(&version)?;
    if dry_run {
        printer.note("dry run: nothing was changed");
    } else {
        printer.note(&format!(
            "created {0} without traffic; to send traffic: cless version verify {id} v{1}, then cless traffic set {id} v{1}=100",
            version.name, version.number
        ));
    }
    Ok(())
}

/// Reads the specification of `--file`.
fn read_spec(path: &Path) -> Result<pb::VersionSpec, Error> {
    let failed = |reason: String| Error::Usage {
        message: format!("--file: {}: {reason}", path.display()),
        hint: None,
    };
    let source = file::open(path).map_err(|error| failed(error.to_string()))?;
    let text = file::read_text(source, MAX_FILE_BYTES).map_err(failed)?;
    version_from_yaml(&text).map_err(failed)
}

async fn verify(args: VerifyArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let service = &args.version.service.id;
    let number = args.version.resolve(client, printer).await?;
    let version = verify::verify(client, printer, service, number, &args.verify).await?;
    printer.show(version.as_ref())
}

async fn reset_image(
    args: ResetImageArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let service = &args.service.id;
    let number = resolve(client, printer, service, args.version).await?;
    let dry_run = args.dry_run.dry_run;
    let version = client
        .reset_version_image(service, number, args.etag, dry_run)
        .await?;
    printer.show(&version)?;
    printer.note(&if dry_run {
        "dry run: nothing was changed".to_owned()
    } else {
        format!(
            "reset the image of {}: the next start resolves it again",
            version.name
        )
    });
    Ok(())
}

async fn delete(args: DeleteArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let service = &args.service.id;
    let number = resolve(client, printer, service, args.version).await?;
    let name = version_name(service, number);
    if !args.confirm.yes {
        printer.confirm(&format!("Delete {name}?")).await?;
    }
    client
        .delete_version(service, number, args.confirm.etag)
        .await?;
    printer.deleted(&name)
}
