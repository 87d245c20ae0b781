//! `traffic` and `rollback`: the split of requests over versions, and its history.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};
use cless_proto::v1 as pb;
use tonic::Code;

use super::propagation;
use crate::args::{DryRunArgs, LimitArgs, ReasonArgs};
use crate::client::Client;
use crate::error::Error;
use crate::output::{Printer, change_line};
use crate::parse::{self, TagArg, TargetArg};
use crate::text;
use crate::traffic_split::Split;

/// Someone else may change traffic between our read and our write; more often than this in a row
/// is a fight that a person must see.
const ATTEMPTS: u32 = 5;

/// What to do with traffic.
#[derive(Debug, Subcommand)]
pub(crate) enum TrafficCommand {
    /// Show the split in force
    Get(GetArgs),
    /// Set the split, tags, or both
    #[command(after_help = "\
For example:
  cless traffic set hello v2=90 v3=10          all percents, summing to 100
  cless traffic set hello v3=10 v2             one may be left to take the rest
  cless traffic set hello @latest=10 @prev     the newest version, and the one below it
  cless traffic set hello --tag canary=v3      only a tag: v3 answers at canary--hello.DOMAIN")]
    Set(SetArgs),
    /// Show every change, newest first
    History(HistoryArgs),
}

/// Whose traffic.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
}

/// What the split shall be.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    /// v3=10, v3 (takes the rest) or v3=10:canary; the version may be @latest or @prev
    #[arg(value_name = "TARGET")]
    targets: Vec<TargetArg>,
    // No variable: CLESS_TAG is that of `deploy`, which takes a tag alone.
    /// Make a tag name a version; may be repeated
    #[arg(long, value_name = "TAG=VERSION")]
    tag: Vec<TagArg>,
    /// Take a tag away; may be repeated. Tags that are not named stay
    #[arg(long, env = "CLESS_UNTAG", value_name = "TAG")]
    untag: Vec<String>,
    /// Send no traffic at all: the hosts answer 503
    #[arg(long, env = "CLESS_CLEAR")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    clear: bool,
    /// Refuse if the etag is no longer this
    #[arg(long, env = "CLESS_ETAG", value_name = "ETAG")]
    etag: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    reason: ReasonArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Which revision to put in force again.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    /// The traffic revision to copy, see `traffic history` [default: the one before]
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

/// Whether to wait for the nodes.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait until every connected node has it in force
    #[arg(long, env = "CLESS_WAIT")]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    wait: bool,
}

/// Whose history.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: String,
    #[command(flatten)]
    limit: LimitArgs,
}

pub(crate) async fn run(
    command: TrafficCommand,
    client: &Client,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        TrafficCommand::Get(GetArgs { service }) => {
            let traffic = client.get_traffic(&service).await?;
            if traffic.targets.is_empty() {
                printer.note(&format!(
                    "no traffic is set: cless traffic set {service} @latest=100"
                ));
            }
            printer.one(&traffic)
        }
        TrafficCommand::Set(args) => set(args, client, printer).await,
        TrafficCommand::History(args) => printer.list(
            &client
                .list_traffic_revisions(&args.service, args.limit.limit)
                .await?,
        ),
    }
}

async fn set(args: SetArgs, client: &Client, printer: &Printer) -> Result<(), Error> {
    let usage = |message: String| Error::Usage {
        message,
        hint: Some("see examples with `cless traffic set --help`".to_owned()),
    };
    if args.targets.is_empty() && args.tag.is_empty() && args.untag.is_empty() && !args.clear {
        return Err(usage(
            "no target: name versions and their percents, or a tag".to_owned(),
        ));
    }
    if args.clear && !args.targets.is_empty() {
        return Err(usage(
            "--clear: it takes all traffic away, so no target goes with it".into(),
        ));
    }
    let mut weights = Vec::new();
    let mut tags = Vec::new();
    for target in &args.targets {
        let number = client.resolve(&args.service, target.version).await?;
        weights.push((number, target.percent));
        tags.extend(target.tag.clone().map(|tag| (tag, number)));
    }
    for tag in &args.tag {
        tags.push((
            tag.tag.clone(),
            client.resolve(&args.service, tag.version).await?,
        ));
    }
    for (at, (tag, number)) in tags.iter().enumerate() {
        for (other, version) in &tags[..at] {
            if tag == other && number != version {
                return Err(usage(format!(
                    "tag `{tag}`: it cannot name v{version} and v{number}"
                )));
            }
            if number == version && tag != other {
                let both = format!("`{other}` and `{tag}`");
                return Err(usage(format!("v{number}: it cannot have two tags, {both}")));
            }
        }
    }
    let change = TrafficChange {
        service: &args.service,
        etag: args.etag.clone(),
        reason: args.reason.reason.clone().unwrap_or_default(),
        dry_run: args.dry_run.dry_run,
    };
    let split = |mut split: Split| {
        for tag in &args.untag {
            if !split.untag(tag) {
                let service = &args.service;
                return Err(usage(format!(
                    "--untag: services/{service} has no tag `{tag}`"
                )));
            }
        }
        if args.clear {
            split = split.without_weights();
        }
        split = split
            .reweigh(&weights)
            .map_err(|error| usage(format!("traffic: {error}")))?;
        Ok(tags.iter().fold(split, |split, (tag, number)| {
            split.tag(tag.clone(), *number)
        }))
    };
    let traffic = change.apply(client, printer, split).await?;
    finish(
        &args.service,
        &traffic,
        args.wait.wait && !change.dry_run,
        client,
        printer,
    )
    .await
}

/// One change of traffic: read, compute, write under the etag of what was read.
#[derive(Debug)]
pub(super) struct TrafficChange<'a> {
    pub(super) service: &'a str,
    /// If given, a change in between is an error; else it is read and computed again.
    pub(super) etag: Option<String>,
    pub(super) reason: String,
    pub(super) dry_run: bool,
}

impl TrafficChange<'_> {
    /// # Errors
    /// Those of `split`, and of the calls.
    pub(super) async fn apply(
        &self,
        client: &Client,
        printer: &Printer,
        split: impl Fn(Split) -> Result<Split, Error>,
    ) -> Result<pb::Traffic, Error> {
        let service = self.service;
        for attempt in 1.. {
            let before = client.get_traffic(service).await?;
            let targets = split(Split::from_targets(&before.targets))?.to_targets();
            let etag = self.etag.clone().unwrap_or_else(|| before.etag.clone());
            printer.unfinished(Some(format!(
                "traffic may or may not have changed: see it with `cless traffic get {service}`"
            )));
            let answer = client
                .update_traffic(service, targets, etag, self.reason.clone(), self.dry_run)
                .await;
            match answer {
                Err(error)
                    if error.code() == Some(Code::Aborted)
                        && self.etag.is_none()
                        && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(after) => {
                    printer.unfinished(None);
                    let change = change_line(service, &before.targets, &after.targets);
                    let would = if self.dry_run {
                        " (nothing was changed)"
                    } else {
                        ""
                    };
                    printer.note(&format!("{change}{would}"));
                    return Ok(after);
                }
            }
        }
        unreachable!("the last attempt returns")
    }
}

/// `rollback`: copies an older revision.
pub(crate) async fn rollback(
    args: RollbackArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), Error> {
    let service = &args.service;
    let before = client.get_traffic(service).await?;
    let dry_run = args.dry_run.dry_run;
    let reason = args.reason.reason.unwrap_or_default();
    let to = args.to.unwrap_or(0);
    // Without --to, "the one before" is meant as seen now: the etag keeps two people who roll back
    // at once from going back two steps.
    let after = client
        .rollback_traffic(service, to, before.etag, reason, dry_run)
        .await?;
    let would = if dry_run {
        " (nothing was changed)"
    } else {
        ""
    };
    printer.note(&format!(
        "{}{would}",
        change_line(service, &before.targets, &after.targets)
    ));
    finish(service, &after, args.wait.wait && !dry_run, client, printer).await
}

async fn finish(
    service: &str,
    traffic: &pb::Traffic,
    wait: bool,
    client: &Client,
    printer: &Printer,
) -> Result<(), Error> {
    printer.one(traffic)?;
    if !wait {
        return Ok(());
    }
    let followed = propagation::wait(client, traffic.feed_revision).await?;
    if followed.pending.is_empty() {
        printer.note(&match followed.nodes {
            0 => "no node is connected: each takes it when it connects".to_owned(),
            1 => "in force on 1 node".to_owned(),
            nodes => format!("in force on {nodes} nodes"),
        });
        return Ok(());
    }
    let mut pending = Vec::new();
    for name in followed.pending {
        pending.push(match refusal(&name, client).await {
            Some(reason) => format!("{name}, which refuses it ({reason})"),
            None => name,
        });
    }
    Err(Error::Unknown {
        message: format!(
            "the traffic of services/{service} is set, but not yet in force on {}",
            pending.join(", ")
        ),
        hint: "see what holds them up with `cless node get NODE`".to_owned(),
    })
}

/// Why the node of this resource name refused the last change, if it did and that can be known.
async fn refusal(name: &str, client: &Client) -> Option<String> {
    let node = client.get_node(&text::id(name)).await.ok()?;
    let reason = text::clean(&node.nack_reason);
    (!reason.is_empty()).then_some(reason)
}
