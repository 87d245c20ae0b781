//! `cless-bench-cold`: the cost of a cold start through cless, compared with the cost of the engine
//! calls alone.
//!
//! Rounds measure both sides, and the sides take turns at going first:
//!
//! - *cless*: requests through the proxy to versions whose last container has been removed or
//!   paused;
//! - *raw*: create, start, inspect, a TCP probe every millisecond, and one GET, directly against
//!   the engine. The options of the container are copied from one that cless created.
//!
//! Times are measured by the caller. The node reports only the breakdown by phase.
//!
//! `--baseline` adds an earlier build of the data plane as a second node of the same cluster, for
//! the rows of `pairs.rs`, `herd.rs` and `wake20.rs`. Its rows end in `_vs_baseline`.
//!
//! | file | rows |
//! |---|---|
//! | `pairs.rs` | `remove`, `remove+sandbox`, `python`, `python+sandbox` |
//! | `pause.rs` | `pause` |
//! | `herd.rs` | `herd100_p99` |
//! | `wake20.rs` | `wake20_total` |
//! | `storm.rs` | `quiet_beside_storm` |
//! | `warm.rs` | `warm_added_ms` |
//!
//! `raw.rs` is the raw side of all of them. `--only` runs some of the rows and keeps the others of
//! the last results.

#[path = "bench_cold/herd.rs"]
mod herd;
#[path = "bench_cold/pairs.rs"]
mod pairs;
#[path = "bench_cold/pause.rs"]
mod pause;
#[path = "bench_cold/raw.rs"]
mod raw;
#[path = "bench_cold/storm.rs"]
mod storm;
#[path = "bench_cold/wake20.rs"]
mod wake20;
#[path = "bench_cold/warm.rs"]
mod warm;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use cless_proto::v1;
use cless_tests::cluster::{Cluster, NodeSetup, duration, settings};
use cless_tests::http_client::Connection;
use cless_tests::report::{self, Better, Row, print_line};
use cless_tests::stats::{median, millis};
use cless_tests::{engine, image};
use tokio::time::{Instant, sleep};

use pairs::{Case, RawNetwork};
use raw::Options;

const SOON: Duration = Duration::from_secs(30);
/// Time for the engine's clean-up after a removal, which must not fall into the next measurement.
const SETTLE: Duration = Duration::from_millis(150);

const ROWS: [&str; 9] = [
    "remove",
    "remove+sandbox",
    "python",
    "python+sandbox",
    "pause",
    "herd100_p99",
    "wake20_total",
    "quiet_beside_storm",
    "warm_added_ms",
];

/// Compares cold starts through cless with raw engine calls.
#[derive(Parser)]
struct Args {
    /// Pairs of cold starts of the static server, and of resumes.
    #[arg(long, default_value_t = 30)]
    pairs: usize,
    /// Pairs of cold starts of the Python app.
    #[arg(long, default_value_t = 20)]
    python_pairs: usize,
    /// Rounds of a hundred concurrent requests.
    #[arg(long, default_value_t = 24)]
    herds: usize,
    /// Rounds of twenty services started at once.
    #[arg(long, default_value_t = 3)]
    wakes: usize,
    /// Rounds of a cold start beside each storm.
    #[arg(long, default_value_t = 5)]
    storms: usize,
    /// Warm requests on each side.
    #[arg(long, default_value_t = 2000)]
    warm: usize,
    /// Measure only these rows, by metric.
    #[arg(long, value_delimiter = ',', value_parser = ROWS)]
    only: Vec<String>,
    /// A folder with a `cless-data-plane` of an earlier build, which runs in the same rounds.
    #[arg(long, value_name = "DIR")]
    baseline: Option<PathBuf>,
}

impl Args {
    fn selects(&self, metrics: &[&str]) -> bool {
        self.only.is_empty() || metrics.iter().any(|m| self.only.iter().any(|o| o == m))
    }

    /// Starts a cluster of one node of this build and, if there is a baseline, one of that.
    async fn cluster(&self, sandboxes: &str) -> Result<Cluster> {
        let setup = NodeSetup::flags(&["--sandboxes", sandboxes]);
        let mut cluster = Cluster::start_with(1, setup.clone()).await?;
        if let Some(dir) = &self.baseline {
            let program = dir.join("cless-data-plane");
            ensure!(
                program.is_file(),
                "--baseline: {} is not a file; pass a folder with a cless-data-plane executable",
                program.display()
            );
            let program = Some(program.canonicalize()?);
            cluster
                .add_node_with(NodeSetup { program, ..setup })
                .await?;
            cluster.wait_propagated(0).await?;
        }
        Ok(cluster)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut rows = Vec::new();
    if args.selects(&[
        "remove",
        "python",
        "pause",
        "herd100_p99",
        "wake20_total",
        "quiet_beside_storm",
        "warm_added_ms",
    ]) {
        rows.extend(Box::pin(on_the_bridge(&args)).await?);
    }
    if args.selects(&["remove+sandbox", "python+sandbox"]) {
        rows.extend(Box::pin(in_sandboxes(&args)).await?);
    }
    print_line(&format!("\n{}", report::table(&rows)));
    let path = match args.only.is_empty() {
        true => report::write("cold", &rows)?,
        false => report::update("cold", &rows)?,
    };
    print_line(&format!("wrote {}", path.display()));
    Ok(())
}

async fn on_the_bridge(args: &Args) -> Result<Vec<Row>> {
    let cluster = args.cluster("0").await?;
    let image = image::sample_app(cluster.docker()).await?;
    let hello = IdleService::deploy(&cluster, "cold", &image).await?;
    let mut rows = Vec::new();
    if args.selects(&["remove"]) {
        let case = Case {
            case: "static",
            metric: "remove",
            vs_baseline: "remove_vs_baseline",
            bar: 1.05,
            network: RawNetwork::Bridge,
        };
        rows.extend(pairs::run(&cluster, &hello, args.pairs, case).await?);
    }
    if args.selects(&["herd100_p99"]) {
        rows.extend(herd::run(&cluster, &hello, args.herds).await?);
    }
    if args.selects(&["pause"]) {
        rows.push(pause::run(&cluster, &image, &hello.options, args.pairs).await?);
    }
    if args.selects(&["wake20_total"]) {
        rows.extend(wake20::run(&cluster, &image, &hello.options, args.wakes).await?);
    }
    if args.selects(&["quiet_beside_storm"]) {
        rows.extend(storm::run(&cluster, &hello, &image, args.storms).await?);
    }
    if args.selects(&["warm_added_ms"]) {
        rows.push(warm::run(&cluster, &hello, args.warm).await?);
    }
    if args.selects(&["python"]) {
        let image = image::python_app(cluster.docker()).await?;
        let python = IdleService::deploy(&cluster, "python", &image).await?;
        let case = Case {
            case: "python",
            metric: "python",
            vs_baseline: "python_vs_baseline",
            bar: 1.05,
            network: RawNetwork::Bridge,
        };
        rows.extend(pairs::run(&cluster, &python, args.python_pairs, case).await?);
    }
    cluster.finish().await?;
    Ok(rows)
}

/// Measures all rows with an idle sandbox for each start.
async fn in_sandboxes(args: &Args) -> Result<Vec<Row>> {
    let cluster = args.cluster("1").await?;
    cluster.wait_sandboxes(1, SOON).await?;
    let mut rows = Vec::new();
    if args.selects(&["remove+sandbox"]) {
        let image = image::sample_app(cluster.docker()).await?;
        let hello = IdleService::deploy(&cluster, "cold", &image).await?;
        ensure!(
            hello.options.sandbox.is_some(),
            "the first start did not use a sandbox"
        );
        let case = Case {
            case: "static",
            metric: "remove+sandbox",
            vs_baseline: "remove+sandbox_vs_baseline",
            bar: 0.55,
            network: RawNetwork::Bridge,
        };
        rows.extend(pairs::run(&cluster, &hello, args.pairs, case).await?);
    }
    if args.selects(&["python+sandbox"]) {
        cluster.wait_sandboxes(1, SOON).await?;
        let image = image::python_app(cluster.docker()).await?;
        let python = IdleService::deploy(&cluster, "python", &image).await?;
        let case = Case {
            case: "python",
            metric: "python+sandbox",
            vs_baseline: "python+sandbox_vs_baseline",
            bar: 1.05,
            network: RawNetwork::Prepared,
        };
        rows.extend(pairs::run(&cluster, &python, args.python_pairs, case).await?);
    }
    cluster.finish().await?;
    Ok(rows)
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// A node: 0 is this build, 1 the baseline.
    Node(usize),
    /// Raw engine calls, or the reference that replaces them.
    Reference,
}

/// The sides in the order of a round: the order is reversed in every other round.
fn sides(nodes: usize, round: usize) -> Vec<Side> {
    let mut sides = vec![Side::Node(0), Side::Reference];
    sides.extend((1..nodes).map(Side::Node));
    if round % 2 == 1 {
        sides.reverse();
    }
    sides
}

/// The row that compares the median of this build with that of the baseline, if there is one.
fn vs_baseline(case: &'static str, metric: &'static str, by_node: &[Vec<Duration>]) -> Option<Row> {
    let [ours, baseline, ..] = by_node else {
        return None;
    };
    Some(Row {
        case,
        metric,
        better: Better::Lower,
        ours: millis(median(ours)),
        reference: Some((millis(median(baseline)), "baseline")),
        bar: None,
    })
}

/// A service whose container is removed one second after its last request.
struct IdleService {
    service: &'static str,
    host: String,
    /// The options that its container was created with.
    options: Options,
}

impl IdleService {
    /// Deploys the service and starts it once on each node.
    async fn deploy(cluster: &Cluster, service: &'static str, image: &str) -> Result<Self> {
        let settings = v1::ServiceSettings {
            concurrency: Some(100),
            max_instances: Some(1),
            idle_timeout: duration(Duration::from_secs(1)),
            ..settings()
        };
        cluster.serve(service, image, settings).await?;
        let host = Cluster::host(service);
        let mut options = None;
        for node in cluster.nodes() {
            cluster.wait_containers(service, 0, SOON).await?;
            let response = node.get(&host, "/").await?;
            ensure!(
                response.status == 200,
                "the first start failed: {response:?}"
            );
            let container = cluster.wait_containers(service, 1, SOON).await?.remove(0);
            if options.is_none() {
                options = Some(Options::of(cluster.docker(), &container.id).await?);
            }
        }
        Ok(Self {
            service,
            host,
            options: options.context("the cluster has no node")?,
        })
    }

    /// Waits until its containers are removed and, with sandboxes, an idle one is available.
    async fn wait_removed(&self, cluster: &Cluster) -> Result<()> {
        cluster.wait_containers(self.service, 0, SOON).await?;
        if self.options.sandbox.is_some() {
            cluster.wait_sandboxes(1, SOON).await?;
        }
        sleep(SETTLE).await;
        Ok(())
    }

    /// The time of one request that starts a container, on an open connection to a node.
    async fn cold_request(&self, cluster: &Cluster, node: usize) -> Result<Duration> {
        let mut connection = Connection::open(cluster.node(node).listen).await?;
        let begin = Instant::now();
        let response = connection.get(&self.host, "/").await?;
        let took = begin.elapsed();
        ensure!(response.status == 200, "{response:?}");
        Ok(took)
    }

    /// The breakdown that a node has reported of its last start.
    async fn reported(&self, cluster: &Cluster, node: usize) -> Result<v1::ColdStart> {
        // Nodes coalesce reports over 100 ms.
        sleep(SETTLE).await;
        let name = format!("nodes/{}", cluster.node(node).name);
        let version = cluster.api()?.version(self.service, 1).await?;
        let mut nodes = version.status.unwrap_or_default().nodes.into_iter();
        let status = nodes.find(|status| status.node == name);
        let start = status.and_then(|status| status.last_cold_start);
        start.with_context(|| format!("{name} has not reported a start of {}", self.service))
    }

    /// Whether its container now uses a sandbox.
    async fn is_in_sandbox(&self, cluster: &Cluster) -> Result<bool> {
        let found = cluster.wait_containers(self.service, 1, SOON).await?;
        let sandbox = engine::sandbox_of(cluster.docker(), &found[0].id).await?;
        Ok(sandbox.is_some())
    }
}
