//! A hundred concurrent requests to a version without a container, compared with a single one: one
//! start serves all of them.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_tests::cluster::Cluster;
use cless_tests::http_client::Connection;
use cless_tests::report::{Better, Row, print_line};
use cless_tests::stats::{median, millis, quantile};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{IdleService, Side, sides, vs_baseline};

const REQUESTS: usize = 100;

pub(crate) async fn run(
    cluster: &Cluster,
    service: &IdleService,
    rounds: usize,
) -> Result<Vec<Row>> {
    print_line(&format!(
        "\nherd100_p99: {rounds} rounds of {REQUESTS} concurrent requests, each with one single cold start"
    ));
    let nodes = cluster.nodes().len();
    let (mut herd, mut single) = (vec![Vec::new(); nodes], Vec::new());
    for round in 0..rounds {
        for side in sides(nodes, round) {
            service.wait_removed(cluster).await?;
            match side {
                Side::Node(node) => {
                    let times = concurrent_requests(cluster, service, node).await?;
                    herd[node].push(quantile(&times, 0.99));
                }
                Side::Reference => single.push(service.cold_request(cluster, 0).await?),
            }
        }
    }
    let row = Row {
        case: "static",
        metric: "herd100_p99",
        better: Better::Lower,
        ours: millis(median(&herd[0])),
        reference: Some((millis(median(&single)), "one cold start")),
        bar: Some(1.1),
    };
    let baseline = vs_baseline("static", "herd100_p99_vs_baseline", &herd);
    Ok([row].into_iter().chain(baseline).collect())
}

/// The time of each request; connections are opened before.
async fn concurrent_requests(
    cluster: &Cluster,
    service: &IdleService,
    node: usize,
) -> Result<Vec<Duration>> {
    let mut connections = Vec::new();
    for _ in 0..REQUESTS {
        connections.push(Connection::open(cluster.node(node).listen).await?);
    }
    let mut requests = JoinSet::new();
    for mut connection in connections {
        let host = service.host.clone();
        requests.spawn(async move {
            let begin = Instant::now();
            let response = connection.get(&host, "/").await?;
            ensure!(response.status == 200, "{response:?}");
            Ok(begin.elapsed())
        });
    }
    let mut times = Vec::new();
    while let Some(time) = requests.join_next().await {
        times.push(time??);
    }
    let started = cluster.containers(Some(service.service)).await?.len();
    ensure!(
        started == 1,
        "{started} containers were started for one herd"
    );
    Ok(times)
}
