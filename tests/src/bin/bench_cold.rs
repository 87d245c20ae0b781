//! `cless-bench-cold`: what a cold start through cless costs, beside the engine's own cost.
//!
//! Each row is measured in rounds, both sides in each, each side first in every other round:
//!
//! - *ours*: requests through the proxy to versions whose last container has been removed, or sleeps;
//! - *raw*: create, start, inspect, a TCP probe every millisecond, one GET, straight against the
//!   engine, with the very options cless gave its container: they are read off one of its containers.
//!
//! Times are of the caller: nothing is asked of cless about itself but the breakdown by phase.
//!
//! | file | rows |
//! |---|---|
//! | `pairs.rs` | `remove`, `remove+sandbox`, `python`, `python+sandbox` |
//! | `pause.rs` | `pause` |
//! | `herd.rs` | `herd100_p99` |
//! | `wake20.rs` | `wake20_total` |
//! | `warm.rs` | `warm_added_ms` |
//!
//! `raw.rs` is the raw side of all of them. `--only` runs some of the rows, and keeps what the file
//! had of the others.

#[path = "bench_cold/herd.rs"]
mod herd;
#[path = "bench_cold/pairs.rs"]
mod pairs;
#[path = "bench_cold/pause.rs"]
mod pause;
#[path = "bench_cold/raw.rs"]
mod raw;
#[path = "bench_cold/wake20.rs"]
mod wake20;
#[path = "bench_cold/warm.rs"]
mod warm;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use cless_proto::v1;
use cless_tests::cluster::{Cluster, NodeSetup, duration, settings};
use cless_tests::http_client::Connection;
use cless_tests::report::{self, Row};
use cless_tests::{engine, image};
use tokio::time::{Instant, sleep};

use pairs::Against;
use raw::Options;

const SOON: Duration = Duration::from_secs(30);
/// What the engine has still to tidy up after a removal must not fall into the next measurement.
const SETTLE: Duration = Duration::from_millis(150);

const ROWS: [&str; 8] = [
    "remove",
    "remove+sandbox",
    "python",
    "python+sandbox",
    "pause",
    "herd100_p99",
    "wake20_total",
    "warm_added_ms",
];

/// Measures cold starts through cless against raw engine calls.
#[derive(Parser)]
struct Args {
    /// Pairs of cold starts of the static server, and of wakes.
    #[arg(long, default_value_t = 30)]
    pairs: usize,
    /// Pairs of cold starts of the Python app.
    #[arg(long, default_value_t = 20)]
    python_pairs: usize,
    /// Rounds of a hundred requests at once.
    #[arg(long, default_value_t = 24)]
    herds: usize,
    /// Rounds of twenty services woken at once.
    #[arg(long, default_value_t = 3)]
    wakes: usize,
    /// Warm requests on each side.
    #[arg(long, default_value_t = 2000)]
    warm: usize,
    /// Only these rows, by their metric.
    #[arg(long, value_delimiter = ',', value_parser = ROWS)]
    only: Vec<String>,
}

impl Args {
    fn wants(&self, metrics: &[&str]) -> bool {
        self.only.is_empty() || metrics.iter().any(|m| self.only.iter().any(|o| o == m))
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut rows = Vec::new();
    if args.wants(&[
        "remove",
        "python",
        "pause",
        "herd100_p99",
        "wake20_total",
        "warm_added_ms",
    ]) {
        rows.extend(Box::pin(on_the_bridge(&args)).await?);
    }
    if args.wants(&["remove+sandbox", "python+sandbox"]) {
        rows.extend(Box::pin(in_sandboxes(&args)).await?);
    }
    say(&format!("\n{}", report::table(&rows)));
    let path = match args.only.is_empty() {
        true => report::write("cold", &rows)?,
        false => report::update("cold", &rows)?,
    };
    say(&format!("written to {}", path.display()));
    Ok(())
}

/// All that is measured with sandboxes turned off.
async fn on_the_bridge(args: &Args) -> Result<Vec<Row>> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(&["--sandboxes", "0"])).await?;
    let image = image::sample_app(cluster.docker()).await?;
    let hello = Sleeper::serve(&cluster, "cold", &image).await?;
    let mut rows = Vec::new();
    if args.wants(&["remove"]) {
        let case = ("static", "remove", 1.05);
        rows.push(pairs::run(&cluster, &hello, args.pairs, Against::Bridge, case).await?);
    }
    if args.wants(&["herd100_p99"]) {
        rows.push(herd::run(&cluster, &hello, args.herds).await?);
    }
    if args.wants(&["pause"]) {
        rows.push(pause::run(&cluster, &image, &hello.options, args.pairs).await?);
    }
    if args.wants(&["wake20_total"]) {
        rows.push(wake20::run(&cluster, &image, &hello.options, args.wakes).await?);
    }
    if args.wants(&["warm_added_ms"]) {
        rows.push(warm::run(&cluster, &hello, args.warm).await?);
    }
    if args.wants(&["python"]) {
        let image = image::python_app(cluster.docker()).await?;
        let python = Sleeper::serve(&cluster, "python", &image).await?;
        let case = ("python", "python", 1.05);
        rows.push(pairs::run(&cluster, &python, args.python_pairs, Against::Bridge, case).await?);
    }
    cluster.finish().await?;
    Ok(rows)
}

/// All that is measured with a sandbox ready for each start.
async fn in_sandboxes(args: &Args) -> Result<Vec<Row>> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(&["--sandboxes", "1"])).await?;
    cluster.wait_sandboxes(1, SOON).await?;
    let mut rows = Vec::new();
    if args.wants(&["remove+sandbox"]) {
        let image = image::sample_app(cluster.docker()).await?;
        let hello = Sleeper::serve(&cluster, "cold", &image).await?;
        ensure!(
            hello.options.sandbox.is_some(),
            "the first start is not in a sandbox"
        );
        let case = ("static", "remove+sandbox", 0.55);
        rows.push(pairs::run(&cluster, &hello, args.pairs, Against::Bridge, case).await?);
    }
    if args.wants(&["python+sandbox"]) {
        cluster.wait_sandboxes(1, SOON).await?;
        let image = image::python_app(cluster.docker()).await?;
        let python = Sleeper::serve(&cluster, "python", &image).await?;
        let case = ("python", "python+sandbox", 1.05);
        rows.push(pairs::run(&cluster, &python, args.python_pairs, Against::Sandbox, case).await?);
    }
    cluster.finish().await?;
    Ok(rows)
}

/// A service that is removed a second after its last request.
struct Sleeper {
    service: &'static str,
    host: String,
    /// With which its container was made.
    options: Options,
}

impl Sleeper {
    /// Deploys it and starts it once.
    async fn serve(cluster: &Cluster, service: &'static str, image: &str) -> Result<Self> {
        let settings = v1::ServiceSettings {
            concurrency: Some(100),
            max_instances: Some(1),
            idle_timeout: duration(Duration::from_secs(1)),
            ..settings()
        };
        cluster.serve(service, image, settings).await?;
        let answer = cluster.get(service, "/").await?;
        ensure!(answer.status == 200, "the first start failed: {answer:?}");
        let container = cluster.wait_containers(service, 1, SOON).await?.remove(0);
        Ok(Self {
            service,
            host: Cluster::host(service),
            options: Options::of(cluster.docker(), &container.id).await?,
        })
    }

    /// Waits until no container of it is left and, where there are sandboxes, one is ready.
    async fn asleep(&self, cluster: &Cluster) -> Result<()> {
        cluster.wait_containers(self.service, 0, SOON).await?;
        if self.options.sandbox.is_some() {
            cluster.wait_sandboxes(1, SOON).await?;
        }
        sleep(SETTLE).await;
        Ok(())
    }

    /// One request from zero, on a connection that is open.
    async fn wake(&self, cluster: &Cluster) -> Result<Duration> {
        let mut connection = Connection::open(cluster.node(0).listen).await?;
        let begin = Instant::now();
        let answer = connection.get(&self.host, "/").await?;
        let took = begin.elapsed();
        ensure!(answer.status == 200, "{answer:?}");
        Ok(took)
    }

    /// The breakdown the node has reported of its last start.
    async fn reported(&self, cluster: &Cluster) -> Result<v1::ColdStart> {
        // Reports are coalesced over 100 ms.
        sleep(SETTLE).await;
        let version = cluster.api()?.version(self.service, 1).await?;
        let nodes = version.status.unwrap_or_default().nodes;
        match nodes.into_iter().find_map(|node| node.last_cold_start) {
            Some(cold_start) => Ok(cold_start),
            None => bail!("the node has not reported a start of {}", self.service),
        }
    }

    /// Whether its container is in a sandbox now.
    async fn joined(&self, cluster: &Cluster) -> Result<bool> {
        let found = cluster.wait_containers(self.service, 1, SOON).await?;
        let joined = engine::sandbox_of(cluster.docker(), &found[0].id).await?;
        Ok(joined.is_some())
    }
}
