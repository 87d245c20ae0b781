//! End-to-end tests: real processes, real containers, requests over HTTP.
//!
//! Each test has a cluster of its own and ends with `finish`, which asserts that nothing is left on
//! the engine. Times are bounds against hanging, never measurements: what is measured is printed.

mod cli;
mod demo;
mod engine_restart;
mod engine_trouble;
mod failure;
mod faults;
mod feed_simulation;
mod grpc;
mod grpcurl;
mod http2;
mod images;
mod isolation;
mod lifecycle;
mod limits;
mod ownership;
mod pause;
mod phases;
mod proxy;
mod readiness;
mod routing;
mod sandbox;
mod store;
mod streams;
mod tls;
mod websocket;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cless_proto::v1;
use cless_tests::cluster::Cluster;
use cless_tests::{engine, http_client, image, wait};
use std::net::SocketAddr;
use tokio::sync::OnceCell;

/// Enough for anything that must happen soon, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);

/// The image of the sample app, made once.
async fn sample() -> Result<&'static str> {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    let made = IMAGE
        .get_or_try_init(async || anyhow::Ok(image::sample_app(&engine::connect().await?).await?))
        .await?;
    Ok(made)
}

/// The image of Debian's nginx, made once.
async fn nginx() -> Result<&'static str> {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    let made = IMAGE
        .get_or_try_init(async || anyhow::Ok(image::nginx(&engine::connect().await?).await?))
        .await?;
    Ok(made)
}

/// The image of the gRPC service, made once.
async fn grpc_app() -> Result<&'static str> {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    let made = IMAGE
        .get_or_try_init(async || anyhow::Ok(image::grpc_app(&engine::connect().await?).await?))
        .await?;
    Ok(made)
}

/// A service with one version of this specification that gets all traffic.
async fn serve_spec(
    cluster: &Cluster,
    service: &str,
    settings: v1::ServiceSettings,
    spec: v1::VersionSpec,
) -> Result<()> {
    let mut api = cluster.api()?;
    api.create_service(service, settings).await?;
    let version = api.create_version_of(service, spec).await?;
    cluster
        .set_traffic(service, &[(version.number, 100)])
        .await?;
    Ok(())
}

/// The sample app with this environment.
async fn sample_spec(env: &[(&str, &str)]) -> Result<v1::VersionSpec> {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Ok(v1::VersionSpec {
        image: sample().await?.to_owned(),
        env: env.collect(),
        ..Default::default()
    })
}

/// The failure that a node last reported of version 1.
async fn reported_failure(cluster: &Cluster, service: &str) -> Result<v1::StartFailure> {
    wait::until("the failure is in the version's status", SOON, async || {
        let version = cluster.api()?.version(service, 1).await?;
        let nodes = version.status.unwrap_or_default().nodes;
        Ok(nodes.into_iter().find_map(|node| node.last_failure))
    })
    .await
}

/// Sends `count` GETs, `parallel` at a time, each on a connection of its own, and counts the answers
/// by their text. Any answer but 200 is an error.
async fn count_answers(
    address: SocketAddr,
    host: &str,
    count: usize,
    parallel: usize,
) -> Result<BTreeMap<String, usize>> {
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..parallel {
        let host = host.to_owned();
        let share = count / parallel + usize::from(worker < count % parallel);
        workers.spawn(async move {
            let mut counts = BTreeMap::new();
            for _ in 0..share {
                let answer = http_client::get(address, &host, "/").await?;
                anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
                *counts.entry(answer.text().trim().to_owned()).or_insert(0) += 1;
            }
            anyhow::Ok(counts)
        });
    }
    let mut total = BTreeMap::new();
    while let Some(counts) = workers.join_next().await {
        for (text, n) in counts.context("a worker panicked")?? {
            *total.entry(text).or_insert(0) += n;
        }
    }
    Ok(total)
}
