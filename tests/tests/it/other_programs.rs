//! Other programs on the engine: they pause, rename, connect and disconnect containers of a node,
//! and remove its network.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::models::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use bollard::query_parameters::RenameContainerOptionsBuilder;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::{http_client, wait};
use tokio::time::{Instant, sleep};

use crate::{SOON, check_serves, sample};

async fn started(flags: &[&str]) -> Result<(Cluster, String)> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(flags)).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    check_serves(&cluster, "hello").await?;
    let id = cluster
        .wait_containers("hello", 1, SOON)
        .await?
        .remove(0)
        .id;
    Ok((cluster, id))
}

/// The only container of the service is this one.
async fn check_same(cluster: &Cluster, id: &str) -> Result<()> {
    let found = cluster.containers(Some("hello")).await?;
    ensure!(found.len() == 1 && found[0].id == id, "{found:?}");
    Ok(())
}

/// Waits until the version's status has a message with these words.
async fn wait_said(cluster: &Cluster, words: &str) -> Result<()> {
    wait::until("the version's status says so", SOON, async || {
        let version = cluster.api()?.version("hello", 1).await?;
        let nodes = version.status.unwrap_or_default().nodes;
        let mut failures = nodes.into_iter().filter_map(|node| node.last_failure);
        Ok(failures
            .any(|one| one.message.contains(words))
            .then_some(()))
    })
    .await
}

fn slow(cluster: &Cluster, ms: u32) -> tokio::task::JoinHandle<Result<http_client::FullResponse>> {
    let (address, path) = (cluster.node(0).listen, format!("/slow?ms={ms}"));
    tokio::spawn(async move { http_client::get(address, "hello.localhost", &path).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_container_that_is_paused_is_resumed_under_its_requests() -> Result<()> {
    let (cluster, id) = started(&[]).await?;
    let in_flight = slow(&cluster, 1000);
    sleep(Duration::from_millis(200)).await;
    cluster.docker().pause_container(&id).await?;
    let began = Instant::now();
    check_serves(&cluster, "hello").await?;
    ensure!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    ensure!(in_flight.await??.status == 200);
    check_same(&cluster, &id).await?;
    wait_said(&cluster, "another program paused").await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_container_serves_on_and_is_removed_by_its_id() -> Result<()> {
    let (mut cluster, id) = started(&["--keep-containers"]).await?;
    let docker = cluster.docker().clone();
    let found = docker.inspect_container(&id, None).await?;
    let old = found
        .name
        .context("no name")?
        .trim_start_matches('/')
        .to_owned();
    let name = format!("renamed-{}", &id[..12]);
    let in_flight = slow(&cluster, 3000);
    let options = RenameContainerOptionsBuilder::default().name(&name).build();
    docker.rename_container(&id, options).await?;
    // Another container of the same node's labels takes the name.
    let decoy = bollard::models::ContainerCreateBody {
        image: Some(sample().await?.to_owned()),
        ..Default::default()
    };
    let options = bollard::query_parameters::CreateContainerOptionsBuilder::default()
        .name(&old)
        .build();
    let decoy = docker.create_container(Some(options), decoy).await?.id;
    // A pause and a resume by id, and a reconciliation.
    docker.pause_container(&id).await?;
    check_serves(&cluster, "hello").await?;
    ensure!(in_flight.await??.status == 200);
    check_same(&cluster, &id).await?;
    // The next process adopts it under its label, and removes it at its end.
    cluster.kill_node(0).await?;
    cluster.node_mut(0).setup.args.clear();
    cluster.start_node(0).await?;
    check_serves(&cluster, "hello").await?;
    check_same(&cluster, &id).await?;
    let decoy_lives = docker.inspect_container(&decoy, None).await.is_ok();
    cluster.finish().await?;
    let decoy_left = docker.inspect_container(&decoy, None).await.is_ok();
    cless_tests::engine::remove(&docker, &decoy).await?;
    ensure!(
        decoy_lives && decoy_left,
        "a container of another program was removed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_on_further_networks_is_adopted_at_its_own_address() -> Result<()> {
    let (mut cluster, id) = started(&["--sandboxes", "0"]).await?;
    let docker = cluster.docker().clone();
    let mut others = Vec::new();
    for number in 0..3 {
        let name = format!("other-{}-{number}", &id[..12]);
        let request = NetworkCreateRequest {
            name: name.clone(),
            internal: Some(true),
            ..Default::default()
        };
        docker.create_network(request).await?;
        let request = NetworkConnectRequest {
            container: id.clone(),
            ..Default::default()
        };
        docker.connect_network(&name, request).await?;
        others.push(name);
    }
    cluster.kill_node(0).await?;
    cluster.start_node(0).await?;
    let served = check_serves(&cluster, "hello").await;
    let same = check_same(&cluster, &id).await;
    let of_node = format!(
        "cless-{}",
        cluster
            .node_id(0)?
            .replace('-', "")
            .get(..12)
            .unwrap_or_default()
    );
    let found = docker.inspect_container(&id, None).await?;
    let networks = found
        .network_settings
        .and_then(|net| net.networks)
        .unwrap_or_default();
    let finished = cluster.finish().await;
    for name in others {
        docker.remove_network(&name).await?;
    }
    ensure!(networks.contains_key(&of_node), "{networks:?}");
    served.and(same).and(finished)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_removed_network_of_a_node_is_made_again_and_its_containers_replaced() -> Result<()> {
    for flags in [&["--sandboxes", "0"][..], &[]] {
        let (cluster, id) = started(flags).await?;
        let docker = cluster.docker();
        let short: String = cluster
            .node_id(0)?
            .replace('-', "")
            .chars()
            .take(12)
            .collect();
        let network = format!("cless-{short}");
        let attached = docker.inspect_network(&network, None).await?.containers;
        for container in attached.unwrap_or_default().into_keys() {
            let request = NetworkDisconnectRequest {
                container,
                force: Some(true),
            };
            docker.disconnect_network(&network, request).await?;
        }
        // A sandbox that is made in between keeps the network in use.
        let _ = docker.remove_network(&network).await;
        let began = Instant::now();
        wait::until("another container serves", SOON, async || {
            let found = cluster.containers(Some("hello")).await?;
            if found.iter().any(|one| one.id == id) {
                return Ok(None);
            }
            Ok((cluster.get("hello", "/").await?.status == 200).then_some(()))
        })
        .await?;
        ensure!(
            began.elapsed() < Duration::from_secs(15),
            "{:?}",
            began.elapsed()
        );
        cluster.finish().await?;
    }
    Ok(())
}
