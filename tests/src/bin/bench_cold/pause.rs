//! Resuming a paused instance: one request through the proxy, compared with a raw unpause and one
//! GET to a container with the same options.

use std::time::Duration;

use anyhow::{Result, ensure};
use bollard::Docker;
use bollard::query_parameters::CreateContainerOptions;
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::engine;
use cless_tests::http_client::get;
use cless_tests::report::{Better, Row, print_line};
use cless_tests::stats::{median, millis};
use tokio::time::{Instant, sleep};

use crate::raw::Options;
use crate::{SETTLE, SOON, Side, sides};

const SERVICE: &str = "pausing";
const HOST: &str = "pausing.localhost";
const PORT: u16 = 8080;

/// Measures `pairs` of resumes; the sides take turns at going first.
pub(crate) async fn run(
    cluster: &Cluster,
    image: &str,
    options: &Options,
    pairs: usize,
) -> Result<Row> {
    print_line(&format!("\npause: {pairs} pairs of resumes"));
    let settings = v1::ServiceSettings {
        pause_after: duration(Duration::from_millis(100)),
        idle_timeout: duration(Duration::from_secs(600)),
        ..settings()
    };
    cluster.serve(SERVICE, image, settings).await?;
    let response = cluster.get(SERVICE, "/").await?;
    ensure!(response.status == 200, "the start failed: {response:?}");
    let docker = cluster.docker();
    let raw = docker
        .create_container(None::<CreateContainerOptions>, options.body.clone())
        .await?
        .id;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let outcome = async {
        docker.start_container(&raw, None).await?;
        for pair in 0..pairs {
            for side in sides(1, pair) {
                match side {
                    Side::Node(_) => ours.push(resume(cluster).await?),
                    Side::Reference => theirs.push(raw_resume(docker, &raw).await?),
                }
            }
        }
        anyhow::Ok(())
    }
    .await;
    engine::remove(docker, &raw).await?;
    outcome?;
    Ok(Row {
        case: "static",
        metric: "pause",
        better: Better::Lower,
        ours: millis(median(&ours)),
        reference: Some((millis(median(&theirs)), "raw unpause and GET")),
        bar: Some(1.15),
    })
}

async fn resume(cluster: &Cluster) -> Result<Duration> {
    cluster.wait_paused(SERVICE, SOON).await?;
    sleep(SETTLE).await;
    let begin = Instant::now();
    let response = cluster.get(SERVICE, "/").await?;
    let took = begin.elapsed();
    ensure!(response.status == 200, "{response:?}");
    // The instance is paused again before the other side runs.
    sleep(SETTLE + SETTLE).await;
    Ok(took)
}

async fn raw_resume(docker: &Docker, id: &str) -> Result<Duration> {
    let address = engine::address(docker, id, PORT).await?;
    docker.pause_container(id).await?;
    sleep(SETTLE).await;
    let begin = Instant::now();
    docker.unpause_container(id).await?;
    let response = get(address, HOST, "/").await?;
    let took = begin.elapsed();
    ensure!(response.status == 200, "{response:?}");
    Ok(took)
}
