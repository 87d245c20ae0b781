//! Each kind of readiness probe with a slow start, and instances that stop responding.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::TopOptionsBuilder;
use cless_proto::v1;
use cless_proto::v1::readiness_probe::Kind;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::{image, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{SOON, check_serves, contains, reported_failure, sample_spec, serve_spec, wait_serves};

const SLOW: Duration = Duration::from_millis(1500);
const SLOW_ENV: (&str, &str) = ("HEALTHY_AFTER_MS", "1500");

fn probe(kind: Kind) -> Option<v1::ReadinessProbe> {
    Some(v1::ReadinessProbe {
        kind: Some(kind),
        ..Default::default()
    })
}

fn healthz() -> Kind {
    Kind::Http(v1::HttpProbe {
        path: "/healthz".to_owned(),
        status_min: 200,
        status_max: 200,
        host: String::new(),
    })
}

/// Checks that the first request is held until the app, which listens at once, is healthy.
async fn holds_requests_until_healthy(spec: v1::VersionSpec) -> Result<()> {
    let cluster = Cluster::start(1).await?;
    serve_spec(&cluster, "slow", settings(), spec).await?;
    let begin = Instant::now();
    let answer = cluster.get("slow", "/healthz").await?;
    let took = begin.elapsed();
    ensure!(answer.status == 200, "forwarded too early: {answer:?}");
    ensure!(took >= SLOW, "{took:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_probe_holds_requests_until_the_path_is_healthy() -> Result<()> {
    let mut spec = sample_spec(&[SLOW_ENV]).await?;
    spec.readiness = probe(healthz());
    holds_requests_until_healthy(spec).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_probe_holds_requests_until_the_service_is_serving() -> Result<()> {
    let mut spec = sample_spec(&[SLOW_ENV, ("GRPC_HEALTH", "shop.v1.Cart")]).await?;
    let service = "shop.v1.Cart".to_owned();
    spec.readiness = probe(Kind::Grpc(v1::GrpcProbe { service }));
    holds_requests_until_healthy(spec).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_grpc_service_is_never_ready_and_is_the_last_probe() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut spec = sample_spec(&[]).await?;
    let service = "nobody.v1.Nothing".to_owned();
    spec.readiness = probe(Kind::Grpc(v1::GrpcProbe { service }));
    let short_timeout = v1::ServiceSettings {
        cold_start_timeout: duration(Duration::from_secs(2)),
        ..settings()
    };
    serve_spec(&cluster, "unknown", short_timeout, spec).await?;
    let answer = cluster.get("unknown", "/").await?;
    ensure!(answer.status == 504, "{answer:?}");
    let failure = reported_failure(&cluster, "unknown").await?;
    contains(&failure.last_probe, "does not know this service")?;
    cluster.finish().await
}

/// Builds the sample app's image with additional instructions, under a unique name.
async fn image_with(cluster: &Cluster, name: &str, instructions: &[&str]) -> Result<String> {
    let repository = format!("cless-test/{name}-{}", std::process::id());
    Ok(image::sample_app_with(cluster.docker(), &repository, "1", instructions).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_healthcheck_holds_requests_and_removes_an_unhealthy_instance() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let check =
        r#"HEALTHCHECK --interval=200ms --timeout=1s --retries=2 CMD ["/sample-app", "check"]"#;
    let image = image_with(&cluster, "healthcheck", &[check]).await?;
    let spec = v1::VersionSpec {
        image: image.clone(),
        readiness: probe(Kind::Healthcheck(v1::HealthcheckProbe {})),
        ..sample_spec(&[SLOW_ENV]).await?
    };
    serve_spec(&cluster, "checked", settings(), spec).await?;
    let begin = Instant::now();
    let answer = cluster.get("checked", "/healthz").await?;
    ensure!(answer.status == 200, "forwarded too early: {answer:?}");
    ensure!(begin.elapsed() >= SLOW, "{:?}", begin.elapsed());

    // The engine reports the health without any request.
    let first = cluster.wait_containers("checked", 1, SOON).await?;
    let pid = app_pid(&cluster, &first[0].id).await?;
    kill(pid, Signal::SIGSTOP)?;
    wait::until("the unhealthy instance is removed", SOON, async || {
        let found = cluster.api()?.instances("checked").await?;
        let ready = found
            .iter()
            .any(|one| one.state() == v1::instance::State::Ready);
        Ok((!ready).then_some(()))
    })
    .await?;
    let failure = reported_failure(&cluster, "checked").await?;
    ensure!(failure.last_probe.contains("HEALTHCHECK"), "{failure:?}");
    kill(pid, Signal::SIGCONT).ok();
    let docker = cluster.docker().clone();
    cluster.finish().await?;
    Ok(image::remove(&docker, &image).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_healthcheck_fails_at_once() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut spec = sample_spec(&[]).await?;
    spec.readiness = probe(Kind::Healthcheck(v1::HealthcheckProbe {}));
    serve_spec(&cluster, "unchecked", settings(), spec).await?;
    let begin = Instant::now();
    let answer = cluster.get("unchecked", "/").await?;
    ensure!(answer.status == 503, "{answer:?}");
    ensure!(
        begin.elapsed() < Duration::from_secs(15),
        "waited for a missing HEALTHCHECK: {:?}",
        begin.elapsed()
    );
    let failure = reported_failure(&cluster, "unchecked").await?;
    ensure!(failure.message.contains("no HEALTHCHECK"), "{failure:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_probe_is_made_before_its_initial_delay() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut spec = sample_spec(&[]).await?;
    spec.readiness = Some(v1::ReadinessProbe {
        kind: Some(Kind::Tcp(v1::TcpProbe {})),
        initial_delay: duration(Duration::from_millis(1500)),
        ..Default::default()
    });
    serve_spec(&cluster, "late", settings(), spec).await?;
    let begin = Instant::now();
    check_serves(&cluster, "late").await?;
    ensure!(begin.elapsed() >= SLOW, "{:?}", begin.elapsed());
    cluster.finish().await
}

/// The host's pid of the app, which is a child of the container's init.
async fn app_pid(cluster: &Cluster, container: &str) -> Result<Pid> {
    let options = TopOptionsBuilder::default().ps_args("-eo pid,args").build();
    let top = cluster
        .docker()
        .top_processes(container, Some(options))
        .await?;
    let processes = top.processes.unwrap_or_default();
    let app = processes.iter().find(|columns| {
        let command = columns.get(1).map_or("", String::as_str);
        command.starts_with("/sample-app") && !command.contains("check")
    });
    let pid = app
        .and_then(|columns| columns.first())
        .context("no such process")?;
    Ok(Pid::from_raw(pid.parse()?))
}

/// Settings with a request timeout of one second.
fn short_request_timeout() -> v1::ServiceSettings {
    v1::ServiceSettings {
        request_timeout: duration(Duration::from_secs(1)),
        ..settings()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_process_that_never_responds_is_replaced() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut spec = sample_spec(&[]).await?;
    spec.readiness = Some(v1::ReadinessProbe {
        kind: Some(healthz()),
        timeout: duration(Duration::from_millis(300)),
        ..Default::default()
    });
    serve_spec(&cluster, "stuck", short_request_timeout(), spec).await?;
    wait_serves(&cluster, "stuck", SOON).await?;
    let first = cluster.wait_containers("stuck", 1, SOON).await?;
    let pid = app_pid(&cluster, &first[0].id).await?;
    kill(pid, Signal::SIGSTOP)?;

    let answered = wait_serves(&cluster, "stuck", SOON).await;
    kill(pid, Signal::SIGCONT).ok();
    answered?;
    let failure = reported_failure(&cluster, "stuck").await?;
    ensure!(failure.message.contains("stopped answering"), "{failure:?}");
    contains(&failure.last_probe, "no answer within")?;
    wait::until("the stuck one is removed", SOON, async || {
        let left = cluster.containers(Some("stuck")).await?;
        Ok((left.len() == 1 && left[0].id != first[0].id).then_some(()))
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_but_healthy_app_is_probed_and_kept() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut spec = sample_spec(&[]).await?;
    spec.readiness = probe(healthz());
    serve_spec(&cluster, "slow", short_request_timeout(), spec).await?;
    wait_serves(&cluster, "slow", SOON).await?;
    let first = cluster.wait_containers("slow", 1, SOON).await?;
    let node = cluster.node(0).listen;
    let mut requests = JoinSet::new();
    for _ in 0..9 {
        requests.spawn(cless_tests::http_client::get(
            node,
            "slow.localhost",
            "/slow?ms=2000",
        ));
    }
    while let Some(answer) = requests.join_next().await {
        let answer = answer??;
        ensure!(answer.status == 504, "{answer:?}");
    }
    // Longer than the probes that decide.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let instances = cluster.api()?.instances("slow").await?;
    ensure!(
        instances.len() == 1 && instances[0].state() == v1::instance::State::Ready,
        "{instances:?}"
    );
    ensure!(cluster.containers(Some("slow")).await? == first, "replaced");
    cluster.finish().await
}
