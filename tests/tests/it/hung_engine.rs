//! An engine that hangs: its process is stopped by SIGSTOP, so calls are accepted and not answered.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::private_engine::{Options, PrivateEngine};
use cless_tests::{http_client, image, wait};
use tokio::time::Instant;

use crate::{SOON, check_serves, wait_serves};

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_a_hung_engine_are_refused_after_the_grace_period() -> Result<()> {
    let engine = PrivateEngine::start(Options::default()).await?;
    let image = image::sample_app(engine.docker()).await?;
    let setup = NodeSetup::flags(&["--engine", &engine.address()]);
    let cluster = Cluster::start_on(engine.docker().clone(), 1, setup).await?;
    for service in ["warm", "cold", "late"] {
        cluster.serve(service, &image, settings()).await?;
    }
    check_serves(&cluster, "warm").await?;
    engine.freeze()?;
    let began = Instant::now();
    let address = cluster.node(0).listen;
    let cold = tokio::spawn(http_client::get(address, "cold.localhost", "/"));
    wait::until("the node warns", SOON, async || {
        let warnings = cluster.api()?.node("node-0").await?.warnings;
        let mut warnings = warnings.iter();
        Ok(warnings
            .any(|one| one.starts_with("engine: "))
            .then_some(()))
    })
    .await?;
    let warned = began.elapsed();
    ensure!(warned < Duration::from_secs(6), "warned after {warned:?}");
    check_serves(&cluster, "warm").await?;
    let refused = cold.await??;
    let waited = began.elapsed();
    ensure!(refused.status == 503, "{refused:?}");
    ensure!(refused.header("retry-after") == Some("5"), "{refused:?}");
    let grace = Duration::from_secs(10)..Duration::from_secs(13);
    ensure!(grace.contains(&waited), "refused after {waited:?}");
    // Later ones at once.
    let begin = Instant::now();
    ensure!(cluster.get("late", "/").await?.status == 503);
    ensure!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    engine.thaw()?;
    wait_serves(&cluster, "late", Duration::from_secs(60)).await?;
    wait_serves(&cluster, "cold", Duration::from_secs(60)).await?;
    cluster.finish().await?;
    engine.stop().await
}
