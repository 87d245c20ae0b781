//! Sleep on the real engine: frozen when idle, woken in milliseconds, never left frozen.

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

use crate::{SOON, sample};

pub(crate) fn sleepy(pause_after: Duration, idle_timeout: Duration) -> v1::ServiceSettings {
    v1::ServiceSettings {
        pause_after: duration(pause_after),
        idle_timeout: duration(idle_timeout),
        ..settings()
    }
}

const TENTH: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);

/// Waits until the one container of the service is frozen.
pub(crate) async fn asleep(cluster: &Cluster, service: &str) -> Result<Container> {
    wait::until("the container is paused", SOON, async || {
        let mut found = cluster.containers(Some(service)).await?;
        let paused = found.len() == 1 && found[0].state == "paused";
        Ok(paused.then(|| found.remove(0)))
    })
    .await
}

async fn answers(cluster: &Cluster) -> Result<()> {
    let answer = cluster.get("hello", "/").await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_sleeps_is_shown_so_and_wakes_in_milliseconds() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster
        .serve("hello", sample().await?, sleepy(TENTH, MINUTE))
        .await?;
    answers(&cluster).await?;
    let mut wakes = Vec::new();
    let first = asleep(&cluster, "hello").await?;
    for _ in 0..10 {
        ensure!(asleep(&cluster, "hello").await?.id == first.id, "replaced");
        let begin = Instant::now();
        answers(&cluster).await?;
        wakes.push(begin.elapsed());
    }
    #[expect(clippy::print_stderr, reason = "a measurement, for who asks for it")]
    {
        eprintln!("wake from pause: median {:.1} ms", millis(median(&wakes)));
    }
    asleep(&cluster, "hello").await?;
    wait::until("it is reported as paused", SOON, async || {
        let instances = cluster.api()?.instances("hello").await?;
        let paused = instances.len() == 1 && instances[0].state() == State::Paused;
        Ok(paused.then_some(()))
    })
    .await?;
    let metrics = http_client::get(cluster.node(0).admin, "admin", "/metrics").await?;
    ensure!(
        metrics.text().contains(r#"call="unpause""#),
        "{}",
        metrics.text()
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_around_the_time_of_sleep() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster
        .serve("hello", sample().await?, sleepy(TENTH, MINUTE))
        .await?;
    let address = cluster.node(0).listen;
    // One connection of a client for all of them, and a new one for every other.
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
        // From before the freeze, through it, to after it.
        sleep(Duration::from_millis(85 + round * 7 % 50)).await;
    }
    ensure!(waits > 20, "the times missed the freezes: {waits} waited");
    let left = cluster.containers(Some("hello")).await?;
    ensure!(left.len() == 1, "{left:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_is_removed_at_the_idle_timeout() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster
        .serve(
            "hello",
            sample().await?,
            sleepy(Duration::from_millis(500), Duration::from_secs(3)),
        )
        .await?;
    answers(&cluster).await?;
    let last = Instant::now();
    asleep(&cluster, "hello").await?;
    cluster.wait_containers("hello", 0, SOON).await?;
    ensure!(
        last.elapsed() >= Duration::from_secs(3),
        "too soon: {:?}",
        last.elapsed()
    );
    answers(&cluster).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_leaves_no_sleeper() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    cluster
        .serve("hello", sample().await?, sleepy(TENTH, MINUTE))
        .await?;
    answers(&cluster).await?;
    asleep(&cluster, "hello").await?;
    let begin = Instant::now();
    cluster.node(0).signal(Signal::SIGTERM)?;
    cluster.node_ends(0).await?;
    ensure!(
        begin.elapsed() < Duration::from_secs(8),
        "it was not thawed to end: {:?}",
        begin.elapsed()
    );
    ensure!(cluster.containers(None).await?.is_empty(), "it is left");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_wakes_its_sleepers_and_removes_what_is_not_routed() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    for service in ["hello", "gone"] {
        cluster
            .serve(
                service,
                sample().await?,
                sleepy(Duration::from_secs(2), MINUTE),
            )
            .await?;
        ensure!(cluster.get(service, "/").await?.status == 200, "no answer");
    }
    let hello = asleep(&cluster, "hello").await?;
    asleep(&cluster, "gone").await?;
    cluster.kill_node(0).await?;
    cluster.api()?.delete_service("gone").await?;
    cluster.start_node(0).await?;
    wait::until("it is awake", SOON, async || {
        let found = cluster.containers(Some("hello")).await?;
        Ok((found.len() == 1 && found[0].state == "running").then_some(()))
    })
    .await?;
    answers(&cluster).await?;
    let again = cluster.wait_containers("hello", 1, SOON).await?;
    ensure!(again[0].id == hello.id, "it was replaced");
    cluster.wait_containers("gone", 0, SOON).await?;
    // And sleeps again like any other.
    asleep(&cluster, "hello").await?;
    cluster.finish().await
}
