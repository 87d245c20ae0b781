//! Killed processes: requests continue to be served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_tests::cluster::settings;
use cless_tests::http_client::{Connection, get};
use std::net::SocketAddr;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::{SOON, check_serves, hello, sample};

/// Continuous requests, half on kept and half on new connections; each must succeed.
struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Result<usize>>,
}

impl Load {
    fn start(address: SocketAddr, host: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for worker in 0..4 {
            let stop = Arc::clone(&stop);
            workers.spawn(async move {
                let mut kept = Connection::open(address).await?;
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = if worker % 2 == 0 {
                        kept.get(host, "/").await?
                    } else {
                        get(address, host, "/").await?
                    };
                    ensure!(answer.status == 200, "after {sent}: {answer:?}");
                    sent += 1;
                    sleep(Duration::from_millis(5)).await;
                }
                Ok(sent)
            });
        }
        Self { stop, workers }
    }

    /// Stops the load and returns the number of requests, all of which succeeded.
    async fn stop(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = 0;
        while let Some(worker) = self.workers.join_next().await {
            sent += worker.context("a worker panicked")??;
        }
        Ok(sent)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_control_plane_is_killed_and_restarted() -> Result<()> {
    let mut cluster = hello(settings()).await?;
    cluster.serve("idle", sample().await?, settings()).await?;
    let mut api = cluster.api()?;
    let number = api
        .create_version("hello", sample().await?, &[("GREETING", "two")])
        .await?
        .number;

    let load = Load::start(cluster.node(0).listen, "hello.localhost");
    sleep(Duration::from_millis(500)).await;
    cluster.kill_control_plane().await?;
    sleep(Duration::from_secs(1)).await;
    // A cold start does not need the control plane either.
    let cold = cluster.get("idle", "/").await?;
    ensure!(cold.status == 200, "{cold:?}");
    cluster.start_control_plane().await?;
    // Writes acknowledged before the kill are kept, and new changes reach the node.
    cluster.set_traffic("hello", &[(number, 100)]).await?;
    ensure!(
        cluster.get("hello", "/").await?.text() == "two\n",
        "the change did not arrive"
    );
    let sent = load.stop().await?;
    ensure!(sent > 100, "only {sent} requests: the load did not run");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_restarted_without_a_control_plane_serves_from_its_disk_cache() -> Result<()> {
    let mut cluster = hello(settings()).await?;
    check_serves(&cluster, "hello").await?;
    cluster.kill_control_plane().await?;
    cluster.stop_node(0).await?;
    ensure!(
        cluster.containers(None).await?.is_empty(),
        "SIGTERM left containers"
    );

    cluster.start_node(0).await?;
    let answer = cluster.get("hello", "/").await?;
    ensure!(
        answer.status == 200 && answer.text() == "one\n",
        "{answer:?}"
    );
    // After SIGKILL too the cache is complete and the container is adopted.
    cluster.kill_node(0).await?;
    cluster.start_node(0).await?;
    let answer = cluster.get("hello", "/").await?;
    ensure!(answer.status == 200, "{answer:?}");
    cluster.start_control_plane().await?;
    cluster.wait_propagated(0).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_data_plane_adopts_its_containers_at_the_next_start() -> Result<()> {
    let mut cluster = hello(settings()).await?;
    cluster.serve("leaves", sample().await?, settings()).await?;
    check_serves(&cluster, "hello").await?;
    check_serves(&cluster, "leaves").await?;
    let before = cluster.wait_containers("hello", 1, SOON).await?;

    cluster.kill_node(0).await?;
    for service in ["hello", "leaves"] {
        ensure!(
            cluster.containers(Some(service)).await?.len() == 1,
            "the kill took containers along"
        );
    }
    // A container whose service was deleted meanwhile is an orphan.
    cluster.api()?.delete_service("leaves").await?;
    cluster.start_node(0).await?;
    cluster.wait_propagated(0).await?;
    let answer = cluster.get("hello", "/").await?;
    ensure!(answer.status == 200, "{answer:?}");
    let after = cluster.wait_containers("hello", 1, SOON).await?;
    ensure!(
        after[0].id == before[0].id,
        "a new container instead of the old one"
    );
    let load = cluster.get("hello", "/load").await?.json()?;
    ensure!(
        load["served"].as_u64() == Some(2),
        "not the same process: {load}"
    );
    cluster.wait_containers("leaves", 0, SOON).await?;
    cluster.finish().await
}
