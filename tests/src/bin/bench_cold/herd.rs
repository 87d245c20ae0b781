//! A hundred requests at once to a sleeping version, beside one request to it: one start serves both.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_tests::cluster::Cluster;
use cless_tests::http_client::Connection;
use cless_tests::report::{Better, Row};
use cless_tests::stats::{median, millis, quantile};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Sleeper, say};

const REQUESTS: usize = 100;

/// `rounds` of both, each first in every other round.
pub(crate) async fn run(cluster: &Cluster, sleeper: &Sleeper, rounds: usize) -> Result<Row> {
    say(&format!(
        "\nherd100_p99: {rounds} rounds of {REQUESTS} requests at once, each beside one cold start"
    ));
    let (mut herd, mut single) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for herd_first in [round % 2 == 0, round % 2 == 1] {
            sleeper.asleep(cluster).await?;
            match herd_first {
                true => herd.push(quantile(&at_once(cluster, sleeper).await?, 0.99)),
                false => single.push(sleeper.wake(cluster).await?),
            }
        }
    }
    Ok(Row {
        case: "static",
        metric: "herd100_p99",
        better: Better::Lower,
        ours: millis(median(&herd)),
        reference: Some((millis(median(&single)), "one cold start")),
        bar: Some(1.1),
    })
}

/// The time of each; the connections are open before.
async fn at_once(cluster: &Cluster, sleeper: &Sleeper) -> Result<Vec<Duration>> {
    let mut connections = Vec::new();
    for _ in 0..REQUESTS {
        connections.push(Connection::open(cluster.node(0).listen).await?);
    }
    let mut requests = JoinSet::new();
    for mut connection in connections {
        let host = sleeper.host.clone();
        requests.spawn(async move {
            let begin = Instant::now();
            let answer = connection.get(&host, "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(begin.elapsed())
        });
    }
    let mut times = Vec::new();
    while let Some(time) = requests.join_next().await {
        times.push(time??);
    }
    let started = cluster.containers(Some(sleeper.service)).await?.len();
    ensure!(
        started == 1,
        "{started} containers were started for one herd"
    );
    Ok(times)
}
