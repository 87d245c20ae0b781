//! `traffic` and `rollback`: the traffic split between versions, and its history.

use clap::{Args, Subcommand};
use cless_proto::v1 as pb;
use tonic::Code;

use super::propagation;
use super::reference::resolve;
use crate::args::{DryRunArgs, LimitArgs, ReasonArgs, ServiceArg};
use crate::client::{ApiClient, RollbackTo};
use crate::complete;
use crate::error::Error;
use crate::output::{Printer, change_line, targets_line};
use crate::parse::{self, TagArg, TargetArg, VersionRef};
use crate::text;
use crate::traffic_split::Split;

/// Attempts of a change while concurrent changes invalidate its etag.
const ATTEMPTS: u32 = 5;

/// The `ErrorInfo.reason` of a share for a version that is neither verified nor proven by traffic.
const UNVERIFIED: &str = "VERSION_UNVERIFIED";

/// The `traffic` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum TrafficCommand {
    /// Show the current traffic split
    #[command(visible_alias = "describe")]
    Get(ServiceArg),
    /// Set the traffic split, tags, or both
    #[command(after_help = "\
Examples:
  cless traffic set hello v2=90 v3=10        Percentages that sum to 100
  cless traffic set hello v3=10 v2           v2 takes the rest
  cless traffic set hello @latest=10 @prev   The newest verified version, and the
                                             one that carried traffic before
  cless traffic set hello --tag canary=v3    Only a tag: v3 at canary--hello.DOMAIN")]
    Set(SetArgs),
    /// List traffic revisions, newest first
    #[command(visible_alias = "ls")]
    History(HistoryArgs),
}

/// Arguments of `traffic set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    service: ServiceArg,
    /// VERSION=PERCENT, VERSION (takes the rest) or VERSION=PERCENT:TAG; a VERSION is v3, 3, @latest or @prev
    #[arg(value_name = "TARGET", add = complete::versions())]
    targets: Vec<TargetArg>,
    /// Point a tag to a version; may be repeated
    #[arg(long, value_name = "TAG=VERSION")]
    tag: Vec<TagArg>,
    /// Remove a tag; may be repeated. Other tags are kept
    #[arg(long, value_name = "TAG")]
    untag: Vec<String>,
    /// Remove all traffic: requests to the service get 503
    #[arg(long)]
    clear: bool,
    /// Also send traffic to a version that never carried any and is not verified
    #[arg(long)]
    force: bool,
    /// Fail if the traffic no longer has this etag
    #[arg(long, value_name = "ETAG")]
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
    /// Version that gets all traffic: v3, @latest or @prev [default: the split in force before]
    #[arg(value_name = "VERSION", value_parser = parse::unambiguous_version, add = complete::versions())]
    version: Option<VersionRef>,
    /// Traffic revision to restore, see `cless traffic history`
    #[arg(long, value_name = "REVISION", conflicts_with = "version")]
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
    #[arg(long)]
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
        let number = resolve(client, printer, service, target.version).await?;
        weights.push((number, target.percent));
        tags.extend(target.tag.clone().map(|tag| (tag, number)));
    }
    for tag in &args.tag {
        let number = resolve(client, printer, service, tag.version).await?;
        tags.push((tag.tag.clone(), number));
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
        allow_unverified: args.force,
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
    /// Accept versions that never carried traffic and are not verified.
    pub(super) allow_unverified: bool,
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
                .update_traffic(
                    service,
                    targets,
                    etag,
                    self.reason.clone(),
                    self.dry_run,
                    self.allow_unverified,
                )
                .await;
            match result {
                Err(error)
                    if error.code() == Some(Code::Aborted)
                        && self.etag.is_none()
                        && attempt < ATTEMPTS => {}
                Err(error) if error.reason().as_deref() == Some(UNVERIFIED) => {
                    let hint = format!(
                        "verify it with `cless version verify {service} VERSION`, or add --force"
                    );
                    return Err(error.with_hints(vec![hint]));
                }
                Err(error) => return Err(error),
                Ok(after) => {
                    printer.set_interrupt_hint(None);
                    printer.note(&change_note(service, &before, &after, self.dry_run));
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
    let to = match (args.version, args.to) {
        (Some(version), _) => {
            RollbackTo::Version(resolve(client, printer, service, version).await?)
        }
        (None, Some(revision)) => {
            // Only a note, so an error of this call is none of the rollback.
            if client.get_version(service, revision).await.is_ok() {
                printer.note(&format!(
                    "--to {revision} is traffic revision {revision}; for version {revision}: cless rollback {service} v{revision}"
                ));
            }
            RollbackTo::Revision(revision)
        }
        (None, None) => RollbackTo::Before,
    };
    printer.set_interrupt_hint(Some(format!(
        "traffic may have changed: check it with `cless traffic get {service}`"
    )));
    // The etag prevents two concurrent rollbacks from going back two revisions.
    let after = client
        .rollback_traffic(service, to, before.etag.clone(), reason, dry_run)
        .await?;
    printer.set_interrupt_hint(None);
    printer.note(&change_note(service, &before, &after, dry_run));
    finish(service, &after, args.wait.wait && !dry_run, client, printer).await
}

/// The line that tells what a change of traffic did.
fn change_note(service: &str, before: &pb::Traffic, after: &pb::Traffic, dry_run: bool) -> String {
    let same = Split::from_targets(&before.targets) == Split::from_targets(&after.targets);
    // With a new revision, the control plane has recorded a change although nothing differs.
    if same && (dry_run || before.revision == after.revision) {
        let targets = targets_line(&after.targets);
        return format!(
            "{service}: unchanged: {targets} (revision {})",
            after.revision
        );
    }
    let change = change_line(service, &before.targets, &after.targets);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_changes_nothing_says_so() {
        let traffic = |revision, shares: &[(i32, u32)]| pb::Traffic {
            revision,
            targets: shares
                .iter()
                .map(|&(version, percent)| pb::TrafficTarget {
                    version,
                    percent,
                    tag: String::new(),
                })
                .collect(),
            ..Default::default()
        };
        let before = traffic(4, &[(1, 90), (2, 10)]);
        let same = traffic(4, &[(2, 10), (1, 90)]);
        assert_eq!(
            change_note("hello", &before, &same, false),
            "hello: unchanged: v2=10 v1=90 (revision 4)"
        );
        assert_eq!(
            change_note("hello", &before, &traffic(5, &[(2, 100)]), false),
            "hello: v1=90 v2=10 -> v2=100"
        );
        assert_eq!(
            change_note("hello", &before, &traffic(4, &[(2, 100)]), true),
            "hello: v1=90 v2=10 -> v2=100 (dry run: nothing was changed)"
        );
    }
}
