//! Faults of the engine: it responds with 500 to completed calls, cuts connections, hangs, sends no
//! events or is down. A fault-injecting proxy in front of the real engine produces the faults.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_proto::v1::instance::State;
use cless_tests::cluster::{Cluster, NodeSetup, duration, settings};
use cless_tests::engine_proxy::{EngineProxy, Fault};
use cless_tests::{http_client, wait};
use http::Method;
use tokio::time::{Instant, sleep};

use crate::{SOON, check_serves, lacks, sample, wait_serves};

const CREATE: (&str, &str) = ("/containers/create", "");
const START: (&str, &str) = ("/containers/", "/start");
const STOP: (&str, &str) = ("/containers/", "/stop");
const PAUSE: (&str, &str) = ("/containers/", "/pause");
const UNPAUSE: (&str, &str) = ("/containers/", "/unpause");
const REMOVE: (&str, &str) = ("/containers/", "");
const INSPECT: (&str, &str) = ("/containers/cless-", "/json");
const LIST: (&str, &str) = ("/containers/json", "");
const EVENTS: (&str, &str) = ("/events", "");

/// The socket of the tests' engine.
fn real_engine() -> Result<std::path::PathBuf> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host
        .strip_prefix("unix://")
        .unwrap_or("/var/run/docker.sock");
    ensure!(Path::new(socket).exists(), "{socket} does not exist");
    Ok(socket.into())
}

/// A cluster of one node whose engine is behind the proxy.
async fn cluster_behind(proxy: &EngineProxy, flags: &[&str]) -> Result<Cluster> {
    let mut setup = NodeSetup::flags(&["--engine", &proxy.address()]);
    setup
        .args
        .extend(flags.iter().map(|flag| (*flag).to_owned()));
    Cluster::start_with(1, setup).await
}

/// Checks that the nodes have reported no failed start.
async fn check_no_failure(cluster: &Cluster, service: &str) -> Result<()> {
    let version = cluster.api()?.version(service, 1).await?;
    for node in version.status.unwrap_or_default().nodes {
        ensure!(
            node.failures == 0 && node.last_failure.is_none(),
            "{node:?}"
        );
    }
    Ok(())
}

async fn wait_spent(proxy: &EngineProxy) -> Result<()> {
    wait::until("all faults have occurred", SOON, async || {
        Ok(proxy.is_spent().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_or_start_with_a_lost_response_succeeds_without_a_second_container() -> Result<()>
{
    let proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    let faults = [
        Fault::FailAfter,
        Fault::CutAfter,
        Fault::CutBefore,
        Fault::FailBefore,
    ];
    for (index, fault) in faults.into_iter().enumerate() {
        for (what, path) in [("create", CREATE), ("start", START)] {
            let service = format!("{what}-{index}");
            cluster.serve(&service, sample().await?, settings()).await?;
            proxy.fault(Method::POST, path, fault, 1);
            check_serves(&cluster, &service)
                .await
                .with_context(|| format!("{what} {fault:?}"))?;
            ensure!(proxy.is_spent(), "{what} {fault:?} did not occur");
            cluster.wait_containers(&service, 1, SOON).await?;
            check_no_failure(&cluster, &service).await?;
        }
    }
    let instances = cluster.instances().await?.len();
    ensure!(instances == 8, "{instances} instances of 8 services");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_unpause_stop_and_remove_survive_lost_responses() -> Result<()> {
    let proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    let pausing = v1::ServiceSettings {
        pause_after: duration(Duration::from_millis(200)),
        idle_timeout: duration(Duration::from_secs(4)),
        ..settings()
    };
    for (index, fault) in [Fault::FailAfter, Fault::CutAfter, Fault::FailBefore]
        .into_iter()
        .enumerate()
    {
        let service = format!("pausing-{index}");
        cluster
            .serve(&service, sample().await?, pausing.clone())
            .await?;
        for (method, path) in [
            (Method::POST, PAUSE),
            (Method::POST, UNPAUSE),
            (Method::POST, STOP),
            (Method::DELETE, REMOVE),
        ] {
            proxy.fault(method, path, fault, 1);
        }
        check_serves(&cluster, &service).await?;
        let before = cluster.wait_paused(&service, SOON).await?;
        check_serves(&cluster, &service).await?;
        let after = cluster.containers(Some(&service)).await?;
        ensure!(
            after.len() == 1 && after[0].id == before.id,
            "{fault:?}: the container was replaced"
        );
        cluster.wait_containers(&service, 0, SOON).await?;
        wait::until("no instance is reported", SOON, async || {
            let instances = cluster.api()?.instances(&service).await?;
            Ok(instances.is_empty().then_some(()))
        })
        .await?;
        wait_spent(&proxy)
            .await
            .with_context(|| format!("{fault:?}"))?;
        check_no_failure(&cluster, &service).await?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_inspections_and_lists_have_no_effect() -> Result<()> {
    let proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    proxy.fault(Method::GET, INSPECT, Fault::FailBefore, 1);
    proxy.fault(Method::GET, INSPECT, Fault::CutBefore, 1);
    proxy.fault(Method::GET, LIST, Fault::FailBefore, 2);
    check_serves(&cluster, "hello").await?;
    check_no_failure(&cluster, "hello").await?;
    // The node lists containers after the event stream ends; the first lists fail.
    proxy.cut();
    wait_spent(&proxy).await?;
    check_serves(&cluster, "hello").await?;
    cluster.wait_containers("hello", 1, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_start_delays_only_its_own_requests_until_their_deadline() -> Result<()> {
    let proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &["--starts-at-once", "1"]).await?;
    let short = v1::ServiceSettings {
        cold_start_timeout: duration(Duration::from_secs(2)),
        ..settings()
    };
    cluster.serve("stuck", sample().await?, short).await?;
    for service in ["one", "two", "three"] {
        cluster.serve(service, sample().await?, settings()).await?;
    }
    proxy.fault(
        Method::POST,
        ("/containers/cless-stuck-", "/start"),
        Fault::Hang,
        1,
    );
    let begin = Instant::now();
    let late = cluster.get("stuck", "/").await?;
    ensure!(late.status == 504, "{late:?}");
    ensure!(
        begin.elapsed() < Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
    // The only start permit goes to other starts after a while.
    for service in ["one", "two", "three"] {
        check_serves(&cluster, service).await?;
    }
    ensure!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    ensure!(
        proxy.calls(&Method::POST, ("/containers/cless-stuck-", "/start")) == 1,
        "the start was repeated"
    );
    // The instance recovers together with the engine.
    proxy.clear();
    wait_serves(&cluster, "stuck", SOON).await?;
    cluster.wait_containers("stuck", 1, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_detected_without_events() -> Result<()> {
    let proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    check_serves(&cluster, "hello").await?;
    // From now on the event stream is open but silent.
    proxy.fault(Method::GET, EVENTS, Fault::Hang, 1);
    proxy.cut();
    wait_spent(&proxy).await?;
    // The reconciliation after opening the stream completes.
    sleep(Duration::from_secs(2)).await;
    let dead = cluster.wait_containers("hello", 1, SOON).await?;
    let options = None::<bollard::query_parameters::KillContainerOptions>;
    cluster
        .docker()
        .kill_container(&dead[0].id, options)
        .await?;
    // No request can detect the crash.
    cluster
        .wait_containers("hello", 0, Duration::from_secs(60))
        .await?;
    check_serves(&cluster, "hello").await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_an_engine_and_serves_when_it_appears() -> Result<()> {
    let mut proxy = EngineProxy::shut_before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    let ready = http_client::get(cluster.node(0).admin, "admin", "/readyz").await?;
    ensure!(ready.status == 200, "{ready:?}");
    // The request fails fast once the engine has been unavailable for long enough.
    let begin = Instant::now();
    let refused = cluster.get("hello", "/").await?;
    ensure!(refused.status == 503, "{refused:?}");
    ensure!(refused.header("retry-after") == Some("5"), "{refused:?}");
    ensure!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    lacks(&refused.text(), "sock")?;
    let metrics = http_client::get(cluster.node(0).admin, "admin", "/metrics")
        .await?
        .text();
    ensure!(metrics.contains("cless_engine_up 0"), "{metrics}");
    ensure!(metrics.contains(r#"reason="engine_away""#), "{metrics}");
    wait::until("the node warns", SOON, async || {
        let warnings = cluster.api()?.node("node-0").await?.warnings;
        let mut warnings = warnings.iter();
        Ok(warnings.any(|w| w.contains("is unreachable")).then_some(()))
    })
    .await?;
    proxy.open()?;
    wait_serves(&cluster, "hello", SOON).await?;
    check_no_failure(&cluster, "hello").await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_nothing_is_removed_and_a_resume_waits_for_it() -> Result<()> {
    let mut proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    let pausing = v1::ServiceSettings {
        pause_after: duration(Duration::from_millis(300)),
        ..settings()
    };
    let brief = v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(1)),
        ..settings()
    };
    cluster.serve("paused", sample().await?, pausing).await?;
    check_serves(&cluster, "paused").await?;
    cluster.wait_paused("paused", SOON).await?;
    cluster.serve("brief", sample().await?, brief).await?;
    check_serves(&cluster, "brief").await?;
    let before = cluster.instances().await?.len();
    proxy.shut();
    let address = cluster.node(0).listen;
    let resuming = tokio::spawn(http_client::get(address, "paused.localhost", "/"));
    sleep(Duration::from_secs(3)).await;
    // Its idle timeout has passed long ago.
    check_serves(&cluster, "brief").await?;
    ensure!(!resuming.is_finished(), "resumed without an engine");
    proxy.open()?;
    let resumed = resuming.await??;
    ensure!(resumed.status == 200, "{resumed:?}");
    ensure!(before == 2, "{before}");
    cluster.wait_containers("paused", 1, SOON).await?;
    cluster.wait_containers("brief", 0, SOON).await?;
    let states = cluster.api()?.instances("paused").await?;
    ensure!(
        states.iter().all(|one| one.state() != State::Failed),
        "{states:?}"
    );
    cluster.finish().await
}
