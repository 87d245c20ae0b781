//! Pause on the real engine: idle instances are paused, resumed in milliseconds, never left paused.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_proto::v1::instance::State;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::engine::Container;
use cless_tests::stats::{median, millis};
use cless_tests::{http_client, wait};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::{SOON, check_serves, contains, hello, sample};

pub(crate) fn pause_after(pause_after: Duration, idle_timeout: Duration) -> v1::ServiceSettings {
    v1::ServiceSettings {
        pause_after: duration(pause_after),
        idle_timeout: duration(idle_timeout),
        ..settings()
    }
}

const PAUSE_AFTER: Duration = Duration::from_millis(100);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until the only container of the service is paused.
pub(crate) async fn wait_paused(cluster: &Cluster, service: &str) -> Result<Container> {
    wait::until("the container is paused", SOON, async || {
        let mut found = cluster.containers(Some(service)).await?;
        let paused = found.len() == 1 && found[0].state == "paused";
        Ok(paused.then(|| found.remove(0)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_is_paused_and_resumes_in_milliseconds() -> Result<()> {
    let cluster = hello(pause_after(PAUSE_AFTER, IDLE_TIMEOUT)).await?;
    check_serves(&cluster, "hello").await?;
    let mut resumes = Vec::new();
    let first = wait_paused(&cluster, "hello").await?;
    for _ in 0..10 {
        ensure!(
            wait_paused(&cluster, "hello").await?.id == first.id,
            "replaced"
        );
        let begin = Instant::now();
        check_serves(&cluster, "hello").await?;
        resumes.push(begin.elapsed());
    }
    #[expect(clippy::print_stderr, reason = "a measurement, shown with --nocapture")]
    {
        eprintln!("resume: median {:.1} ms", millis(median(&resumes)));
    }
    wait_paused(&cluster, "hello").await?;
    wait::until("the instance is reported as paused", SOON, async || {
        let instances = cluster.api()?.instances("hello").await?;
        let paused = instances.len() == 1 && instances[0].state() == State::Paused;
        Ok(paused.then_some(()))
    })
    .await?;
    let metrics = http_client::get(cluster.node(0).admin, "admin", "/metrics").await?;
    contains(&metrics.text(), r#"call="unpause""#)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_around_a_pause() -> Result<()> {
    let cluster = hello(pause_after(PAUSE_AFTER, IDLE_TIMEOUT)).await?;
    let address = cluster.node(0).listen;
    // Rounds alternate between one kept connection and new ones.
    let mut kept = http_client::Connection::open(address).await?;
    let mut waits = 0;
    for round in 0..200u64 {
        let begin = Instant::now();
        let answer = match round % 2 {
            0 => kept.get("hello.localhost", "/").await?,
            _ => http_client::get(address, "hello.localhost", "/").await?,
        };
        ensure!(answer.status == 200, "round {round}: {answer:?}");
        waits += u32::from(begin.elapsed() > Duration::from_millis(10));
        // Intervals from before the pause to after it.
        sleep(Duration::from_millis(85 + round * 7 % 50)).await;
    }
    ensure!(
        waits > 20,
        "the intervals missed the pauses: {waits} waited"
    );
    let left = cluster.containers(Some("hello")).await?;
    ensure!(left.len() == 1, "{left:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_instance_is_removed_at_the_idle_timeout() -> Result<()> {
    let cluster = hello(pause_after(
        Duration::from_millis(500),
        Duration::from_secs(3),
    ))
    .await?;
    check_serves(&cluster, "hello").await?;
    let last = Instant::now();
    wait_paused(&cluster, "hello").await?;
    cluster.wait_containers("hello", 0, SOON).await?;
    ensure!(
        last.elapsed() >= Duration::from_secs(3),
        "too soon: {:?}",
        last.elapsed()
    );
    check_serves(&cluster, "hello").await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_leaves_no_paused_container() -> Result<()> {
    let mut cluster = hello(pause_after(PAUSE_AFTER, IDLE_TIMEOUT)).await?;
    check_serves(&cluster, "hello").await?;
    wait_paused(&cluster, "hello").await?;
    let begin = Instant::now();
    cluster.node(0).signal(Signal::SIGTERM)?;
    cluster.node_ends(0).await?;
    ensure!(
        begin.elapsed() < Duration::from_secs(8),
        "it was not resumed to stop: {:?}",
        begin.elapsed()
    );
    ensure!(
        cluster.containers(None).await?.is_empty(),
        "containers are left"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_resumes_paused_containers_and_removes_unrouted_ones() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    for service in ["hello", "gone"] {
        cluster
            .serve(
                service,
                sample().await?,
                pause_after(Duration::from_secs(2), IDLE_TIMEOUT),
            )
            .await?;
        check_serves(&cluster, service).await?;
    }
    let hello = wait_paused(&cluster, "hello").await?;
    wait_paused(&cluster, "gone").await?;
    cluster.kill_node(0).await?;
    cluster.api()?.delete_service("gone").await?;
    cluster.start_node(0).await?;
    wait::until("the container is resumed", SOON, async || {
        let found = cluster.containers(Some("hello")).await?;
        Ok((found.len() == 1 && found[0].state == "running").then_some(()))
    })
    .await?;
    check_serves(&cluster, "hello").await?;
    let again = cluster.wait_containers("hello", 1, SOON).await?;
    ensure!(again[0].id == hello.id, "it was replaced");
    cluster.wait_containers("gone", 0, SOON).await?;
    // An adopted container is paused again as usual.
    wait_paused(&cluster, "hello").await?;
    cluster.finish().await
}
