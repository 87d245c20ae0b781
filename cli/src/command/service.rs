//! `service`: create, get, list, update, delete.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use cless_proto::v1 as pb;

use crate::args::{DryRunArgs, LimitArgs, SettingsArgs, YesArgs};
use crate::client::Client;
use crate::error::Error;
use crate::output::Printer;
use crate::parse;

/// What to do with services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Reserve a name; `deploy` does it too
    Create(CreateArgs),
    /// Show one, with its settings
    Get(GetArgs),
    /// Show all
    List(LimitArgs),
    /// Change settings, hosts or labels
    Update(UpdateArgs),
    /// Delete one with its versions, its traffic and its history
    Delete(DeleteArgs),
}

/// A new service.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name, a DNS label: answers at NAME.DOMAIN
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    /// One more host that routes to it; may be repeated
    #[arg(long, env = "CLESS_HOST", value_name = "HOST")]
    host: Vec<String>,
    /// A label; may be repeated
    #[arg(long, env = "CLESS_LABEL", value_name = "KEY=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Which service to show.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
}

/// What to change.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    /// One more host; may be repeated
    #[arg(long, env = "CLESS_ADD_HOST", value_name = "HOST")]
    add_host: Vec<String>,
    /// A host that no longer routes to it; may be repeated
    #[arg(long, env = "CLESS_REMOVE_HOST", value_name = "HOST")]
    remove_host: Vec<String>,
    /// A label to set; may be repeated
    #[arg(long, env = "CLESS_LABEL", value_name = "KEY=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    /// A label to take away; may be repeated
    #[arg(long, env = "CLESS_REMOVE_LABEL", value_name = "KEY")]
    remove_label: Vec<String>,
    /// Refuse if the etag is no longer this
    #[arg(
        long,
        env = "CLESS_ETAG",
        default_value = "",
        hide_default_value = true
    )]
    etag: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Which service to delete.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) async fn run(
    command: ServiceCommand,
    client: &Client,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        ServiceCommand::Create(args) => create(args, client, printer).await,
        ServiceCommand::Get(args) => printer.one(&client.get_service(&args.service).await?),
        ServiceCommand::List(args) => printer.list(&client.list_services(args.limit).await?),
        ServiceCommand::Update(args) => update(args, client, printer).await,
        ServiceCommand::Delete(args) => delete(args, client, printer).await,
    }
}

async fn create(args: CreateArgs, client: &Client, printer: &Printer) -> Result<(), Error> {
    let (settings, _) = args.settings.to_proto();
    let service = pb::Service {
        hosts: args.host,
        labels: args.label.into_iter().collect(),
        settings: Some(settings),
        ..Default::default()
    };
    let id = &args.service;
    let created = client
        .create_service(id, service, args.dry_run.dry_run)
        .await?;
    printer.one(&created)?;
    if args.dry_run.dry_run {
        printer.note(&format!(
            "services/{id} would be created; nothing was changed"
        ));
    } else {
        printer.note(&format!(
            "created services/{id}; give it something to run: cless deploy {id} --image IMAGE"
        ));
    }
    Ok(())
}

async fn update(args: UpdateArgs, client: &Client, printer: &Printer) -> Result<(), Error> {
    let (settings, mut mask) = args.settings.to_proto();
    let id = &args.service;
    let mut service = pb::Service {
        name: format!("services/{id}"),
        etag: args.etag.clone(),
        settings: Some(settings),
        ..Default::default()
    };
    let hosts = !args.add_host.is_empty() || !args.remove_host.is_empty();
    let labels = !args.label.is_empty() || !args.remove_label.is_empty();
    if hosts || labels {
        let now = client.get_service(id).await?;
        if hosts {
            service.hosts = edit_hosts(now.hosts, &args)?;
            mask.push("hosts".to_owned());
        }
        if labels {
            service.labels = edit_labels(now.labels, &args)?;
            mask.push("labels".to_owned());
        }
        // Lists are replaced whole, so a change in between must not be lost.
        if service.etag.is_empty() {
            service.etag = now.etag;
        }
    }
    if mask.is_empty() {
        return Err(Error::Usage {
            message: format!("nothing to change on services/{id}"),
            hint: Some(format!(
                "name a setting, as in `cless service update {id} --max-instances 5`"
            )),
        });
    }
    let updated = client
        .update_service(service, mask, args.dry_run.dry_run)
        .await?;
    printer.one(&updated)?;
    if args.dry_run.dry_run {
        printer.note("nothing was changed");
    }
    Ok(())
}

fn edit_hosts(mut hosts: Vec<String>, args: &UpdateArgs) -> Result<Vec<String>, Error> {
    for host in &args.remove_host {
        let before = hosts.len();
        hosts.retain(|have| !have.eq_ignore_ascii_case(host));
        if hosts.len() == before {
            return Err(not_there("--remove-host", host, &args.service));
        }
    }
    for host in &args.add_host {
        if !hosts.iter().any(|have| have.eq_ignore_ascii_case(host)) {
            hosts.push(host.clone());
        }
    }
    Ok(hosts)
}

fn edit_labels(
    mut labels: BTreeMap<String, String>,
    args: &UpdateArgs,
) -> Result<BTreeMap<String, String>, Error> {
    for key in &args.remove_label {
        if labels.remove(key).is_none() {
            return Err(not_there("--remove-label", key, &args.service));
        }
    }
    labels.extend(args.label.iter().cloned());
    Ok(labels)
}

fn not_there(flag: &str, what: &str, service: &str) -> Error {
    Error::Usage {
        message: format!("{flag}: services/{service} has no `{what}`"),
        hint: Some(format!(
            "see what it has with `cless service get {service}`"
        )),
    }
}

async fn delete(args: DeleteArgs, client: &Client, printer: &Printer) -> Result<(), Error> {
    let id = &args.service;
    if !args.yes.yes {
        let question =
            format!("Delete services/{id} with its versions, its traffic and its history?");
        printer.confirm(&question).await?;
    }
    client.delete_service(id, args.yes.etag).await?;
    printer.deleted(&format!("services/{id}"))
}
