//! Cold starts of twenty services at once, compared with twenty raw starts.
//!
//! Starts are CPU-bound, so the number of concurrent starts dominates the result. The raw side runs
//! with several limits, and the best of them is the reference.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::http_client::Connection;
use cless_tests::report::{Better, Row, print_line};
use cless_tests::stats::{median, millis};
use cless_tests::{engine, wait};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::raw::{self, Options};
use crate::{SETTLE, Side, sides, vs_baseline};

const SERVICES: usize = 20;
/// Limits of concurrent raw starts; the last one is no limit.
const LIMITS: [usize; 5] = [1, 2, 3, 4, SERVICES];
/// Longer than all twenty starts take, so that no container is removed meanwhile.
const IDLE_TIMEOUT: Duration = Duration::from_secs(12);
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn run(
    cluster: &Cluster,
    image: &str,
    options: &Options,
    rounds: usize,
) -> Result<Vec<Row>> {
    print_line(&format!(
        "\nwake20_total: {rounds} rounds of {SERVICES} services started at once"
    ));
    let services: Vec<String> = (0..SERVICES).map(|n| format!("wake{n}")).collect();
    for service in &services {
        let settings = v1::ServiceSettings {
            idle_timeout: duration(IDLE_TIMEOUT),
            ..settings()
        };
        cluster.serve(service, image, settings).await?;
    }
    let docker = cluster.docker();
    let nodes = cluster.nodes().len();
    let (mut ours, mut raw) = (vec![Vec::new(); nodes], LIMITS.map(|_| Vec::new()));
    for round in 0..rounds {
        for side in sides(nodes, round) {
            match side {
                Side::Node(node) => {
                    let listen = cluster.node(node).listen;
                    ours[node].push(through_the_proxy(listen, &services).await?);
                    wait_removed(cluster, &services).await?;
                }
                Side::Reference => {
                    for (limit, times) in LIMITS.into_iter().zip(&mut raw) {
                        times.push(raw_starts(docker, options, limit).await?);
                        sleep(SETTLE).await;
                    }
                }
            }
        }
    }
    let raw = raw.map(|times| millis(median(&times)));
    let by_limit: Vec<String> = LIMITS
        .iter()
        .zip(raw)
        .map(|(limit, ms)| format!("{limit}: {ms:.0}"))
        .collect();
    print_line(&format!(
        "  raw ms by concurrent starts: {}",
        by_limit.join(", ")
    ));
    let best = raw.into_iter().reduce(f64::min).context("no limits")?;
    let row = Row {
        case: "static",
        metric: "wake20_total",
        better: Better::Lower,
        ours: millis(median(&ours[0])),
        reference: Some((best, "raw engine calls at their best limit")),
        bar: Some(1.05),
    };
    let baseline = vs_baseline("static", "wake20_total_vs_baseline", &ours);
    Ok([row].into_iter().chain(baseline).collect())
}

/// The time until the last of twenty responses.
async fn through_the_proxy(listen: SocketAddr, services: &[String]) -> Result<Duration> {
    let mut connections = Vec::new();
    for _ in services {
        connections.push(Connection::open(listen).await?);
    }
    let begin = Instant::now();
    let mut requests = JoinSet::new();
    for (mut connection, service) in connections.into_iter().zip(services) {
        let host = Cluster::host(service);
        requests.spawn(async move {
            let response = connection.get(&host, "/").await?;
            ensure!(response.status == 200, "{response:?}");
            Ok(())
        });
    }
    while let Some(finished) = requests.join_next().await {
        finished??;
    }
    Ok(begin.elapsed())
}

async fn wait_removed(cluster: &Cluster, services: &[String]) -> Result<()> {
    wait::until("all twenty are removed", REMOVAL_TIMEOUT, async || {
        for service in services {
            if !cluster.containers(Some(service)).await?.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    sleep(SETTLE).await;
    Ok(())
}

/// The time until the last of twenty containers has responded.
async fn raw_starts(docker: &Docker, options: &Options, limit: usize) -> Result<Duration> {
    let permits = Arc::new(Semaphore::new(limit));
    let begin = Instant::now();
    let mut starts = JoinSet::new();
    for _ in 0..SERVICES {
        let (docker, options, permits) = (docker.clone(), options.clone(), permits.clone());
        starts.spawn(async move { raw::start_limited(&docker, &options, &permits).await });
    }
    let mut ids = Vec::new();
    while let Some(started) = starts.join_next().await {
        ids.push(started??);
    }
    let took = begin.elapsed();
    for id in ids {
        engine::remove(docker, &id).await?;
    }
    Ok(took)
}
