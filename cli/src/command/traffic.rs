//! `traffic` and `rollback`: the traffic split between versions, and its history.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};
use cless_proto::v1 as pb;
use tonic::Code;

use super::propagation;
use crate::args::{DryRunArgs, LimitArgs, ReasonArgs, ServiceArg};
use crate::client::ApiClient;
use crate::error::Error;
use crate::output::{Printer, change_line};
use crate::parse::{TagArg, TargetArg};
use crate::text;
use crate::traffic_split::Split;

/// Attempts of a change while concurrent changes invalidate its etag.
const ATTEMPTS: u32 = 5;

/// The `traffic` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum TrafficCommand {
    /// Show the current traffic split
    Get(ServiceArg),
    /// Set the traffic split, tags, or both
    #[command(after_help = "\
Examples:
  cless traffic set hello v2=90 v3=10        Percentages that sum to 100
  cless traffic set hello v3=10 v2           v2 takes the rest
  cless traffic set hello @latest=10 @prev   The newest version and the one before it
  cless traffic set hello --tag canary=v3    Only a tag: v3 is served at canary--hello.DOMAIN")]
    Set(SetArgs),
    /// List traffic revisions, newest first
    History(HistoryArgs),
}

/// Arguments of `traffic set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// VERSION=PERCENT, VERSION (takes the rest) or VERSION=PERCENT:TAG; a VERSION is v3, 3, @latest or @prev
    #[arg(value_name = "TARGET")]
    targets: Vec<TargetArg>,
    // No variable: `CLESS_TAG` belongs to `deploy`, which takes a tag alone.
    /// Point a tag to a version; may be repeated
    #[arg(long, value_name = "TAG=VERSION")]
    tag: Vec<TagArg>,
    /// Remove a tag; may be repeated. Other tags are kept
    #[arg(long, env = "CLESS_UNTAG", value_name = "TAG")]
    untag: Vec<String>,
    /// Remove all traffic: requests to the service get 503
    #[arg(long, env = "CLESS_CLEAR")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    clear: bool,
    /// Fail if the traffic no longer has this etag
    #[arg(long, env = "CLESS_ETAG", value_name = "ETAG")]
    etag: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    reason: ReasonArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// Traffic revision to restore, see `cless traffic history` [default: the previous one]
    #[arg(long, env = "CLESS_TO", value_name = "REVISION")]
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    to: Option<i32>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    reason: ReasonArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// The flag to wait for the nodes.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait until every connected node has applied the change
    #[arg(long, env = "CLESS_WAIT")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    wait: bool,
}

/// Arguments of `traffic history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    service: ServiceArg,
    #[command(flatten)]
    limit: LimitArgs,
}

pub(crate) async fn run(
    command: TrafficCommand,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        TrafficCommand::Get(ServiceArg { id: service }) => {
            let traffic = client.get_traffic(&service).await?;
            if traffic.targets.is_empty() {
                printer.note(&format!(
                    "no traffic is set: cless traffic set {service} @latest=100"
                ));
            }
            printer.show(&traffic)
        }
        TrafficCommand::Set(args) => set(args, client, printer).await,
        TrafficCommand::History(args) => printer.list(
            &client
                .list_traffic_revisions(&args.service.id, args.limit.limit)
                .await?,
        ),
    }
}

async fn set(args: SetArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let service = &args.service.id;
    let usage = |message: String| Error::Usage {
        message,
        hint: Some("see examples with `cless traffic set --help`".to_owned()),
    };
    if args.targets.is_empty() && args.tag.is_empty() && args.untag.is_empty() && !args.clear {
        return Err(usage(
            "no target: give versions with percentages, or a tag".to_owned(),
        ));
    }
    if args.clear && !args.targets.is_empty() {
        return Err(usage("--clear: cannot be combined with targets".into()));
    }
    let mut weights = Vec::new();
    let mut tags = Vec::new();
    for target in &args.targets {
        let number = client.resolve(service, target.version).await?;
        weights.push((number, target.percent));
        tags.extend(target.tag.clone().map(|tag| (tag, number)));
    }
    for tag in &args.tag {
        tags.push((tag.tag.clone(), client.resolve(service, tag.version).await?));
    }
    for (index, (tag, number)) in tags.iter().enumerate() {
        for (other, version) in &tags[..index] {
            if tag == other && number != version {
                return Err(usage(format!(
                    "tag `{tag}`: cannot point to both v{version} and v{number}"
                )));
            }
            if number == version && tag != other {
                let both = format!("`{other}` and `{tag}`");
                return Err(usage(format!("v{number}: cannot have two tags, {both}")));
            }
        }
    }
    let change = TrafficChange {
        service,
        etag: args.etag.clone(),
        reason: args.reason.reason.clone().unwrap_or_default(),
        dry_run: args.dry_run.dry_run,
    };
    let split = |mut split: Split| {
        for tag in &args.untag {
            if !split.remove_tag(tag) {
                return Err(usage(format!(
                    "--untag: services/{service} has no tag `{tag}`"
                )));
            }
        }
        if args.clear {
            split = split.without_weights();
        }
        split = split
            .set_weights(&weights)
            .map_err(|error| usage(format!("traffic: {error}")))?;
        Ok(tags.iter().fold(split, |split, (tag, number)| {
            split.set_tag(tag.clone(), *number)
        }))
    };
    let traffic = change.apply(client, printer, split).await?;
    finish(
        service,
        &traffic,
        args.wait.wait && !change.dry_run,
        client,
        printer,
    )
    .await
}

/// A change of traffic: reads it, computes the new split and writes that under the etag read.
#[derive(Debug)]
pub(super) struct TrafficChange<'a> {
    pub(super) service: &'a str,
    /// If given, a concurrent change is an error. With `None` the change is recomputed.
    pub(super) etag: Option<String>,
    pub(super) reason: String,
    pub(super) dry_run: bool,
}

impl TrafficChange<'_> {
    /// # Errors
    /// Those of `split`, and of the calls.
    pub(super) async fn apply(
        &self,
        client: &ApiClient,
        printer: &Printer,
        split: impl Fn(Split) -> Result<Split, Error>,
    ) -> Result<pb::Traffic, Error> {
        let service = self.service;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let before = client.get_traffic(service).await?;
            let targets = split(Split::from_targets(&before.targets))?.to_targets();
            let etag = self.etag.clone().unwrap_or_else(|| before.etag.clone());
            printer.set_interrupt_hint(Some(format!(
                "traffic may have changed: check it with `cless traffic get {service}`"
            )));
            let result = client
                .update_traffic(service, targets, etag, self.reason.clone(), self.dry_run)
                .await;
            match result {
                Err(error)
                    if error.code() == Some(Code::Aborted)
                        && self.etag.is_none()
                        && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(after) => {
                    printer.set_interrupt_hint(None);
                    let change = change_line(service, &before.targets, &after.targets);
                    printer.note(&with_dry_run(change, self.dry_run));
                    return Ok(after);
                }
            }
        }
    }
}

/// Restores an earlier revision.
pub(crate) async fn rollback(
    args: RollbackArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let service = &args.service.id;
    let before = client.get_traffic(service).await?;
    let dry_run = args.dry_run.dry_run;
    let reason = args.reason.reason.unwrap_or_default();
    let to = args.to.unwrap_or(0);
    // The etag prevents two concurrent rollbacks from going back two revisions.
    let after = client
        .rollback_traffic(service, to, before.etag, reason, dry_run)
        .await?;
    let change = change_line(service, &before.targets, &after.targets);
    printer.note(&with_dry_run(change, dry_run));
    finish(service, &after, args.wait.wait && !dry_run, client, printer).await
}

fn with_dry_run(change: String, dry_run: bool) -> String {
    if dry_run {
        format!("{change} (dry run: nothing was changed)")
    } else {
        change
    }
}

/// Prints the traffic and, if `wait`, waits until the nodes have applied it.
async fn finish(
    service: &str,
    traffic: &pb::Traffic,
    wait: bool,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    printer.show(traffic)?;
    if !wait {
        return Ok(());
    }
    let propagation = propagation::wait(client, traffic.feed_revision).await?;
    if propagation.pending.is_empty() {
        printer.note(&match propagation.nodes {
            0 => "no node is connected: nodes apply the change when they connect".to_owned(),
            1 => "applied on 1 node".to_owned(),
            nodes => format!("applied on {nodes} nodes"),
        });
        return Ok(());
    }
    if !propagation.warnings.is_empty() {
        return Err(Error::OutcomeUnknown {
            message: format!(
                "the traffic of services/{service} is set, but not yet applied: {}",
                propagation.warnings.join("; ")
            ),
            hint: "after that, see `cless node list`".to_owned(),
        });
    }
    let mut pending = Vec::new();
    for name in propagation.pending {
        pending.push(match rejection(&name, client).await {
            Some(reason) => format!("{name}, which rejected it ({reason})"),
            None => name,
        });
    }
    Err(Error::OutcomeUnknown {
        message: format!(
            "the traffic of services/{service} is set, but not yet applied on {}",
            pending.join(", ")
        ),
        hint: "find the cause with `cless node get NODE`".to_owned(),
    })
}

/// The reason why a node rejected the last change; `None` if it did not, or is unknown.
async fn rejection(name: &str, client: &ApiClient) -> Option<String> {
    let node = client.get_node(&text::id(name)).await.ok()?;
    let reason = text::clean(&node.nack_reason);
    (!reason.is_empty()).then_some(reason)
}
