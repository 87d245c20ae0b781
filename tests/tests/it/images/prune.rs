//! `--prune-images-after` removes unused images and no others.

use std::time::Duration;

use anyhow::{Result, ensure};
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptions;
use cless_proto::v1::version_spec::PullPolicy;
use cless_tests::cluster::{Cluster, NodeSetup};
use cless_tests::engine;
use cless_tests::registry::{self, Registry, local_names};
use cless_tests::wait;
use tokio::time::Instant;

use super::{digest, greets, serve_briefly};
use crate::SOON;

/// The retention of unused images.
const AFTER: Duration = Duration::from_secs(2);

struct PruneTest {
    cluster: Cluster,
    docker: Docker,
    registry: Registry,
}

impl PruneTest {
    /// Pushes an image, runs it once in a service of its own and returns its reference. The user pulls
    /// it if `by_hand`, else cless.
    async fn run_once(&self, name: &str, by_hand: bool) -> Result<String> {
        let at = self.registry.address();
        let pushed = self
            .registry
            .push(&self.docker, at, (name, "1"), name, 0)
            .await?;
        if by_hand {
            registry::pull_by_hand(&self.docker, &pushed.reference).await?;
        }
        serve_briefly(&self.cluster, name, &pushed, PullPolicy::Missing).await?;
        greets(&self.cluster, 0, name, name).await?;
        digest(&self.cluster, name).await?;
        self.cluster.wait_containers(name, 0, SOON).await?;
        // A node pulls what the tag named at creation, by digest.
        Ok(match by_hand {
            true => pushed.reference,
            false => format!("{at}/{name}@{}", pushed.digest),
        })
    }

    async fn delete(&self, service: &str) -> Result<()> {
        self.cluster.api()?.delete_service(service).await
    }

    async fn has(&self, reference: &str) -> Result<bool> {
        let names = local_names(&self.docker, self.registry.address()).await?;
        Ok(names.iter().any(|name| name == reference))
    }

    async fn wait_removed(&self, reference: &str) -> Result<()> {
        wait::until(&format!("{reference} is removed"), SOON, async || {
            Ok((!self.has(reference).await?).then_some(()))
        })
        .await
    }

    /// Checks for three times the retention that the image is kept.
    async fn is_kept(&self, reference: &str) -> Result<()> {
        let deadline = Instant::now() + 3 * AFTER;
        while Instant::now() < deadline {
            ensure!(self.has(reference).await?, "{reference} is gone");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_unused_images_are_pruned() -> Result<()> {
    let after = format!("{}s", AFTER.as_secs());
    let setup = NodeSetup::flags(&["--prune-images-after", &after]);
    let cluster = Cluster::start_with(1, setup).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let mut test = PruneTest {
        cluster,
        docker: docker.clone(),
        registry,
    };
    let unused = test.run_once("unused", false).await?;
    let retained = test.run_once("retained", false).await?;
    let users = test.run_once("users", true).await?;
    let in_use = test.run_once("in-use", false).await?;
    let body = ContainerCreateBody {
        image: Some(in_use.clone()),
        ..Default::default()
    };
    // A created container uses its image, even if it never starts.
    let container = docker
        .create_container(None::<CreateContainerOptions>, body)
        .await?
        .id;
    // A version without traffic keeps its image for a rollback.
    test.cluster.set_traffic("retained", &[]).await?;
    for service in ["unused", "users", "in-use"] {
        test.delete(service).await?;
    }
    test.wait_removed(&unused).await?;
    for kept in [&retained, &users, &in_use] {
        test.is_kept(kept).await?;
    }

    engine::remove(&docker, &container).await?;
    test.wait_removed(&in_use).await?;

    // Without a control plane no image is removed.
    test.delete("retained").await?;
    test.cluster.kill_control_plane().await?;
    test.is_kept(&retained).await?;
    test.cluster.start_control_plane().await?;
    test.cluster.wait_propagated(0).await?;
    test.wait_removed(&retained).await?;
    ensure!(test.has(&users).await?, "the user's own image is gone");
    test.cluster.finish().await?;
    registry::remove_local(&docker, at).await
}
