//! Twenty sleeping services woken at once, beside the engine's own twenty.
//!
//! Starts are CPU-bound, so how many run at a time matters more than anything else. The raw side is
//! measured with several limits, and the best of them is the reference.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::http_client::Connection;
use cless_tests::report::{Better, Row};
use cless_tests::stats::{median, millis};
use cless_tests::{engine, wait};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::raw::{self, Options};
use crate::{SETTLE, say};

const SERVICES: usize = 20;
/// How many raw starts run at a time; the last is no limit.
const LIMITS: [usize; 5] = [1, 2, 3, 4, SERVICES];
/// Longer than all twenty take, so that none is removed while others start.
const IDLE: Duration = Duration::from_secs(12);
const LONG: Duration = Duration::from_secs(60);

/// `rounds` of all.
pub(crate) async fn run(
    cluster: &Cluster,
    image: &str,
    options: &Options,
    rounds: usize,
) -> Result<Row> {
    say(&format!(
        "\nwake20_total: {rounds} rounds of {SERVICES} services woken at once"
    ));
    let services: Vec<String> = (0..SERVICES).map(|n| format!("wake{n}")).collect();
    for service in &services {
        let settings = v1::ServiceSettings {
            idle_timeout: duration(IDLE),
            ..settings()
        };
        cluster.serve(service, image, settings).await?;
    }
    let docker = cluster.docker();
    let (mut ours, mut raw) = (Vec::new(), LIMITS.map(|_| Vec::new()));
    for round in 0..rounds {
        for ours_first in [round % 2 == 0, round % 2 == 1] {
            if ours_first {
                ours.push(through_the_proxy(cluster, &services).await?);
                all_asleep(cluster, &services).await?;
            } else {
                for (limit, times) in LIMITS.into_iter().zip(&mut raw) {
                    times.push(by_hand(docker, options, limit).await?);
                    sleep(SETTLE).await;
                }
            }
        }
    }
    let raw = raw.map(|times| millis(median(&times)));
    let told: Vec<String> = LIMITS
        .iter()
        .zip(raw)
        .map(|(limit, ms)| format!("{limit}: {ms:.0}"))
        .collect();
    say(&format!(
        "  raw ms by starts at a time: {}",
        told.join(", ")
    ));
    let best = raw.into_iter().reduce(f64::min).context("no limits")?;
    Ok(Row {
        case: "static",
        metric: "wake20_total",
        better: Better::Lower,
        ours: millis(median(&ours)),
        reference: Some((best, "raw engine calls at their best limit")),
        bar: Some(1.05),
    })
}

/// Until the last of twenty requests is answered.
async fn through_the_proxy(cluster: &Cluster, services: &[String]) -> Result<Duration> {
    let mut connections = Vec::new();
    for _ in services {
        connections.push(Connection::open(cluster.node(0).listen).await?);
    }
    let begin = Instant::now();
    let mut requests = JoinSet::new();
    for (mut connection, service) in connections.into_iter().zip(services) {
        let host = Cluster::host(service);
        requests.spawn(async move {
            let answer = connection.get(&host, "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        });
    }
    while let Some(answered) = requests.join_next().await {
        answered??;
    }
    Ok(begin.elapsed())
}

/// Waits until nothing of them is left.
async fn all_asleep(cluster: &Cluster, services: &[String]) -> Result<()> {
    wait::until("all twenty are removed", LONG, async || {
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

/// Until the last of twenty containers has answered.
async fn by_hand(docker: &Docker, options: &Options, limit: usize) -> Result<Duration> {
    let places = std::sync::Arc::new(Semaphore::new(limit));
    let begin = Instant::now();
    let mut starts = JoinSet::new();
    for _ in 0..SERVICES {
        let (docker, options, places) = (docker.clone(), options.clone(), places.clone());
        starts.spawn(async move { raw::within(&docker, &options, &places).await });
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
