//! Network sandboxes on the real engine: each is used once, adopted and removed with its instance.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::{Cluster, NodeSetup, duration, settings};
use cless_tests::engine::{self, Container};
use cless_tests::http_client::get;
use cless_tests::wait;
use tokio::task::JoinSet;

use crate::{SOON, sample};

async fn answers(cluster: &Cluster, service: &str) -> Result<()> {
    let answer = cluster.get(service, "/").await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// A cluster with a full inventory and a service that runs in a sandbox.
async fn serving(flags: &[&str], settings: v1::ServiceSettings) -> Result<Cluster> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(flags)).await?;
    cluster.serve("hello", sample().await?, settings).await?;
    cluster.wait_sandboxes(1, SOON).await?;
    answers(&cluster, "hello").await?;
    Ok(cluster)
}

async fn instance(cluster: &Cluster, service: &str) -> Result<Container> {
    Ok(cluster.wait_containers(service, 1, SOON).await?.remove(0))
}

/// The id of the container's sandbox.
async fn sandbox_of(cluster: &Cluster, container: &Container) -> Result<String> {
    let joined = engine::sandbox_of(cluster.docker(), &container.id).await?;
    joined.context("it is not in a sandbox")
}

/// Waits until the sandbox with this id is removed.
async fn wait_removed(cluster: &Cluster, id: &str) -> Result<()> {
    wait::until("the sandbox is removed", SOON, async || {
        let left = cluster.sandboxes().await?;
        Ok((!left.iter().any(|one| one.id == id)).then_some(()))
    })
    .await
}

const ONE: [&str; 2] = ["--sandboxes", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn a_start_uses_a_sandbox_once_without_published_ports() -> Result<()> {
    let settings = v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(1)),
        ..settings()
    };
    let cluster = serving(&ONE, settings).await?;
    let first = instance(&cluster, "hello").await?;
    let used = sandbox_of(&cluster, &first).await?;
    for id in [&used, &first.id] {
        let found = engine::inspect(cluster.docker(), id).await?;
        let host = found.host_config.unwrap_or_default();
        ensure!(
            host.port_bindings.unwrap_or_default().is_empty(),
            "a port is published"
        );
        ensure!(host.privileged != Some(true), "{id} is privileged");
    }
    let instances = cluster.api()?.instances("hello").await?;
    ensure!(
        instances.len() <= 1,
        "a sandbox is reported as an instance: {instances:?}"
    );

    cluster.wait_containers("hello", 0, SOON).await?;
    wait_removed(&cluster, &used).await?;
    cluster.wait_sandboxes(1, SOON).await?;
    answers(&cluster, "hello").await?;
    let second = instance(&cluster, "hello").await?;
    ensure!(
        sandbox_of(&cluster, &second).await? != used,
        "it was used twice"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_adopts_sandboxes_in_use_and_removes_idle_ones() -> Result<()> {
    let mut cluster = serving(&["--sandboxes", "2"], settings()).await?;
    let before = instance(&cluster, "hello").await?;
    let used = sandbox_of(&cluster, &before).await?;
    cluster.wait_sandboxes(2, SOON).await?;
    cluster.kill_node(0).await?;
    let left = cluster.sandboxes().await?;
    ensure!(left.len() == 3, "{left:?}");

    cluster.start_node(0).await?;
    answers(&cluster, "hello").await?;
    let after = instance(&cluster, "hello").await?;
    ensure!(after.id == before.id, "it was replaced");
    for idle in left.iter().filter(|one| one.id != used) {
        wait_removed(&cluster, &idle.id).await?;
    }
    cluster.wait_sandboxes(2, SOON).await?;
    answers(&cluster, "hello").await?;
    ensure!(
        sandbox_of(&cluster, &instance(&cluster, "hello").await?).await? == used,
        "it was replaced"
    );
    // An adopted sandbox is removed with its instance.
    cluster.api()?.delete_service("hello").await?;
    cluster.wait_containers("hello", 0, SOON).await?;
    wait_removed(&cluster, &used).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_replaced_when_its_pause_container_is_killed() -> Result<()> {
    let cluster = serving(&ONE, settings()).await?;
    let first = instance(&cluster, "hello").await?;
    let used = sandbox_of(&cluster, &first).await?;
    cluster.docker().kill_container(&used, None).await?;
    wait::until("the instance is removed", SOON, async || {
        let now = cluster.containers(Some("hello")).await?;
        Ok((!now.iter().any(|one| one.id == first.id)).then_some(()))
    })
    .await?;
    answers(&cluster, "hello").await?;
    ensure!(
        instance(&cluster, "hello").await?.id != first.id,
        "the instance without a network is kept"
    );
    wait_removed(&cluster, &used).await?;

    // A killed idle sandbox is replaced too.
    cluster.wait_sandboxes(1, SOON).await?;
    let held = sandbox_of(&cluster, &instance(&cluster, "hello").await?)
        .await
        .ok();
    let all = cluster.sandboxes().await?;
    let idle = all.iter().find(|one| Some(&one.id) != held.as_ref());
    let idle = &idle.context("no sandbox is idle")?.id;
    cluster.docker().kill_container(idle, None).await?;
    wait_removed(&cluster, idle).await?;
    cluster.wait_sandboxes(1, SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_container_killed_during_a_start_fails_no_request() -> Result<()> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(&ONE)).await?;
    cluster
        .serve_env(
            "hello",
            sample().await?,
            settings(),
            &[("START_DELAY_MS", "1500")],
        )
        .await?;
    cluster.wait_sandboxes(1, SOON).await?;
    let held = cluster.sandboxes().await?.remove(0);
    let request = tokio::spawn(get(cluster.node(0).listen, "hello.localhost", "/"));
    wait::until("the instance runs", SOON, async || {
        let now = cluster.containers(Some("hello")).await?;
        Ok(now.iter().any(|one| one.state == "running").then_some(()))
    })
    .await?;
    cluster.docker().kill_container(&held.id, None).await?;
    let answer = request.await??;
    ensure!(answer.status == 200, "{answer:?}");
    let joined =
        engine::sandbox_of(cluster.docker(), &instance(&cluster, "hello").await?.id).await?;
    ensure!(joined.is_none(), "it is still in a sandbox");
    wait_removed(&cluster, &held.id).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sandboxes_starts_use_the_bridge() -> Result<()> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(&["--sandboxes", "0"])).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    answers(&cluster, "hello").await?;
    let container = instance(&cluster, "hello").await?;
    let joined = engine::sandbox_of(cluster.docker(), &container.id).await?;
    ensure!(joined.is_none(), "{joined:?}");
    ensure!(cluster.sandboxes().await?.is_empty(), "a sandbox exists");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_larger_than_the_inventory_uses_the_bridge() -> Result<()> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(&ONE)).await?;
    let services = ["a", "b", "c", "d"];
    for service in services {
        cluster.serve(service, sample().await?, settings()).await?;
    }
    cluster.wait_sandboxes(1, SOON).await?;
    let mut requests = JoinSet::new();
    for service in services {
        let address = cluster.node(0).listen;
        requests.spawn(async move { get(address, &Cluster::host(service), "/").await });
    }
    while let Some(answer) = requests.join_next().await {
        let answer = answer??;
        ensure!(answer.status == 200, "{answer:?}");
    }
    let mut joined = Vec::new();
    for service in services {
        let container = instance(&cluster, service).await?;
        joined.extend(engine::sandbox_of(cluster.docker(), &container.id).await?);
    }
    ensure!(joined.len() == 1, "{joined:?}");
    cluster.finish().await
}

/// Whether a TCP connection from the network of a container succeeds.
async fn connects(cluster: &Cluster, from: &Container, to: &str) -> Result<bool> {
    let pid = engine::pid(cluster.docker(), &from.id).await?;
    let script = format!("exec 3<>/dev/tcp/{to}");
    let status = tokio::task::spawn_blocking(move || {
        Command::new("nsenter")
            .args(["--net", "--target", &pid.to_string()])
            .args(["timeout", "2", "bash", "-c", &script])
            .output()
    })
    .await??;
    Ok(status.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_in_sandboxes_cannot_reach_each_other() -> Result<()> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(&["--sandboxes", "2"])).await?;
    for service in ["a", "b"] {
        cluster.serve(service, sample().await?, settings()).await?;
    }
    cluster.wait_sandboxes(2, SOON).await?;
    answers(&cluster, "a").await?;
    answers(&cluster, "b").await?;
    let (a, b) = (
        instance(&cluster, "a").await?,
        instance(&cluster, "b").await?,
    );
    ensure!(
        sandbox_of(&cluster, &a).await? != sandbox_of(&cluster, &b).await?,
        "they share a sandbox"
    );
    let address = engine::address(cluster.docker(), &b.id, 8080).await?;
    let target = format!("{}/{}", address.ip(), address.port());
    ensure!(connects(&cluster, &b, &target).await?, "b listens there");
    ensure!(!connects(&cluster, &a, &target).await?, "a reaches b");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_in_a_sandbox_is_paused_and_resumed() -> Result<()> {
    let settings = v1::ServiceSettings {
        pause_after: duration(Duration::from_millis(100)),
        idle_timeout: duration(Duration::from_secs(60)),
        ..settings()
    };
    let cluster = serving(&ONE, settings).await?;
    let container = instance(&cluster, "hello").await?;
    sandbox_of(&cluster, &container).await?;
    for _ in 0..3 {
        wait::until("the container is paused", SOON, async || {
            let now = cluster.containers(Some("hello")).await?;
            Ok((now.len() == 1 && now[0].state == "paused").then_some(()))
        })
        .await?;
        answers(&cluster, "hello").await?;
    }
    ensure!(
        instance(&cluster, "hello").await?.id == container.id,
        "replaced"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_containers_keeps_the_sandboxes_in_use() -> Result<()> {
    let mut cluster = serving(&["--sandboxes", "1", "--keep-containers"], settings()).await?;
    let before = instance(&cluster, "hello").await?;
    let used = sandbox_of(&cluster, &before).await?;
    cluster.wait_sandboxes(1, SOON).await?;
    cluster.stop_node(0).await?;
    let left = cluster.sandboxes().await?;
    ensure!(left.len() == 1 && left[0].id == used, "{left:?}");
    cluster.node_mut(0).setup = NodeSetup::flags(&ONE);
    cluster.start_node(0).await?;
    answers(&cluster, "hello").await?;
    ensure!(
        instance(&cluster, "hello").await?.id == before.id,
        "replaced"
    );
    cluster.finish().await
}
