//! `cless-bench-cold`: what a cold start through cless costs, beside the engine's own cost.
//!
//! Pairs, interleaved, each side first in every other pair:
//!
//! - *ours*: one request through the proxy to a version whose last container has been removed;
//! - *raw*: create, start, inspect, a TCP probe every millisecond, one GET, straight against the
//!   engine, with the very options cless gave its container: they are read off one of its containers.
//!
//! Also: waking from pause against a raw unpause, a hundred requests at once to a sleeping version
//! against one cold start, and the latency the proxy adds to a warm request. Times are of the caller:
//! nothing is asked of cless about itself but the breakdown by phase.

#[path = "bench_cold/pause.rs"]
mod pause;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions};
use clap::Parser;
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::http_client::{Connection, get};
use cless_tests::report::{self, Better, Row};
use cless_tests::stats::{median, millis, quantile};
use cless_tests::{engine, image};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SERVICE: &str = "cold";
const HOST: &str = "cold.localhost";
const SOON: Duration = Duration::from_secs(30);
/// What the engine has still to tidy up after a removal must not fall into the next measurement.
const SETTLE: Duration = Duration::from_millis(150);

/// Measures cold starts through cless against raw engine calls.
#[derive(Parser)]
struct Args {
    /// Pairs of cold starts.
    #[arg(long, default_value_t = 30)]
    pairs: usize,
    /// Rounds of a hundred requests at once.
    #[arg(long, default_value_t = 10)]
    herds: usize,
    /// Warm requests on each side.
    #[arg(long, default_value_t = 2000)]
    warm: usize,
}

/// Where the time of one raw start went.
#[derive(Default)]
struct RawStarts {
    create: Vec<Duration>,
    start: Vec<Duration>,
    ready: Vec<Duration>,
    get: Vec<Duration>,
    total: Vec<Duration>,
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let cluster = Cluster::start(1).await?;
    let image = image::sample_app(cluster.docker()).await?;
    let settings = v1::ServiceSettings {
        concurrency: Some(100),
        max_instances: Some(1),
        idle_timeout: duration(Duration::from_secs(1)),
        ..settings()
    };
    cluster.serve(SERVICE, &image, settings).await?;
    ensure!(
        cluster.get(SERVICE, "/").await?.status == 200,
        "the first start failed"
    );
    let body = same_options(&cluster).await?;

    let (ours, raw) = cold_pairs(&cluster, &body, args.pairs).await?;
    say("Median phases in ms (the first start of each side is in them):");
    say(&format!(
        "  raw:   create {:.1}, start {:.1}, inspect and probe {:.1}, GET {:.1}, total {:.1}",
        millis(median(&raw.create)),
        millis(median(&raw.start)),
        millis(median(&raw.ready)),
        millis(median(&raw.get)),
        millis(median(&raw.total)),
    ));
    say(&format!(
        "  cless: {}, total seen by the caller {:.1}",
        ours.phases(),
        ours.total_ms()
    ));
    let (herd, single) = herds(&cluster, args.herds).await?;
    let wakes = pause::wakes(&cluster, &image, &body, args.pairs).await?;
    let added = warm_added(&cluster, args.warm).await?;
    cluster.finish().await?;

    let rows = [
        Row {
            case: "static",
            metric: "remove",
            better: Better::Lower,
            ours: ours.total_ms(),
            reference: Some((millis(median(&raw.total)), "raw engine calls")),
            bar: Some(1.05),
        },
        Row {
            case: "static",
            metric: "herd100_p99",
            better: Better::Lower,
            ours: millis(median(&herd)),
            reference: Some((millis(median(&single)), "one cold start")),
            bar: Some(1.1),
        },
        wakes,
        Row {
            case: "static",
            metric: "warm_added_ms",
            better: Better::Lower,
            ours: added,
            reference: None,
            bar: Some(0.5),
        },
    ];
    say(&format!("\n{}", report::table(&rows)));
    say(&format!(
        "written to {}",
        report::write("cold", &rows)?.display()
    ));
    Ok(())
}

/// Cold starts through the proxy.
#[derive(Default)]
struct OurStarts {
    total: Vec<Duration>,
    reported: Vec<v1::ColdStart>,
}

impl OurStarts {
    fn total_ms(&self) -> f64 {
        millis(median(&self.total))
    }

    fn phases(&self) -> String {
        let of = |phase: fn(&v1::ColdStart) -> Option<prost_types::Duration>| {
            let times: Vec<Duration> = self
                .reported
                .iter()
                .filter_map(phase)
                .filter_map(|d| d.try_into().ok())
                .collect();
            millis(median(&times))
        };
        format!(
            "queue {:.1}, create {:.1}, start {:.1}, ready {:.1}, total by its own count {:.1}",
            of(|c| c.queue),
            of(|c| c.create),
            of(|c| c.start),
            of(|c| c.ready),
            of(|c| c.total)
        )
    }
}

/// The body that creates a container as cless created its own.
async fn same_options(cluster: &Cluster) -> Result<ContainerCreateBody> {
    let container = cluster.wait_containers(SERVICE, 1, SOON).await?.remove(0);
    let docker = cluster.docker();
    let found = docker
        .inspect_container(&container.id, None::<InspectContainerOptions>)
        .await?;
    let (config, host) = (found.config.unwrap_or_default(), found.host_config);
    Ok(ContainerCreateBody {
        image: config.image,
        env: config.env,
        cmd: config.cmd,
        entrypoint: config.entrypoint,
        exposed_ports: config.exposed_ports,
        stop_signal: config.stop_signal,
        stop_timeout: config.stop_timeout,
        user: config.user,
        host_config: host,
        ..Default::default()
    })
}

async fn cold_pairs(
    cluster: &Cluster,
    body: &ContainerCreateBody,
    pairs: usize,
) -> Result<(OurStarts, RawStarts)> {
    let (mut ours, mut raw) = (OurStarts::default(), RawStarts::default());
    say(&format!("{pairs} pairs of cold starts"));
    for pair in 0..pairs {
        asleep(cluster).await?;
        if pair % 2 == 0 {
            ours.total.push(cold_request(cluster).await?);
            ours.reported.extend(reported(cluster).await?);
            asleep(cluster).await?;
            raw_start(cluster.docker(), body, &mut raw).await?;
        } else {
            raw_start(cluster.docker(), body, &mut raw).await?;
            sleep(SETTLE).await;
            ours.total.push(cold_request(cluster).await?);
            ours.reported.extend(reported(cluster).await?);
        }
    }
    Ok((ours, raw))
}

/// Waits until no container of the service is left.
async fn asleep(cluster: &Cluster) -> Result<()> {
    cluster.wait_containers(SERVICE, 0, SOON).await?;
    sleep(SETTLE).await;
    Ok(())
}

/// One request from zero, connection included.
async fn cold_request(cluster: &Cluster) -> Result<Duration> {
    let begin = Instant::now();
    let answer = cluster.get(SERVICE, "/").await?;
    let took = begin.elapsed();
    ensure!(answer.status == 200, "{answer:?}");
    Ok(took)
}

/// The breakdown the node has reported of its last start.
async fn reported(cluster: &Cluster) -> Result<Option<v1::ColdStart>> {
    // Reports are coalesced over 100 ms.
    sleep(SETTLE).await;
    let version = cluster.api()?.version(SERVICE, 1).await?;
    let nodes = version.status.unwrap_or_default().nodes;
    Ok(nodes.into_iter().find_map(|node| node.last_cold_start))
}

async fn raw_start(docker: &Docker, body: &ContainerCreateBody, raw: &mut RawStarts) -> Result<()> {
    let begin = Instant::now();
    let id = docker
        .create_container(None::<CreateContainerOptions>, body.clone())
        .await?
        .id;
    let created = begin.elapsed();
    let outcome = async {
        docker.start_container(&id, None).await?;
        let started = begin.elapsed();
        let address = engine::address(docker, &id, 8080).await?;
        while TcpStream::connect(address).await.is_err() {
            ensure!(begin.elapsed() < SOON, "the raw container does not listen");
            sleep(Duration::from_millis(1)).await;
        }
        let ready = begin.elapsed();
        let answer = get(address, HOST, "/").await?;
        let total = begin.elapsed();
        ensure!(answer.status == 200, "{answer:?}");
        raw.create.push(created);
        raw.start.push(started - created);
        raw.ready.push(ready - started);
        raw.get.push(total - ready);
        raw.total.push(total);
        Ok(())
    }
    .await;
    engine::remove(docker, &id).await?;
    outcome
}

/// A hundred requests at once from zero: the 99th percentile of each round; beside each, one cold
/// start alone.
async fn herds(cluster: &Cluster, rounds: usize) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut herd, mut single) = (Vec::new(), Vec::new());
    say(&format!(
        "{rounds} rounds of 100 requests at once, each beside one cold start"
    ));
    for _ in 0..rounds {
        asleep(cluster).await?;
        single.push(cold_request(cluster).await?);
        asleep(cluster).await?;
        let mut requests = JoinSet::new();
        let address = cluster.node(0).listen;
        for _ in 0..100 {
            let mut connection = Connection::open(address).await?;
            requests.spawn(async move {
                let begin = Instant::now();
                let answer = connection.get(HOST, "/").await?;
                ensure!(answer.status == 200, "{answer:?}");
                Ok(begin.elapsed())
            });
        }
        let mut times = Vec::new();
        while let Some(time) = requests.join_next().await {
            times.push(time??);
        }
        let started = cluster.containers(Some(SERVICE)).await?.len();
        ensure!(
            started == 1,
            "{started} containers were started for one herd"
        );
        herd.push(quantile(&times, 0.99));
    }
    Ok((herd, single))
}

/// The median a warm request takes through the proxy, less straight to the container, in ms.
async fn warm_added(cluster: &Cluster, requests: usize) -> Result<f64> {
    say(&format!("{requests} warm requests on each side, in turn"));
    cold_request(cluster).await?;
    let container = cluster.wait_containers(SERVICE, 1, SOON).await?.remove(0);
    let address = engine::address(cluster.docker(), &container.id, 8080).await?;
    let mut direct = Connection::open(address).await?;
    let mut proxied = Connection::open(cluster.node(0).listen).await?;
    let (mut through, mut straight) = (Vec::new(), Vec::new());
    for _ in 0..requests {
        for (connection, times) in [(&mut proxied, &mut through), (&mut direct, &mut straight)] {
            let begin = Instant::now();
            let answer = connection.get(HOST, "/").await?;
            times.push(begin.elapsed());
            ensure!(answer.status == 200, "{answer:?}");
        }
    }
    let (through, straight) = (millis(median(&through)), millis(median(&straight)));
    say(&format!(
        "warm: {through:.3} ms through the proxy, {straight:.3} ms straight"
    ));
    Ok(through - straight)
}
