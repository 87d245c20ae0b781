//! End-to-end tests with real processes, real containers and HTTP requests.
//!
//! Each test has its own cluster and ends with `finish`, which checks that nothing is left on the
//! engine. Time limits only detect hangs; measurements are printed and have no limits.

mod architecture;
mod cli;
mod containers;
mod demo;
mod engine_faults;
mod engine_restart;
mod failure;
mod faults;
mod feed_simulation;
mod grpc;
mod grpcurl;
mod http2;
mod hung_engine;
mod images;
mod immutable;
mod isolation;
mod lifecycle;
mod limits;
mod other_programs;
mod ownership;
mod pause;
mod phases;
mod proxy;
mod readiness;
mod routing;
mod sandbox;
mod scrape;
mod secrets_in_logs;
mod store;
mod streams;
mod tls;
mod trust;
mod wakes;
mod websocket;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_proto::v1;
use cless_tests::cluster::Cluster;
use cless_tests::{engine, http_client, image, wait};
use tokio::sync::OnceCell;

/// Enough time for anything that happens soon, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);

/// The reference of an image, which is built by the first caller.
async fn build_once(
    image: &'static OnceCell<String>,
    build: impl AsyncFnOnce(&Docker) -> Result<String, image::Error>,
) -> Result<&'static str> {
    let built = async move || anyhow::Ok(build(&engine::connect().await?).await?);
    Ok(image.get_or_try_init(built).await?)
}

/// The image of the sample app.
async fn sample() -> Result<&'static str> {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    build_once(&IMAGE, image::sample_app).await
}

/// The image of Debian's nginx.
async fn nginx() -> Result<&'static str> {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    build_once(&IMAGE, image::nginx).await
}

/// The image of the gRPC service.
async fn grpc_app() -> Result<&'static str> {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    build_once(&IMAGE, image::grpc_app).await
}

/// A cluster of one node that serves the sample app as `hello`.
async fn hello(settings: v1::ServiceSettings) -> Result<Cluster> {
    let cluster = Cluster::start(1).await?;
    cluster.serve("hello", sample().await?, settings).await?;
    Ok(cluster)
}

/// Checks that a text contains a part.
fn contains(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "no `{part}` in: {text}");
    Ok(())
}

/// Checks that a text does not contain a part.
fn lacks(text: &str, part: &str) -> Result<()> {
    ensure!(!text.contains(part), "`{part}` in: {text}");
    Ok(())
}

/// Checks that a service responds with 200 through node 0.
async fn check_serves(cluster: &Cluster, service: &str) -> Result<()> {
    let response = cluster.get(service, "/").await?;
    ensure!(response.status == 200, "{service}: {response:?}");
    Ok(())
}

/// Waits until a service responds with 200 through node 0.
async fn wait_serves(cluster: &Cluster, service: &str, within: Duration) -> Result<()> {
    wait::until(&format!("{service} serves"), within, async || {
        Ok((cluster.get(service, "/").await?.status == 200).then_some(()))
    })
    .await
}

/// Creates a service with one version of this specification that gets all traffic.
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

/// A specification of the sample app with environment variables.
async fn sample_spec(env: &[(&str, &str)]) -> Result<v1::VersionSpec> {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Ok(v1::VersionSpec {
        image: sample().await?.to_owned(),
        env: env.collect(),
        ..Default::default()
    })
}

/// Waits for a node's report of a failed start of version 1.
async fn reported_failure(cluster: &Cluster, service: &str) -> Result<v1::StartFailure> {
    wait::until("the failure is in the version's status", SOON, async || {
        let version = cluster.api()?.version(service, 1).await?;
        let nodes = version.status.unwrap_or_default().nodes;
        Ok(nodes.into_iter().find_map(|node| node.last_failure))
    })
    .await
}

/// Sends `count` GETs, `parallel` at a time, each on a new connection, and counts the responses by
/// text. A status other than 200 is an error.
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
                let response = http_client::get(address, &host, "/").await?;
                ensure!(
                    response.status == 200,
                    "{}: {}",
                    response.status,
                    response.text()
                );
                *counts.entry(response.text().trim().to_owned()).or_insert(0) += 1;
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
