//! Cold starts in pairs: one request through the proxy from zero, and the same by hand.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::Cluster;
use cless_tests::report::{Better, Row};
use cless_tests::stats::{median, millis};

use crate::raw::{self, Phases};
use crate::{SETTLE, Sleeper, say};

/// The network of the raw side.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Against {
    /// A new one for each container.
    Bridge,
    /// A ready-made one.
    Sandbox,
}

#[derive(Default)]
struct Times {
    ours: Vec<Duration>,
    reported: Vec<v1::ColdStart>,
    raw: Vec<Phases>,
}

/// `pairs` of them, as the row of `case`: name, metric and bar.
pub(crate) async fn run(
    cluster: &Cluster,
    sleeper: &Sleeper,
    pairs: usize,
    against: Against,
    (case, metric, bar): (&'static str, &'static str, f64),
) -> Result<Row> {
    say(&format!("\n{metric}: {pairs} pairs of cold starts"));
    let mut times = Times::default();
    for pair in 0..pairs {
        for ours_first in [pair % 2 == 0, pair % 2 == 1] {
            sleeper.asleep(cluster).await?;
            match ours_first {
                true => ours(cluster, sleeper, &mut times).await?,
                false => times.raw.push(by_hand(cluster, sleeper, against).await?),
            }
        }
    }
    times.tell();
    let raw: Vec<_> = times.raw.iter().map(|one| one.total).collect();
    let reference_name = match against {
        Against::Bridge => "raw engine calls on the bridge",
        Against::Sandbox => "raw engine calls in a ready-made network",
    };
    Ok(Row {
        case,
        metric,
        better: Better::Lower,
        ours: millis(median(&times.ours)),
        reference: Some((millis(median(&raw)), reference_name)),
        bar: Some(bar),
    })
}

async fn ours(cluster: &Cluster, sleeper: &Sleeper, times: &mut Times) -> Result<()> {
    times.ours.push(sleeper.wake(cluster).await?);
    let wanted = sleeper.options.sandbox.is_some();
    ensure!(
        sleeper.joined(cluster).await? == wanted,
        "the start used another kind of network than it should"
    );
    times.reported.push(sleeper.reported(cluster).await?);
    Ok(())
}

async fn by_hand(cluster: &Cluster, sleeper: &Sleeper, against: Against) -> Result<Phases> {
    let phases = match against {
        Against::Bridge => raw::on_the_bridge(cluster.docker(), &sleeper.options).await?,
        Against::Sandbox => raw::in_a_sandbox(cluster.docker(), &sleeper.options).await?,
    };
    tokio::time::sleep(SETTLE).await;
    Ok(phases)
}

impl Times {
    /// The breakdown of both sides, for where the engine's own cost dominates.
    fn tell(&self) {
        let raw = |phase: fn(&Phases) -> Duration| {
            millis(median(&self.raw.iter().map(phase).collect::<Vec<_>>()))
        };
        say(&format!(
            "  raw:   create {:.1}, start {:.1}, inspect and probe {:.1}, GET {:.1}, total {:.1} ms",
            raw(|p| p.create),
            raw(|p| p.start),
            raw(|p| p.ready),
            raw(|p| p.get),
            raw(|p| p.total),
        ));
        let ours = |phase: fn(&v1::ColdStart) -> Option<prost_types::Duration>| {
            let phases = self.reported.iter().filter_map(phase);
            let times: Vec<Duration> = phases.filter_map(|d| d.try_into().ok()).collect();
            millis(median(&times))
        };
        say(&format!(
            "  cless: queue {:.1}, create {:.1}, start {:.1}, ready {:.1}, total by its own count {:.1}, \
             seen by the caller {:.1} ms",
            ours(|c| c.queue),
            ours(|c| c.create),
            ours(|c| c.start),
            ours(|c| c.ready),
            ours(|c| c.total),
            millis(median(&self.ours)),
        ));
    }
}
