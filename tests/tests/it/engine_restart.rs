//! An engine of the test's own is killed under load and started again; its disk runs full. What runs
//! goes on serving meanwhile, all converges afterwards, and nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_proto::v1::start_failure::Reason;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::private_engine::{Options, PrivateEngine};
use cless_tests::{http_client, image, wait};
use std::net::SocketAddr;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::SOON;

/// An engine that starts with dead containers to bring in order, on a busy machine.
const LATER: Duration = Duration::from_secs(60);

/// A cluster of one node on an engine of its own, with the sample app's image.
async fn cluster_on(engine: &PrivateEngine) -> Result<(Cluster, String)> {
    let image = image::sample_app(engine.docker()).await?;
    let setup = NodeSetup::flags(&["--engine", &engine.address()]);
    let cluster = Cluster::start_on(engine.docker().clone(), 1, setup).await?;
    Ok((cluster, image))
}

/// Requests without a pause, counted by whether they were answered by the app.
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
                    let answer = http_client::get(address, host, "/").await;
                    let counter = match answer {
                        Ok(answer) if answer.status == 200 => &served,
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

async fn answers(cluster: &Cluster, service: &str) -> Result<()> {
    let answer = cluster.get(service, "/").await?;
    ensure!(answer.status == 200, "{service}: {answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_killed_under_load_and_all_converges_when_it_is_back() -> Result<()> {
    let mut engine = PrivateEngine::start(Options::default()).await?;
    let (cluster, image) = cluster_on(&engine).await?;
    for service in ["hello", "cold"] {
        cluster.serve(service, &image, settings()).await?;
    }
    answers(&cluster, "hello").await?;
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
    // From zero: waits for the engine.
    let address = cluster.node(0).listen;
    let cold = tokio::spawn(http_client::get(address, "cold.localhost", "/"));
    sleep(Duration::from_millis(200)).await;
    ensure!(!cold.is_finished(), "without an engine? {:?}", cold.await);

    engine.restart().await?;
    let back = killed.elapsed();
    let cold = cold.await??;
    ensure!(cold.status == 200, "{cold:?}");
    // Without live-restore the engine ends what it finds running, and another takes its place.
    let after = wait::until("the dead one is replaced", LATER, async || {
        let found = cluster.containers(Some("hello")).await?;
        let replaced = found.len() == 1 && found[0].id != before[0].id;
        Ok((replaced && found[0].state == "running").then_some(found))
    })
    .await?;
    wait::until("hello answers", LATER, async || {
        Ok((cluster.get("hello", "/").await?.status == 200).then_some(()))
    })
    .await?;
    let (_, failed) = load.counts();
    sleep(Duration::from_secs(1)).await;
    let (served, failed_later) = load.stop().await;
    ensure!(
        failed == failed_later,
        "{failed_later} failed, {failed} of them before it had converged"
    );
    for service in ["hello", "cold"] {
        let version = cluster.api()?.version(service, 1).await?;
        let nodes = version.status.unwrap_or_default().nodes;
        ensure!(nodes.iter().all(|node| node.failures == 0), "{nodes:?}");
    }
    let all = cluster.instances().await?;
    ensure!(all.len() == 2, "leaked: {all:#?}");
    ensure!(all.iter().any(|one| one.id == after[0].id), "{all:#?}");
    #[expect(clippy::print_stderr, reason = "a measurement, for who asks for it")]
    {
        eprintln!("engine away for {back:?}: {served} served, {failed} failed as it came back");
    }
    cluster.finish().await?;
    engine.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_an_engine_that_restores_its_containers_is_killed() -> Result<()> {
    let mut engine = PrivateEngine::start(Options {
        live_restore: true,
        ..Options::default()
    })
    .await?;
    let (cluster, image) = cluster_on(&engine).await?;
    cluster.serve("hello", &image, settings()).await?;
    answers(&cluster, "hello").await?;
    let before = cluster.wait_containers("hello", 1, SOON).await?;
    let load = Load::start(cluster.node(0).listen, "hello.localhost");
    sleep(Duration::from_millis(300)).await;
    engine.kill().await?;
    sleep(Duration::from_secs(2)).await;
    engine.restart().await?;
    // Swept since: the node names the engine again.
    wait::until("the node has the engine back", LATER, async || {
        let name = "nodes/node-0".to_owned();
        let node = cluster
            .api()?
            .nodes
            .get_node(v1::GetNodeRequest { name })
            .await?;
        let node = node.into_inner();
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
    ensure!(after[0].id == before[0].id, "it was replaced");
    cluster.finish().await?;
    engine.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_explained_and_forgotten_once_there_is_room() -> Result<()> {
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
    ensure!(
        !refused.text().contains("space"),
        "engine text leaks: {refused:?}"
    );
    ensure!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    let failure = wait::until("the failure is in the version's status", SOON, async || {
        let version = cluster.api()?.version("hello", 1).await?;
        let nodes = version.status.unwrap_or_default().nodes;
        Ok(nodes.into_iter().find_map(|node| node.last_failure))
    })
    .await?;
    ensure!(failure.reason() == Reason::Engine, "{failure:?}");
    ensure!(
        failure.message.contains("no space left on device"),
        "{failure:?}"
    );
    ensure!(
        failure.message.contains("free some on this node"),
        "{failure:?}"
    );
    let warned = async |wanted: bool| {
        wait::until("the node's warning", SOON, async || {
            let name = "nodes/node-0".to_owned();
            let node = cluster
                .api()?
                .nodes
                .get_node(v1::GetNodeRequest { name })
                .await?;
            let warnings = node.into_inner().warnings;
            let full = warnings
                .iter()
                .any(|warning| warning.contains("disk was full"));
            Ok((full == wanted).then_some(()))
        })
        .await
    };
    warned(true).await?;

    std::fs::remove_file(&filler).context("the filler")?;
    // Soon: the version is not punished with a long back-off, however often it was tried.
    wait::until("it serves", Duration::from_secs(15), async || {
        Ok((cluster.get("hello", "/").await?.status == 200).then_some(()))
    })
    .await?;
    warned(false).await?;
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
        // What is left of a block, byte by byte.
        while file.write_all(&[1]).is_ok() {}
        anyhow::Ok(())
    })
    .await?
}
