//! A private engine is killed under load and restarted, and its disk runs full. Running containers
//! keep serving, the node converges afterwards, and nothing is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1::start_failure::Reason;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::private_engine::{Options, PrivateEngine};
use cless_tests::{http_client, image, wait};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::{SOON, check_serves, contains, lacks, reported_failure, wait_serves};

/// Time for an engine to recover dead containers at its start on a busy machine.
const LATER: Duration = Duration::from_secs(60);

/// A cluster of one node on a private engine, and the image of the sample app.
async fn cluster_on(engine: &PrivateEngine) -> Result<(Cluster, String)> {
    let image = image::sample_app(engine.docker()).await?;
    let setup = NodeSetup::flags(&["--engine", &engine.address()]);
    let cluster = Cluster::start_on(engine.docker().clone(), 1, setup).await?;
    Ok((cluster, image))
}

/// Continuous requests, counted by outcome.
struct Load {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
    workers: JoinSet<()>,
}

impl Load {
    fn start(address: SocketAddr, host: &'static str) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            failed: Arc::default(),
            served: Arc::default(),
            workers: JoinSet::new(),
        };
        for _ in 0..4 {
            let (stop, failed, served) =
                (load.stop.clone(), load.failed.clone(), load.served.clone());
            load.workers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let counter = match http_client::get(address, host, "/").await {
                        Ok(response) if response.status == 200 => &served,
                        _ => &failed,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(10)).await;
                }
            });
        }
        load
    }

    fn counts(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&self.served), count(&self.failed))
    }

    async fn stop(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        while self.workers.join_next().await.is_some() {}
        self.counts()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_converges_after_its_engine_is_killed_under_load() -> Result<()> {
    let mut engine = PrivateEngine::start(Options::default()).await?;
    let (cluster, image) = cluster_on(&engine).await?;
    for service in ["hello", "cold"] {
        cluster.serve(service, &image, settings()).await?;
    }
    check_serves(&cluster, "hello").await?;
    let before = cluster.wait_containers("hello", 1, SOON).await?;

    let load = Load::start(cluster.node(0).listen, "hello.localhost");
    sleep(Duration::from_millis(500)).await;
    engine.kill().await?;
    let killed = Instant::now();
    sleep(Duration::from_secs(3)).await;
    let (served, failed) = load.counts();
    ensure!(
        failed == 0 && served > 100,
        "{served} served, {failed} failed without the engine"
    );
    // A cold start waits for the engine.
    let address = cluster.node(0).listen;
    let cold = tokio::spawn(http_client::get(address, "cold.localhost", "/"));
    sleep(Duration::from_millis(200)).await;
    ensure!(
        !cold.is_finished(),
        "finished without an engine: {:?}",
        cold.await
    );

    engine.restart().await?;
    let downtime = killed.elapsed();
    let cold = cold.await??;
    ensure!(cold.status == 200, "{cold:?}");
    // Without live-restore the engine kills running containers at its start, so the node replaces
    // them.
    let after = wait::until("the killed container is replaced", LATER, async || {
        let found = cluster.containers(Some("hello")).await?;
        let replaced = found.len() == 1 && found[0].id != before[0].id;
        Ok((replaced && found[0].state == "running").then_some(found))
    })
    .await?;
    wait_serves(&cluster, "hello", LATER).await?;
    let (_, failed) = load.counts();
    sleep(Duration::from_secs(1)).await;
    let (served, failed_later) = load.stop().await;
    ensure!(
        failed == failed_later,
        "{failed_later} failed, but only {failed} before convergence"
    );
    for service in ["hello", "cold"] {
        let version = cluster.api()?.version(service, 1).await?;
        let nodes = version.status.unwrap_or_default().nodes;
        ensure!(nodes.iter().all(|node| node.failures == 0), "{nodes:?}");
    }
    let all = cluster.instances().await?;
    ensure!(all.len() == 2, "leaked: {all:#?}");
    ensure!(all.iter().any(|one| one.id == after[0].id), "{all:#?}");
    #[expect(clippy::print_stderr, reason = "a measurement")]
    {
        eprintln!(
            "engine down for {downtime:?}: {served} served, {failed} failed after its restart"
        );
    }
    cluster.finish().await?;
    engine.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_an_engine_with_live_restore_is_killed() -> Result<()> {
    let mut engine = PrivateEngine::start(Options {
        live_restore: true,
        ..Options::default()
    })
    .await?;
    let (cluster, image) = cluster_on(&engine).await?;
    cluster.serve("hello", &image, settings()).await?;
    check_serves(&cluster, "hello").await?;
    let before = cluster.wait_containers("hello", 1, SOON).await?;
    let load = Load::start(cluster.node(0).listen, "hello.localhost");
    sleep(Duration::from_millis(300)).await;
    engine.kill().await?;
    sleep(Duration::from_secs(2)).await;
    engine.restart().await?;
    // The node reports the engine again after its reconciliation.
    wait::until("the node reports the engine", LATER, async || {
        let node = cluster.api()?.node("node-0").await?;
        Ok((!node.engine.is_empty() && node.warnings.is_empty()).then_some(()))
    })
    .await?;
    sleep(Duration::from_secs(1)).await;
    let (served, failed) = load.stop().await;
    ensure!(
        failed == 0 && served > 100,
        "{served} served, {failed} failed"
    );
    let after = cluster.wait_containers("hello", 1, SOON).await?;
    ensure!(after[0].id == before[0].id, "the container was replaced");
    cluster.finish().await?;
    engine.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_until_there_is_space_again() -> Result<()> {
    let engine = PrivateEngine::start(Options {
        disk_mib: Some(64),
        ..Options::default()
    })
    .await?;
    let (cluster, image) = cluster_on(&engine).await?;
    cluster.serve("hello", &image, settings()).await?;
    let filler = engine.data().join("filler");
    fill(&filler).await?;
    let begin = Instant::now();
    let refused = cluster.get("hello", "/").await?;
    ensure!(refused.status == 503, "{refused:?}");
    ensure!(refused.header("retry-after").is_some(), "{refused:?}");
    lacks(&refused.text(), "space")?;
    ensure!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    let failure = reported_failure(&cluster, "hello").await?;
    ensure!(failure.reason() == Reason::Engine, "{failure:?}");
    contains(&failure.message, "no space left on device")?;
    contains(&failure.message, "free some on this node")?;
    let wait_warning = async |expected: bool| {
        let what = format!("the warning about a full disk: {expected}");
        wait::until(&what, SOON, async || {
            let warnings = cluster.api()?.node("node-0").await?.warnings;
            let mut warnings = warnings.iter();
            let is_full = warnings.any(|warning| warning.contains("disk was full"));
            Ok((is_full == expected).then_some(()))
        })
        .await
    };
    wait_warning(true).await?;

    std::fs::remove_file(&filler).context("cannot remove the filler")?;
    // Failures of the engine do not cause a long back-off.
    wait_serves(&cluster, "hello", Duration::from_secs(15)).await?;
    wait_warning(false).await?;
    cluster.wait_containers("hello", 1, SOON).await?;
    cluster.finish().await?;
    engine.stop().await
}

/// Writes a file until the disk is full.
async fn fill(path: &std::path::Path) -> Result<()> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut file = std::fs::File::create(path)?;
        let block = vec![1_u8; 1 << 16];
        while file.write_all(&block).is_ok() {}
        // The rest of a block is filled byte by byte.
        while file.write_all(&[1]).is_ok() {}
        anyhow::Ok(())
    })
    .await?
}
