//! An engine in trouble: it answers 500 to what it has done, cuts its connections, hangs, says
//! nothing any more, or is not there. A man in the middle before the real engine provokes it.

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

use crate::{SOON, sample};

const CREATE: (&str, &str) = ("/containers/create", "");
const START: (&str, &str) = ("/containers/", "/start");
const STOP: (&str, &str) = ("/containers/", "/stop");
const PAUSE: (&str, &str) = ("/containers/", "/pause");
const UNPAUSE: (&str, &str) = ("/containers/", "/unpause");
const REMOVE: (&str, &str) = ("/containers/", "");
const INSPECT: (&str, &str) = ("/containers/cless-", "/json");
const LIST: (&str, &str) = ("/containers/json", "");
const EVENTS: (&str, &str) = ("/events", "");

/// The socket of the engine that the tests use.
fn real_engine() -> Result<std::path::PathBuf> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host
        .strip_prefix("unix://")
        .unwrap_or("/var/run/docker.sock");
    ensure!(Path::new(socket).exists(), "{socket} is no socket");
    Ok(socket.into())
}

/// A cluster of one node whose engine is behind the proxy.
async fn cluster_behind(proxy: &EngineProxy, flags: &[&str]) -> Result<Cluster> {
    let mut setup = NodeSetup::flags(&["--engine", &proxy.address()]);
    let more = flags.iter().map(|flag| (*flag).to_owned());
    setup.args.extend(more);
    Cluster::start_with(1, setup).await
}

async fn answers(cluster: &Cluster, service: &str) -> Result<()> {
    let answer = cluster.get(service, "/").await?;
    ensure!(answer.status == 200, "{service}: {answer:?}");
    Ok(())
}

/// No start failed, as far as the nodes say.
async fn blameless(cluster: &Cluster, service: &str) -> Result<()> {
    let version = cluster.api()?.version(service, 1).await?;
    for node in version.status.unwrap_or_default().nodes {
        ensure!(
            node.failures == 0 && node.last_failure.is_none(),
            "{node:?}"
        );
    }
    Ok(())
}

async fn until_spent(proxy: &EngineProxy) -> Result<()> {
    wait::until("all faults have happened", SOON, async || {
        Ok(proxy.is_spent().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_or_start_whose_answer_is_lost_is_found_and_nothing_is_started_twice() -> Result<()>
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
            answers(&cluster, &service)
                .await
                .with_context(|| format!("{what} {fault:?}"))?;
            ensure!(proxy.is_spent(), "{what} {fault:?} did not happen");
            cluster.wait_containers(&service, 1, SOON).await?;
            blameless(&cluster, &service).await?;
        }
    }
    // Each was made once, but for those that the engine never heard of, or said it had not done.
    ensure!(cluster.instances().await?.len() == 8, "leaked");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_unpause_stop_and_remove_survive_lost_answers() -> Result<()> {
    let proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    let sleepy = v1::ServiceSettings {
        pause_after: duration(Duration::from_millis(200)),
        idle_timeout: duration(Duration::from_secs(4)),
        ..settings()
    };
    for (index, fault) in [Fault::FailAfter, Fault::CutAfter, Fault::FailBefore]
        .into_iter()
        .enumerate()
    {
        let service = format!("sleepy-{index}");
        cluster
            .serve(&service, sample().await?, sleepy.clone())
            .await?;
        for (method, path) in [
            (Method::POST, PAUSE),
            (Method::POST, UNPAUSE),
            (Method::POST, STOP),
            (Method::DELETE, REMOVE),
        ] {
            proxy.fault(method, path, fault, 1);
        }
        answers(&cluster, &service).await?;
        wait::until("it sleeps", SOON, async || {
            let found = cluster.containers(Some(&service)).await?;
            Ok((found.len() == 1 && found[0].state == "paused").then_some(()))
        })
        .await?;
        let before = cluster.containers(Some(&service)).await?;
        answers(&cluster, &service).await?;
        let after = cluster.containers(Some(&service)).await?;
        ensure!(
            after.len() == 1 && after[0].id == before[0].id,
            "{fault:?}: it was replaced"
        );
        cluster.wait_containers(&service, 0, SOON).await?;
        wait::until("nothing is reported", SOON, async || {
            let instances = cluster.api()?.instances(&service).await?;
            Ok(instances.is_empty().then_some(()))
        })
        .await?;
        until_spent(&proxy)
            .await
            .with_context(|| format!("{fault:?}"))?;
        blameless(&cluster, &service).await?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_and_lists_that_fail_cost_nothing() -> Result<()> {
    let proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    proxy.fault(Method::GET, INSPECT, Fault::FailBefore, 1);
    proxy.fault(Method::GET, INSPECT, Fault::CutBefore, 1);
    proxy.fault(Method::GET, LIST, Fault::FailBefore, 2);
    answers(&cluster, "hello").await?;
    blameless(&cluster, "hello").await?;
    // The stream ends, so containers are listed, in vain at first.
    proxy.cut();
    until_spent(&proxy).await?;
    answers(&cluster, "hello").await?;
    cluster.wait_containers("hello", 1, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_start_that_hangs_stalls_its_own_callers_only_and_those_to_their_deadline() -> Result<()>
{
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
    // The only place of the gate is given to others after a while.
    for service in ["one", "two", "three"] {
        answers(&cluster, service).await?;
    }
    ensure!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    ensure!(
        proxy.calls(&Method::POST, ("/containers/cless-stuck-", "/start")) == 1,
        "again"
    );
    // The engine gets over it, and so does the instance.
    proxy.clear();
    wait::until("the stuck one answers", SOON, async || {
        let answer = cluster.get("stuck", "/").await?;
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    cluster.wait_containers("stuck", 1, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_noticed_though_the_events_are_silent() -> Result<()> {
    let proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    answers(&cluster, "hello").await?;
    // From now on the stream is open and tells nothing.
    proxy.fault(Method::GET, EVENTS, Fault::Hang, 1);
    proxy.cut();
    until_spent(&proxy).await?;
    // The sweep at the new stream is over.
    sleep(Duration::from_secs(2)).await;
    let dead = cluster.wait_containers("hello", 1, SOON).await?;
    let options = None::<bollard::query_parameters::KillContainerOptions>;
    cluster
        .docker()
        .kill_container(&dead[0].id, options)
        .await?;
    // Nobody asks for it, so nothing else can notice.
    cluster
        .wait_containers("hello", 0, Duration::from_secs(60))
        .await?;
    answers(&cluster, "hello").await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_an_engine_and_serves_when_it_appears() -> Result<()> {
    let mut proxy = EngineProxy::shut_before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    let ready = http_client::get(cluster.node(0).admin, "admin", "/readyz").await?;
    ensure!(ready.status == 200, "{ready:?}");
    // Told at once: the engine has been away for long enough by now, or soon is.
    let begin = Instant::now();
    let refused = cluster.get("hello", "/").await?;
    ensure!(refused.status == 503, "{refused:?}");
    ensure!(refused.header("retry-after") == Some("5"), "{refused:?}");
    ensure!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    ensure!(
        !refused.text().contains("sock"),
        "engine text leaks: {refused:?}"
    );
    let metrics = http_client::get(cluster.node(0).admin, "admin", "/metrics")
        .await?
        .text();
    ensure!(metrics.contains("cless_engine_up 0"), "{metrics}");
    ensure!(metrics.contains(r#"reason="engine_away""#), "{metrics}");
    wait::until("the node warns", SOON, async || {
        let name = "nodes/node-0".to_owned();
        let node = cluster
            .api()?
            .nodes
            .get_node(v1::GetNodeRequest { name })
            .await?;
        let warnings = node.into_inner().warnings;
        Ok(warnings
            .iter()
            .any(|w| w.contains("is not there"))
            .then_some(()))
    })
    .await?;
    proxy.open()?;
    wait::until("it serves", SOON, async || {
        Ok((cluster.get("hello", "/").await?.status == 200).then_some(()))
    })
    .await?;
    blameless(&cluster, "hello").await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_engine_neither_freezes_nor_reaps_and_what_slept_is_woken_when_it_is_back()
-> Result<()> {
    let mut proxy = EngineProxy::before(&real_engine()?)?;
    let cluster = cluster_behind(&proxy, &[]).await?;
    let sleepy = v1::ServiceSettings {
        pause_after: duration(Duration::from_millis(300)),
        ..settings()
    };
    let brief = v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(1)),
        ..settings()
    };
    cluster.serve("asleep", sample().await?, sleepy).await?;
    answers(&cluster, "asleep").await?;
    wait::until("it sleeps", SOON, async || {
        let found = cluster.containers(Some("asleep")).await?;
        Ok((found.len() == 1 && found[0].state == "paused").then_some(()))
    })
    .await?;
    cluster.serve("brief", sample().await?, brief).await?;
    answers(&cluster, "brief").await?;
    let before = cluster.instances().await?.len();
    proxy.shut();
    let waking = http_client::get(cluster.node(0).listen, "asleep.localhost", "/");
    let waking = tokio::spawn(waking);
    sleep(Duration::from_secs(3)).await;
    // Long past its idle timeout.
    answers(&cluster, "brief").await?;
    ensure!(!waking.is_finished(), "who could have woken it?");
    proxy.open()?;
    let woken = waking.await??;
    ensure!(woken.status == 200, "{woken:?}");
    ensure!(before == 2, "{before}");
    cluster.wait_containers("asleep", 1, SOON).await?;
    cluster.wait_containers("brief", 0, SOON).await?;
    let states = cluster.api()?.instances("asleep").await?;
    ensure!(
        states.iter().all(|one| one.state() != State::Failed),
        "{states:?}"
    );
    cluster.finish().await
}
