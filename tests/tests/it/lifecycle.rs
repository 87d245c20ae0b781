//! The lifecycle of instances: cold start, concurrency, idle removal, failed starts, shutdown.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_proto::v1::start_failure::Reason;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::http_client::{Connection, collect, get, get_request};
use cless_tests::wait;
use http_body_util::BodyExt as _;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{SOON, check_serves, contains, hello, lacks, nginx, reported_failure, sample};

fn idle_after(time: Duration) -> v1::ServiceSettings {
    v1::ServiceSettings {
        idle_timeout: duration(time),
        ..settings()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_first_requests_start_exactly_one_container() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let settings = v1::ServiceSettings {
        concurrency: Some(100),
        ..settings()
    };
    cluster.serve("hello", sample().await?, settings).await?;
    let address = cluster.node(0).listen;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        requests.spawn(get(address, "hello.localhost", "/slow?ms=200"));
    }
    while let Some(answer) = requests.join_next().await {
        let answer = answer??;
        ensure!(answer.status == 200, "{answer:?}");
    }
    let containers = cluster.containers(Some("hello")).await?;
    ensure!(
        containers.len() == 1,
        "{} containers were started",
        containers.len()
    );
    let load = cluster.get("hello", "/load").await?.json()?;
    ensure!(load["served"].as_u64() == Some(100), "{load}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_limited_and_a_queue_starts_instances_up_to_the_maximum() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let settings = v1::ServiceSettings {
        concurrency: Some(1),
        max_instances: Some(2),
        ..settings()
    };
    cluster.serve("hello", sample().await?, settings).await?;
    let address = cluster.node(0).listen;
    let mut requests = JoinSet::new();
    for _ in 0..6 {
        requests.spawn(get(address, "hello.localhost", "/slow?ms=500"));
    }
    while let Some(answer) = requests.join_next().await {
        ensure!(answer??.status == 200, "a queued request failed");
    }
    let containers = cluster.containers(Some("hello")).await?;
    ensure!(containers.len() == 2, "{} containers", containers.len());
    for _ in 0..4 {
        let load = cluster.get("hello", "/load").await?.json()?;
        // This request itself is the one in flight.
        ensure!(
            load["peak"].as_u64() == Some(1),
            "more than one at once: {load}"
        );
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_is_removed_and_the_next_request_starts_another() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster
        .serve("hello", sample().await?, idle_after(Duration::from_secs(1)))
        .await?;
    check_serves(&cluster, "hello").await?;
    let first = cluster.wait_containers("hello", 1, SOON).await?;
    // Regression: the idle timeout was once checked only every 10 s.
    cluster
        .wait_containers("hello", 0, Duration::from_secs(8))
        .await?;
    wait::until("no instance is reported", SOON, async || {
        Ok(cluster
            .api()?
            .instances("hello")
            .await?
            .is_empty()
            .then_some(()))
    })
    .await?;
    check_serves(&cluster, "hello").await?;
    let second = cluster.containers(Some("hello")).await?;
    ensure!(
        second.len() == 1 && second[0].id != first[0].id,
        "{second:?}"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_longer_than_the_idle_timeout_is_not_cut() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster
        .serve("hello", sample().await?, idle_after(Duration::from_secs(1)))
        .await?;
    let answer = cluster
        .get("hello", "/stream?seconds=4&every_ms=200")
        .await?;
    let text = answer.text();
    ensure!(
        answer.status == 200 && text.ends_with("end\n"),
        "cut: {text:?}"
    );
    ensure!(text.lines().count() > 10, "{text:?}");
    // Nor is a silent one. Afterwards the instance becomes idle as usual.
    let answer = cluster.get("hello", "/slow?ms=3000").await?;
    ensure!(answer.status == 200, "{answer:?}");
    cluster.wait_containers("hello", 0, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_at_start_is_a_fast_503_with_the_reason_in_the_version() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let env = [("EXIT_AT_START", "3")];
    cluster
        .serve_env("broken", sample().await?, settings(), &env)
        .await?;
    let begin = Instant::now();
    let answer = cluster.get("broken", "/").await?;
    let took = begin.elapsed();
    ensure!(answer.status == 503, "{answer:?}");
    ensure!(
        took < Duration::from_secs(10),
        "as slow as a timeout: {took:?}"
    );
    ensure!(
        answer.header("retry-after").is_some(),
        "no Retry-After: {answer:?}"
    );
    lacks(&answer.text(), "sample-app")?;

    let failure = reported_failure(&cluster, "broken").await?;
    ensure!(failure.reason() == Reason::Exited, "{failure:?}");
    ensure!(failure.exit_code == Some(3), "{failure:?}");
    let log = failure.log_tail.join("\n");
    contains(&log, "EXIT_AT_START is set, leaving with code 3")?;

    // During the back-off a request starts nothing and fails at once.
    let begin = Instant::now();
    let again = cluster.get("broken", "/").await?;
    ensure!(
        again.status == 503 && begin.elapsed() < Duration::from_secs(5),
        "{again:?}"
    );
    cluster.wait_containers("broken", 0, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_a_503_with_the_reason_in_the_version() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    // A registry that refuses the connection.
    cluster
        .serve("missing", "localhost:1/nobody/nothing:1", settings())
        .await?;
    let answer = cluster.get("missing", "/").await?;
    ensure!(answer.status == 503, "{answer:?}");
    lacks(&answer.text(), "localhost:1")?;
    let failure = reported_failure(&cluster, "missing").await?;
    ensure!(failure.reason() == Reason::Image, "{failure:?}");
    contains(&failure.message, "localhost:1/nobody/nothing:1")?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_listens_is_a_504_at_the_deadline() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let settings = v1::ServiceSettings {
        cold_start_timeout: duration(Duration::from_secs(2)),
        ..settings()
    };
    let env = [("NEVER_LISTEN", "1")];
    cluster
        .serve_env("deaf", sample().await?, settings, &env)
        .await?;
    let begin = Instant::now();
    let answer = cluster.get("deaf", "/").await?;
    let took = begin.elapsed();
    ensure!(answer.status == 504, "{answer:?}");
    ensure!(
        took >= Duration::from_millis(1900) && took < SOON,
        "{took:?}"
    );
    let failure = reported_failure(&cluster, "deaf").await?;
    ensure!(failure.reason() == Reason::NotReady, "{failure:?}");
    cluster.wait_containers("deaf", 0, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_cold_start_delays_no_other_service() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let env = [("START_DELAY_MS", "8000"), ("GREETING", "slow")];
    cluster
        .serve_env("slow", sample().await?, settings(), &env)
        .await?;
    cluster.serve("warm", sample().await?, settings()).await?;
    cluster.serve("cold", sample().await?, settings()).await?;
    check_serves(&cluster, "warm").await?;

    let address = cluster.node(0).listen;
    let slow = tokio::spawn(get(address, "slow.localhost", "/"));
    cluster.wait_containers("slow", 1, SOON).await?;
    check_serves(&cluster, "cold").await?;
    for _ in 0..50 {
        check_serves(&cluster, "warm").await?;
    }
    ensure!(!slow.is_finished(), "the others waited for the slow start");
    let answer = slow.await??;
    ensure!(
        answer.status == 200 && answer.text() == "slow\n",
        "{answer:?}"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_then_removes_the_containers() -> Result<()> {
    let mut cluster = hello(settings()).await?;
    check_serves(&cluster, "hello").await?;
    let address = cluster.node(0).listen;
    let slow = tokio::spawn(get(address, "hello.localhost", "/slow?ms=2000"));
    let mut stream = Connection::open(address).await?;
    let request = get_request("hello.localhost", "/stream?seconds=2&every_ms=100")?;
    let mut response = stream.send(request).await?;
    response
        .body_mut()
        .frame()
        .await
        .context("no first chunk")??;

    cluster.node(0).signal(Signal::SIGTERM)?;
    let answer = slow.await??;
    ensure!(answer.status == 200, "{answer:?}");
    let streamed = collect(response).await?;
    ensure!(
        streamed.text().ends_with("end\n"),
        "cut: {}",
        streamed.text()
    );
    cluster.node_ends(0).await?;
    ensure!(
        cluster.containers(None).await?.is_empty(),
        "containers are left"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_from_debian_serves_on_its_exposed_port() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster
        .serve("web", nginx().await?, idle_after(Duration::from_secs(2)))
        .await?;
    let page = cluster.get("web", "/").await?;
    ensure!(
        page.status == 200 && page.text().contains("Welcome to nginx!"),
        "{page:?}"
    );
    ensure!(
        page.header("server")
            .is_some_and(|v| v.starts_with("nginx")),
        "{page:?}"
    );
    let missing = cluster.get("web", "/nothing").await?;
    ensure!(
        missing.status == 404 && missing.text().contains("nginx"),
        "{missing:?}"
    );
    cluster.wait_containers("web", 0, SOON).await?;
    cluster.finish().await
}
