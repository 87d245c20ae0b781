//! `service`: create, get, list, update, delete.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use cless_proto::v1 as pb;

use crate::args::{ConfirmArgs, DryRunArgs, LimitArgs, ServiceArg, SettingsArgs};
use crate::client::ApiClient;
use crate::complete;
use crate::error::Error;
use crate::output::Printer;
use crate::parse;

/// The `service` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Create a service; `deploy` also creates it
    Create(CreateArgs),
    /// Show a service and its settings
    #[command(visible_alias = "describe")]
    Get(ServiceArg),
    /// List services
    #[command(visible_alias = "ls")]
    List(LimitArgs),
    /// Update settings, hosts or labels
    Update(UpdateArgs),
    /// Delete a service with its versions, traffic and history
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Arguments of `service create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Service name, a DNS label: serves at SERVICE.DOMAIN
    #[arg(value_name = "SERVICE", value_parser = parse::service, add = complete::services())]
    service: String,
    /// Additional host name; may be repeated
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Arguments of `service update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// Add a host name; may be repeated
    #[arg(long, value_name = "HOST")]
    add_host: Vec<String>,
    /// Remove a host name; may be repeated
    #[arg(long, value_name = "HOST")]
    remove_host: Vec<String>,
    /// Set a label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    /// Remove a label; may be repeated
    #[arg(long, value_name = "KEY")]
    remove_label: Vec<String>,
    /// Fail if the service no longer has this etag
    #[arg(long)]
    #[arg(default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Arguments of `service delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    service: ServiceArg,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

pub(crate) async fn run(
    command: ServiceCommand,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        ServiceCommand::Create(args) => create(args, client, printer).await,
        ServiceCommand::Get(service) => printer.show(&client.get_service(&service.id).await?),
        ServiceCommand::List(args) => printer.list(&client.list_services(args.limit).await?),
        ServiceCommand::Update(args) => update(args, client, printer).await,
        ServiceCommand::Delete(args) => delete(args, client, printer).await,
    }
}

async fn create(args: CreateArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
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
    printer.show(&created)?;
    if args.dry_run.dry_run {
        printer.note(&format!("dry run: services/{id} would be created"));
    } else {
        printer.note(&format!(
            "created services/{id}; to run something: cless deploy {id} --image IMAGE"
        ));
    }
    Ok(())
}

async fn update(args: UpdateArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let (settings, mut mask) = args.settings.to_proto();
    let id = &args.service.id;
    let mut service = pb::Service {
        name: format!("services/{id}"),
        etag: args.etag.clone(),
        settings: Some(settings),
        ..Default::default()
    };
    let hosts = !args.add_host.is_empty() || !args.remove_host.is_empty();
    let labels = !args.label.is_empty() || !args.remove_label.is_empty();
    if hosts || labels {
        let current = client.get_service(id).await?;
        if hosts {
            service.hosts = edit_hosts(current.hosts, &args)?;
            mask.push("hosts".to_owned());
        }
        if labels {
            service.labels = edit_labels(current.labels, &args)?;
            mask.push("labels".to_owned());
        }
        // Lists are replaced as a whole, so the etag guards against concurrent changes.
        if service.etag.is_empty() {
            service.etag = current.etag;
        }
    }
    if mask.is_empty() {
        return Err(Error::Usage {
            message: format!("nothing to update on services/{id}"),
            hint: Some(format!(
                "give a setting, as in `cless service update {id} --max-instances 5`"
            )),
        });
    }
    let updated = client
        .update_service(service, mask, args.dry_run.dry_run)
        .await?;
    printer.show(&updated)?;
    if args.dry_run.dry_run {
        printer.note("dry run: nothing was changed");
    }
    Ok(())
}

fn edit_hosts(mut hosts: Vec<String>, args: &UpdateArgs) -> Result<Vec<String>, Error> {
    for host in &args.remove_host {
        let before = hosts.len();
        hosts.retain(|other| !other.eq_ignore_ascii_case(host));
        if hosts.len() == before {
            return Err(missing("--remove-host", host, &args.service.id));
        }
    }
    for host in &args.add_host {
        if !hosts.iter().any(|other| other.eq_ignore_ascii_case(host)) {
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
            return Err(missing("--remove-label", key, &args.service.id));
        }
    }
    labels.extend(args.label.iter().cloned());
    Ok(labels)
}

fn missing(flag: &str, entry: &str, service: &str) -> Error {
    Error::Usage {
        message: format!("{flag}: services/{service} has no `{entry}`"),
        hint: Some(format!("list them with `cless service get {service}`")),
    }
}

async fn delete(args: DeleteArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let id = &args.service.id;
    if !args.confirm.yes {
        let question = format!("Delete services/{id} with its versions, traffic and history?");
        printer.confirm(&question).await?;
    }
    client.delete_service(id, args.confirm.etag).await?;
    printer.deleted(&format!("services/{id}"))
}
