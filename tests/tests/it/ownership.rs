//! Ownership of containers: a node changes only its own.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptions;
use cless_tests::cluster::{Cluster, settings};
use cless_tests::engine;

use crate::{SOON, check_serves, sample};

/// The label by which foreign containers are removed even if the test fails.
const FOREIGN: (&str, &str) = ("cless.test-foreign", "ownership");

/// Starts a container that no node owns.
async fn foreign(docker: &Docker, labels: &[(&str, &str)]) -> Result<String> {
    let labels: HashMap<_, _> = labels
        .iter()
        .chain([&FOREIGN])
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let body = ContainerCreateBody {
        image: Some(sample().await?.to_owned()),
        labels: Some(labels),
        ..Default::default()
    };
    let id = docker
        .create_container(None::<CreateContainerOptions>, body)
        .await?
        .id;
    docker.start_container(&id, None).await?;
    Ok(id)
}

async fn is_running(docker: &Docker, id: &str) -> Result<bool> {
    let found = engine::inspect(docker, id).await?;
    Ok(found.state.and_then(|state| state.running).unwrap_or(false))
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_on_one_engine_change_only_their_own_containers() -> Result<()> {
    let outcome = run_two_nodes().await;
    engine::sweep(&engine::connect().await?, &[FOREIGN]).await?;
    outcome
}

async fn run_two_nodes() -> Result<()> {
    let mut cluster = Cluster::start(2).await?;
    let docker = cluster.docker().clone();
    cluster.serve("hello", sample().await?, settings()).await?;
    for index in 0..2 {
        let answer = cluster.node(index).get("hello.localhost", "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    let both = cluster.wait_containers("hello", 2, SOON).await?;
    ensure!(
        both[0].label("cless.node") != both[1].label("cless.node"),
        "{both:?}"
    );

    let users = foreign(&docker, &[]).await?;
    let other_cluster = foreign(
        &docker,
        &[
            ("cless.cluster", "0192-another-cluster"),
            ("cless.node", both[0].label("cless.node")),
            ("cless.service", "hello"),
            ("cless.version", "1"),
        ],
    )
    .await?;

    // A restart after a kill reconciles containers; a stop removes them.
    cluster.kill_node(0).await?;
    cluster.start_node(0).await?;
    cluster.wait_propagated(0).await?;
    check_serves(&cluster, "hello").await?;
    let again = cluster.wait_containers("hello", 2, SOON).await?;
    for container in &both {
        ensure!(
            again.iter().any(|c| c.id == container.id),
            "{} was replaced",
            container.id
        );
    }
    cluster.stop_node(0).await?;
    let left = cluster.wait_containers("hello", 1, SOON).await?;
    let other = cluster
        .node(1)
        .get("hello.localhost", "/load")
        .await?
        .json()?;
    ensure!(
        other["served"].as_u64() == Some(1),
        "node 1 lost its container: {other}"
    );
    ensure!(
        both.iter().any(|c| c.id == left[0].id),
        "node 1 has another container now"
    );

    for (owner, id) in [("a user", &users), ("another cluster", &other_cluster)] {
        ensure!(
            is_running(&docker, id).await?,
            "the container of {owner} was stopped"
        );
    }
    cluster.finish().await
}
