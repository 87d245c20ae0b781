//! `deploy`: create a version (and its service, if new), prove that it starts, then send it traffic.
//!
//! Nothing is left half done that a person would not expect: what can be checked is checked before
//! anything is created, a service created for a version that is then refused is taken away again,
//! and traffic moves last, only to a version that proved itself (or that no node could be asked
//! about).
//!
//! ```text
//! check --traffic -> create service | update settings -> create version -> prove -> traffic -> follow
//!        exit 6                                          exit 2            exit 7, 8  exit 6
//! ```

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use cless_proto::v1 as pb;
use tonic::Code;

use super::propagation;
use super::traffic::TrafficChange;
use super::verify::{self, Proof};
use crate::args::{ReasonArgs, SettingsArgs, SpecArgs};
use crate::client::Client;
use crate::error::Error;
use crate::output::{Format, Printer};
use crate::parse;
use crate::traffic_split::{self, Split};

/// What to deploy, and how far.
#[derive(Debug, Args)]
#[command(after_help = "\
For example:
  cless deploy hello --image hello:2                    all traffic, once it has proved itself
  cless deploy hello --image hello:3 --traffic 10       10 %; the others are scaled in proportion
  cless deploy hello --image hello:4 --no-traffic --tag next    only at next--hello.DOMAIN")]
pub(crate) struct DeployArgs {
    /// The service; created if it is new
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    /// Percent of the traffic it gets; the others are scaled in proportion [default: 100]
    #[arg(long, env = "CLESS_TRAFFIC", value_name = "PERCENT", value_parser = parse::percent)]
    traffic: Option<u32>,
    /// Leave the traffic as it is
    #[arg(long, env = "CLESS_NO_TRAFFIC")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    no_traffic: bool,
    /// A tag for it: it answers at TAG--SVC.DOMAIN, with or without traffic
    #[arg(long, env = "CLESS_TAG", value_name = "TAG")]
    tag: Option<String>,
    /// Do not ask the nodes to prove that it starts
    #[arg(long, env = "CLESS_NO_WAIT")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    no_wait: bool,
    /// How long the nodes may take to prove it
    #[arg(long, env = "CLESS_TIMEOUT", value_name = "TIME", value_parser = parse::duration)]
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
    /// The percent asked for; 0 leaves traffic as it is.
    fn percent(&self) -> Result<u32, Error> {
        match (self.traffic, self.no_traffic) {
            (Some(percent), true) if percent > 0 => Err(Error::Usage {
                message: format!("--traffic {percent}: it does not go with --no-traffic"),
                hint: Some("leave one of them out".to_owned()),
            }),
            (_, true) => Ok(0),
            (percent, false) => Ok(percent.unwrap_or(100)),
        }
    }
}

pub(crate) async fn run(args: DeployArgs, client: &Client, printer: &Printer) -> Result<(), Error> {
    let percent = args.percent()?;
    let spec = args.spec.to_proto()?;
    let id = &args.service;
    let service = prepare(&args, &spec, percent, client, printer).await?;
    let version = create_version(&service, spec, client, printer).await?;
    let number = version.number;
    printer.unfinished(Some(format!(
        "{} is there, and traffic is unchanged: see it with `cless version get {id} v{number}`",
        version.name
    )));
    if args.no_wait {
        printer.note(&format!("{id} v{number}: not proved, because of --no-wait"));
    } else {
        match verify::prove(client, printer, id, number, args.timeout).await? {
            Proof::Verified(_) => {}
            Proof::NoNodes => printer.note(&format!(
                "{id} v{number}: not proved, because no node is connected: start one with `cless-data-plane`"
            )),
        }
    }
    let traffic = send_traffic(&args, &version, percent, client, printer).await?;
    // Read again: it now has its share, its tags and its proof.
    let version = client.get_version(id, number).await?;
    show(&args, &service.service, &version, traffic.as_ref(), printer)
}

/// The service a version is to be created in.
struct Prepared {
    service: pb::Service,
    /// Created by this command: taken away again if the version is refused.
    new: bool,
}

/// Checks what can be checked, then creates the service or changes its settings.
async fn prepare(
    args: &DeployArgs,
    spec: &pb::VersionSpec,
    percent: u32,
    client: &Client,
    printer: &Printer,
) -> Result<Prepared, Error> {
    let id = &args.service;
    let (settings, mask) = args.settings.to_proto();
    let service = match client.get_service(id).await {
        Ok(service) => Some(service),
        Err(error) if error.code() == Some(Code::NotFound) => None,
        Err(error) => return Err(error),
    };
    if percent > 0 && percent < 100 {
        let serves = match service {
            Some(_) => Split::from_targets(&client.get_traffic(id).await?.targets).serves(),
            None => false,
        };
        if !serves {
            return Err(Error::Conflict {
                message: format!(
                    "--traffic {percent}: services/{id} has no traffic yet, so nothing can take the other {} %",
                    100 - percent
                ),
                hint: "leave --traffic out to give it all of it, or use --no-traffic".to_owned(),
            });
        }
    }
    match service {
        Some(service) if mask.is_empty() => Ok(Prepared {
            service,
            new: false,
        }),
        Some(service) => {
            // Settings change at once: only for a version that will not be refused.
            client.create_version(id, spec.clone(), true).await?;
            let change = pb::Service {
                name: service.name,
                settings: Some(settings),
                ..Default::default()
            };
            let service = client.update_service(change, mask, false).await?;
            printer.note(&format!("changed the settings of services/{id}"));
            Ok(Prepared {
                service,
                new: false,
            })
        }
        None => {
            let service = pb::Service {
                settings: Some(settings),
                ..Default::default()
            };
            let service = client.create_service(id, service, false).await?;
            printer.note(&format!("created services/{id}"));
            Ok(Prepared { service, new: true })
        }
    }
}

async fn create_version(
    prepared: &Prepared,
    spec: pb::VersionSpec,
    client: &Client,
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
            if prepared.new && error.code() == Some(Code::InvalidArgument) {
                // The etag keeps a service that someone has used in between.
                let etag = prepared.service.etag.clone();
                if client.delete_service(id, etag).await.is_ok() {
                    printer.note(&format!(
                        "deleted services/{id} again: its version was refused"
                    ));
                }
            }
            Err(error)
        }
    }
}

/// Gives the version its share and its tag, and waits until the nodes follow; `None` if neither
/// was asked for.
async fn send_traffic(
    args: &DeployArgs,
    version: &pb::Version,
    percent: u32,
    client: &Client,
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
            split.give(number, percent)
        };
        let split = split.map_err(|error: traffic_split::Error| Error::Conflict {
            message: format!("--traffic {percent}: {error}"),
            hint: format!(
                "{} is there: set it with `cless traffic set {id}`",
                version.name
            ),
        })?;
        Ok(match &args.tag {
            Some(tag) => split.tag(tag.clone(), number),
            None => split,
        })
    };
    let traffic = change.apply(client, printer, split).await?;
    // The traffic is set; that nodes are slow to follow is worth a word, not a failure.
    match propagation::wait(client, traffic.feed_revision).await {
        Ok(followed) if !followed.pending.is_empty() => printer.note(&format!(
            "not yet in force on {}: see why with `cless node list`",
            followed.pending.join(", ")
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
        // Only its tag reaches a version without traffic.
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
    printer.one_as_row(version, &["SERVICE", "VERSION", "TRAFFIC", "URL"], row)?;
    if printer.format() == Format::Table {
        if url != "-" {
            printer.note(&format!("try it:      curl {url}"));
        }
        match traffic {
            Some(traffic) if version.percent > 0 && traffic.revision > 1 => {
                printer.note(&format!("go back:     cless rollback {id}"));
            }
            Some(_) if version.percent > 0 => {}
            _ => printer.note(&format!(
                "give it traffic: cless traffic set {id} v{number}=100"
            )),
        }
    }
    Ok(())
}
