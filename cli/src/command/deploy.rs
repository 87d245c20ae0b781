//! `deploy`: create a version (and its service, if new), verify that it starts, send it traffic.
//!
//! Checks come before changes, and a new service is deleted again if its version is rejected.
//! Traffic moves last, and only to a version that passed verification. Verification is skipped with
//! `--no-wait` and while no node is connected.
//!
//! ```text
//! check --traffic -> create service or -> create version -> verify -> set traffic -> wait for nodes
//!     exit 6          update settings         exit 2       exit 7, 8     exit 6
//! ```

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use cless_proto::v1 as pb;
use tonic::Code;

use super::propagation;
use super::traffic::TrafficChange;
use super::verify::{self, Verified};
use crate::args::{ReasonArgs, SettingsArgs, SpecArgs};
use crate::client::ApiClient;
use crate::error::Error;
use crate::output::{Format, Printer};
use crate::parse;
use crate::traffic_split::{self, Split};

/// Arguments of `deploy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cless deploy hello --image hello:2                           All traffic, after verification
  cless deploy hello --image hello:3 --traffic 10              10 % of the traffic
  cless deploy hello --image hello:4 --no-traffic --tag next   Only at next--hello.DOMAIN")]
pub(crate) struct DeployArgs {
    /// Service name; the service is created if it does not exist
    #[arg(value_name = "SERVICE", value_parser = parse::service)]
    service: String,
    /// Percentage of traffic for the version; the others scale in proportion [default: 100]
    #[arg(long, env = "CLESS_TRAFFIC", value_name = "PERCENT", value_parser = parse::percent)]
    traffic: Option<u32>,
    /// Leave the traffic unchanged
    #[arg(long, env = "CLESS_NO_TRAFFIC")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    no_traffic: bool,
    /// Tag of the version: serves it at TAG--SERVICE.DOMAIN, even without traffic
    #[arg(long, env = "CLESS_TAG", value_name = "TAG")]
    tag: Option<String>,
    /// Do not verify that the version starts
    #[arg(long, env = "CLESS_NO_WAIT")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    no_wait: bool,
    /// Timeout of the verification
    #[arg(long, env = "CLESS_TIMEOUT", value_name = "DURATION", value_parser = parse::duration)]
    #[arg(default_value = "120s")]
    timeout: Duration,
    #[command(flatten)]
    reason: ReasonArgs,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl DeployArgs {
    /// The percentage for the version; 0 leaves the traffic unchanged.
    fn percent(&self) -> Result<u32, Error> {
        match (self.traffic, self.no_traffic) {
            (Some(percent), true) if percent > 0 => Err(Error::Usage {
                message: format!("--traffic {percent}: cannot be combined with --no-traffic"),
                hint: Some("omit one of them".to_owned()),
            }),
            (_, true) => Ok(0),
            (percent, false) => Ok(percent.unwrap_or(100)),
        }
    }
}

pub(crate) async fn run(
    args: DeployArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let percent = args.percent()?;
    let spec = args.spec.to_proto()?;
    let id = &args.service;
    let service = prepare(&args, &spec, percent, client, printer).await?;
    let version = create_version(&service, spec, client, printer).await?;
    let number = version.number;
    printer.set_interrupt_hint(Some(format!(
        "{} exists and traffic is unchanged: show it with `cless version get {id} v{number}`",
        version.name
    )));
    if args.no_wait {
        printer.note(&format!(
            "{id} v{number}: not verified, because of --no-wait"
        ));
    } else {
        match verify::verify(client, printer, id, number, args.timeout).await? {
            Verified::OnNodes(_) => {}
            Verified::NoNodes => printer.note(&format!(
                "{id} v{number}: not verified, because no node is connected: start one with `cless-data-plane`"
            )),
        }
    }
    let traffic = send_traffic(&args, &version, percent, client, printer).await?;
    // Read again for its percentage, tags and verification.
    let version = client.get_version(id, number).await?;
    show(&args, &service.service, &version, traffic.as_ref(), printer)
}

/// The service of the new version.
struct PreparedService {
    service: pb::Service,
    /// This command created the service and deletes it if the version is rejected.
    is_new: bool,
}

/// Checks `--traffic`, then creates the service or updates its settings.
async fn prepare(
    args: &DeployArgs,
    spec: &pb::VersionSpec,
    percent: u32,
    client: &ApiClient,
    printer: &Printer,
) -> Result<PreparedService, Error> {
    let id = &args.service;
    let (settings, mask) = args.settings.to_proto();
    let service = match client.get_service(id).await {
        Ok(service) => Some(service),
        Err(error) if error.code() == Some(Code::NotFound) => None,
        Err(error) => return Err(error),
    };
    if percent > 0 && percent < 100 {
        let has_traffic = match service {
            Some(_) => Split::from_targets(&client.get_traffic(id).await?.targets).has_traffic(),
            None => false,
        };
        if !has_traffic {
            return Err(Error::Conflict {
                message: format!(
                    "--traffic {percent}: services/{id} has no traffic yet, so no version can take the other {} %",
                    100 - percent
                ),
                hint: "omit --traffic to give the version all traffic, or use --no-traffic"
                    .to_owned(),
            });
        }
    }
    match service {
        Some(service) if mask.is_empty() => Ok(PreparedService {
            service,
            is_new: false,
        }),
        Some(service) => {
            // A rejected version must not change settings, so it is validated first.
            client.create_version(id, spec.clone(), true).await?;
            let change = pb::Service {
                name: service.name,
                settings: Some(settings),
                ..Default::default()
            };
            let service = client.update_service(change, mask, false).await?;
            printer.note(&format!("updated the settings of services/{id}"));
            Ok(PreparedService {
                service,
                is_new: false,
            })
        }
        None => {
            let service = pb::Service {
                settings: Some(settings),
                ..Default::default()
            };
            let service = client.create_service(id, service, false).await?;
            printer.note(&format!("created services/{id}"));
            Ok(PreparedService {
                service,
                is_new: true,
            })
        }
    }
}

async fn create_version(
    prepared: &PreparedService,
    spec: pb::VersionSpec,
    client: &ApiClient,
    printer: &Printer,
) -> Result<pb::Version, Error> {
    let id = prepared.service.name.trim_start_matches("services/");
    let image = spec.image.clone();
    match client.create_version(id, spec, false).await {
        Ok(version) => {
            printer.note(&format!("created {} of {image}", version.name));
            Ok(version)
        }
        Err(error) => {
            if prepared.is_new && error.code() == Some(Code::InvalidArgument) {
                // The etag keeps the service if it was modified meanwhile.
                let etag = prepared.service.etag.clone();
                if client.delete_service(id, etag).await.is_ok() {
                    printer.note(&format!(
                        "deleted services/{id} again: its version was rejected"
                    ));
                }
            }
            Err(error)
        }
    }
}

/// Sets the percentage and the tag of the version and waits until the nodes have applied them;
/// `None` if there is neither.
async fn send_traffic(
    args: &DeployArgs,
    version: &pb::Version,
    percent: u32,
    client: &ApiClient,
    printer: &Printer,
) -> Result<Option<pb::Traffic>, Error> {
    let (id, number) = (&args.service, version.number);
    if percent == 0 && args.tag.is_none() {
        return Ok(None);
    }
    let image = version.spec.as_ref().map_or("", |spec| spec.image.as_str());
    let change = TrafficChange {
        service: id,
        etag: None,
        reason: args
            .reason
            .reason
            .clone()
            .unwrap_or_else(|| format!("deploy v{number}: {image}")),
        dry_run: false,
    };
    let split = |split: Split| {
        let split = if percent == 0 {
            Ok(split)
        } else {
            split.set_share(number, percent)
        };
        let split = split.map_err(|error: traffic_split::Error| Error::Conflict {
            message: format!("--traffic {percent}: {error}"),
            hint: format!(
                "{} exists: send traffic to it with `cless traffic set {id}`",
                version.name
            ),
        })?;
        Ok(match &args.tag {
            Some(tag) => split.set_tag(tag.clone(), number),
            None => split,
        })
    };
    let traffic = change.apply(client, printer, split).await?;
    // The traffic is set, so a slow node is not a failure.
    match propagation::wait(client, traffic.feed_revision).await {
        Ok(propagation) if !propagation.warnings.is_empty() => {
            printer.note(&format!(
                "not yet applied: {}",
                propagation.warnings.join("; ")
            ));
        }
        Ok(propagation) if !propagation.pending.is_empty() => printer.note(&format!(
            "not yet applied on {}: find the cause with `cless node list`",
            propagation.pending.join(", ")
        )),
        Ok(_) | Err(_) => {}
    }
    Ok(Some(traffic))
}

fn show(
    args: &DeployArgs,
    service: &pb::Service,
    version: &pb::Version,
    traffic: Option<&pb::Traffic>,
    printer: &Printer,
) -> Result<(), Error> {
    let (id, number) = (&args.service, version.number);
    let host = &service.default_host;
    let url = match &args.tag {
        // A version without traffic is served only by its tag.
        Some(tag) if version.percent == 0 => printer.url(&format!("{tag}--{host}")),
        None if version.percent == 0 => "-".to_owned(),
        _ => printer.url(host),
    };
    let row = vec![
        id.clone(),
        format!("v{number}"),
        format!("{}%", version.percent),
        url.clone(),
    ];
    printer.show_row(version, &["SERVICE", "VERSION", "TRAFFIC", "URL"], row)?;
    if printer.format() == Format::Table {
        if url != "-" {
            printer.note(&format!("try it:       curl {url}"));
        }
        match traffic {
            Some(traffic) if version.percent > 0 && traffic.revision > 1 => {
                printer.note(&format!("roll back:    cless rollback {id}"));
            }
            Some(_) if version.percent > 0 => {}
            _ => printer.note(&format!(
                "send traffic: cless traffic set {id} v{number}=100"
            )),
        }
    }
    Ok(())
}
