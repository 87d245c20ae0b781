//! Cold starts in pairs: one request through the proxy without a container, and the same work by
//! raw engine calls.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::Cluster;
use cless_tests::report::{Better, Row, print_line};
use cless_tests::stats::{median, millis};

use crate::raw::{self, Phases};
use crate::{IdleService, SETTLE, Side, sides, vs_baseline};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum RawNetwork {
    /// The engine sets one up for each container.
    Bridge,
    /// The container joins a network that exists already.
    Prepared,
}

#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) case: &'static str,
    pub(crate) metric: &'static str,
    /// The metric of the row that compares with the baseline.
    pub(crate) vs_baseline: &'static str,
    pub(crate) bar: f64,
    pub(crate) network: RawNetwork,
}

#[derive(Default)]
struct Times {
    /// Measured by the caller, by node.
    measured: Vec<Vec<Duration>>,
    /// Reported by this build.
    reported: Vec<v1::ColdStart>,
    raw: Vec<Phases>,
}

pub(crate) async fn run(
    cluster: &Cluster,
    service: &IdleService,
    pairs: usize,
    case: Case,
) -> Result<Vec<Row>> {
    print_line(&format!("\n{}: {pairs} pairs of cold starts", case.metric));
    let nodes = cluster.nodes().len();
    let mut times = Times {
        measured: vec![Vec::new(); nodes],
        ..Times::default()
    };
    for pair in 0..pairs {
        for side in sides(nodes, pair) {
            service.wait_removed(cluster).await?;
            match side {
                Side::Node(node) => through_cless(cluster, service, node, &mut times).await?,
                Side::Reference => times
                    .raw
                    .push(raw_start(cluster, service, case.network).await?),
            }
        }
    }
    times.print();
    let raw: Vec<_> = times.raw.iter().map(|one| one.total).collect();
    let reference_name = match case.network {
        RawNetwork::Bridge => "raw engine calls on the bridge",
        RawNetwork::Prepared => "raw engine calls in a ready-made network",
    };
    let row = Row {
        case: case.case,
        metric: case.metric,
        better: Better::Lower,
        ours: millis(median(&times.measured[0])),
        reference: Some((millis(median(&raw)), reference_name)),
        bar: Some(case.bar),
    };
    let baseline = vs_baseline(case.case, case.vs_baseline, &times.measured);
    Ok([row].into_iter().chain(baseline).collect())
}

async fn through_cless(
    cluster: &Cluster,
    service: &IdleService,
    node: usize,
    times: &mut Times,
) -> Result<()> {
    times.measured[node].push(service.cold_request(cluster, node).await?);
    let expected = service.options.sandbox.is_some();
    ensure!(
        service.is_in_sandbox(cluster).await? == expected,
        "the start used another kind of network than expected"
    );
    let reported = service.reported(cluster, node).await?;
    if node == 0 {
        times.reported.push(reported);
    }
    Ok(())
}

async fn raw_start(
    cluster: &Cluster,
    service: &IdleService,
    network: RawNetwork,
) -> Result<Phases> {
    let phases = match network {
        RawNetwork::Bridge => raw::on_the_bridge(cluster.docker(), &service.options).await?,
        RawNetwork::Prepared => raw::in_a_sandbox(cluster.docker(), &service.options).await?,
    };
    tokio::time::sleep(SETTLE).await;
    Ok(phases)
}

impl Times {
    /// Prints the breakdown of both sides, which shows where the engine's own cost dominates.
    fn print(&self) {
        let raw = |phase: fn(&Phases) -> Duration| {
            millis(median(&self.raw.iter().map(phase).collect::<Vec<_>>()))
        };
        print_line(&format!(
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
        print_line(&format!(
            "  cless: queue {:.1}, create {:.1}, start {:.1}, ready {:.1}, reported total {:.1}, \
             measured by the caller {:.1} ms",
            ours(|c| c.queue),
            ours(|c| c.create),
            ours(|c| c.start),
            ours(|c| c.ready),
            ours(|c| c.total),
            millis(median(&self.measured[0])),
        ));
    }
}
