//! `deploy`: create a version (and its service, if new), verify that it starts, send it traffic.
//!
//! A version takes over all that no flag changes from the version with the largest share of the
//! traffic. Checks come before changes, and a new service is deleted again if its version is
//! rejected. Traffic moves last, and only to a verified version; only `--no-wait` skips this.
//!
//! ```text
//! read source, -> create service or -> create version -> verify -> set traffic -> wait for nodes
//! check flags     update settings         exit 2       exit 7, 8     exit 6
//! ```

use clap::Args;
use cless_proto::v1 as pb;
use tonic::Code;

use super::propagation;
use super::reference::{largest, resolve};
use super::traffic::TrafficChange;
use super::verify::{self, VerifyFlags};
use crate::args::{ReasonArgs, SettingsArgs, SpecArgs};
use crate::client::ApiClient;
use crate::complete;
use crate::error::Error;
use crate::output::{Format, Printer, resolution_changed, spec_changes};
use crate::parse::{self, VersionRef};
use crate::text;
use crate::traffic_split::{self, Split};

/// Number of versions among which the source is sought while the service has no traffic.
const RECENT: u32 = 50;

/// Arguments of `deploy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Everything that no flag changes is taken from the version with the largest
share of the traffic; the change is printed.

Examples:
  cless deploy hello --image hello:2               All traffic, once verified
  cless deploy hello --image hello:3 --traffic 10  10 % of the traffic
  cless deploy hello -e LEVEL=debug -e OLD-        Same image, other variables
  cless deploy hello --from v3                     As v3, once more
  cless deploy hello --image hello:4 --no-traffic --tag next
                                                   Only at next--hello.DOMAIN")]
pub(crate) struct DeployArgs {
    /// Service name; the service is created if it does not exist
    #[arg(value_name = "SERVICE", value_parser = parse::service, add = complete::services())]
    service: String,
    /// Percentage of traffic for the version; the others scale in proportion [default: 100]
    #[arg(long, value_name = "PERCENT", value_parser = parse::percent)]
    traffic: Option<u32>,
    /// Leave the traffic unchanged
    #[arg(long)]
    no_traffic: bool,
    /// Tag of the version: serves it at TAG--SERVICE.DOMAIN, even without traffic
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Version to take over what no flag changes [default: the one with the most traffic]
    #[arg(long, value_name = "VERSION", conflicts_with = "reset", add = complete::versions())]
    from: Option<VersionRef>,
    /// Take over nothing: start from the defaults; needs --image
    #[arg(long)]
    reset: bool,
    /// Do not verify that the version starts
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    verify: VerifyFlags,
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

    /// The specification of the new version.
    fn spec(&self, source: Option<&pb::Version>) -> Result<pb::VersionSpec, Error> {
        let base = source.filter(|_| !self.reset).map(inherited);
        let spec = self.spec.apply(base.unwrap_or_default())?;
        if spec.image.is_empty() {
            let service = &self.service;
            let reason = if self.reset {
                "--reset takes nothing over from an earlier version".to_owned()
            } else {
                format!("services/{service} has no version to take the image from")
            };
            return Err(Error::Usage {
                message: format!("--image is required: {reason}"),
                hint: Some(format!("add it: cless deploy {service} --image IMAGE")),
            });
        }
        Ok(spec)
    }
}

/// The specification that a new version takes over. A tag that a registry resolved is pinned, so that
/// a tag pushed since then does not change the program along with a variable.
fn inherited(source: &pb::Version) -> pb::VersionSpec {
    let mut spec = source.spec.clone().unwrap_or_default();
    if !source.image_digest.is_empty() && !spec.image.contains('@') {
        spec.image = format!("{}@{}", spec.image, source.image_digest);
    }
    spec
}

pub(crate) async fn run(
    args: DeployArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let percent = args.percent()?;
    let id = &args.service;
    let existing = match client.get_service(id).await {
        Ok(service) => Some(service),
        Err(error) if error.code() == Some(Code::NotFound) && args.spec.image.is_none() => {
            let hint = format!("to create it, add an image: cless deploy {id} --image IMAGE");
            return Err(error.with_hints(vec![hint]));
        }
        Err(error) if error.code() == Some(Code::NotFound) => None,
        Err(error) => return Err(error),
    };
    let source = match &existing {
        Some(_) => source(&args, client, printer).await?,
        None => None,
    };
    let spec = args.spec(source.as_ref())?;
    printer.set_interrupt_hint(Some(format!(
        "traffic is unchanged; services/{id} may have a new version: list them with `cless version list {id}`"
    )));
    let service = prepare(&args, existing, &spec, percent, client, printer).await?;
    let version = create_version(&service, spec, client, printer).await?;
    if let Some(source) = &source {
        printer.note(&difference(id, source, &version));
    }
    printer.resolution(&version);
    let remains = remains(id, version.number, service.is_new);
    printer.set_interrupt_hint(Some(format!("traffic is unchanged; {remains}")));
    let released = release(&args, &service.service, &version, percent, client, printer).await;
    released.map_err(|error| {
        let unchanged = matches!(
            error,
            Error::VerificationFailed { .. } | Error::Unverified { .. }
        );
        let mut hints = Vec::new();
        if matches!(error, Error::Unverified { .. }) {
            hints.push("to deploy without verification, add --no-wait".to_owned());
        }
        if service.is_new && unchanged {
            hints.push(remains);
        }
        error.with_hints(hints)
    })
}

/// The state in which a deploy without traffic leaves the service, and how to remove it.
fn remains(id: &str, number: i32, is_new: bool) -> String {
    if is_new {
        format!(
            "services/{id} and its version v{number} remain, without traffic: remove them with `cless service delete {id}`"
        )
    } else {
        format!(
            "services/{id}/versions/{number} remains, without traffic: remove it with `cless version delete {id} v{number}`"
        )
    }
}

/// The version from which the new one takes over what no flag changes: that of `--from`, else the
/// largest share of the traffic. Without traffic, the newest that had some, else the newest.
async fn source(
    args: &DeployArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<Option<pb::Version>, Error> {
    let id = &args.service;
    let number = match args.from {
        Some(reference) => Some(resolve(client, printer, id, reference).await?),
        None => largest(&client.get_traffic(id).await?.targets),
    };
    if let Some(number) = number {
        return client.get_version(id, number).await.map(Some);
    }
    let recent = client.list_versions(id, RECENT).await?;
    let carried = recent.iter().position(|version| version.carried_traffic);
    Ok(recent.into_iter().nth(carried.unwrap_or(0)))
}

/// The line that tells how a new version differs from its source.
fn difference(id: &str, source: &pb::Version, version: &pb::Version) -> String {
    let (before, after) = (inherited(source), version.spec.clone().unwrap_or_default());
    // A digest that only pins the tag is no difference.
    let before = match &source.spec {
        Some(spec) if before.image != after.image => spec.clone(),
        _ => before,
    };
    let mut changes = spec_changes(&before, &after);
    if resolution_changed(source, version) {
        changes.push("the image under the same name is another one".to_owned());
    }
    let (number, source) = (version.number, source.number);
    if changes.is_empty() {
        format!("{id} v{number}: the same as v{source}")
    } else {
        format!(
            "{id} v{number}: as v{source}, except {}",
            changes.join(", ")
        )
    }
}

/// Verifies the version, sends it its traffic and prints it.
async fn release(
    args: &DeployArgs,
    service: &pb::Service,
    version: &pb::Version,
    percent: u32,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let (id, number) = (&args.service, version.number);
    if args.no_wait {
        printer.note(&format!(
            "{id} v{number}: not verified, because of --no-wait"
        ));
    } else {
        verify::verify(client, printer, id, number, &args.verify).await?;
    }
    let traffic = send_traffic(args, version, percent, client, printer).await?;
    // Read again for its percentage, tags and verification.
    let version = client.get_version(id, number).await?;
    show(args, service, &version, traffic.as_ref(), printer)
}

/// The service of the new version.
pub(super) struct PreparedService {
    pub(super) service: pb::Service,
    /// This command created the service and deletes it if the version is rejected.
    pub(super) is_new: bool,
}

/// Checks `--traffic`, then creates the service or updates its settings.
async fn prepare(
    args: &DeployArgs,
    service: Option<pb::Service>,
    spec: &pb::VersionSpec,
    percent: u32,
    client: &ApiClient,
    printer: &Printer,
) -> Result<PreparedService, Error> {
    let id = &args.service;
    let (settings, mask) = args.settings.to_proto();
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

pub(super) async fn create_version(
    prepared: &PreparedService,
    spec: pb::VersionSpec,
    client: &ApiClient,
    printer: &Printer,
) -> Result<pb::Version, Error> {
    let id = prepared.service.name.trim_start_matches("services/");
    let image = spec.image.clone();
    match client.create_version(id, spec, false).await {
        Ok(version) => {
            printer.note(&format!(
                "created {} of {image}",
                text::clean(&version.name)
            ));
            Ok(version)
        }
        Err(error) => {
            let rejected = matches!(
                error.code(),
                Some(Code::InvalidArgument | Code::FailedPrecondition)
            );
            if prepared.is_new && rejected {
                // The etag keeps the service if it was modified meanwhile.
                let etag = prepared.service.etag.clone();
                if client.delete_service(id, etag).await.is_ok() {
                    printer.note(&format!(
                        "deleted services/{id} again: its version was rejected"
                    ));
                    return Err(error);
                }
            }
            let left = prepared.is_new.then(|| {
                format!(
                    "services/{id} remains, without traffic: remove it with `cless service delete {id}`"
                )
            });
            Err(error.with_hints(left.into_iter().collect()))
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
        allow_unverified: args.no_wait,
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
