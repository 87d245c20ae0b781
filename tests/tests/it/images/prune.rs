//! Images that nothing needs are removed, if the node is told to, and no others.

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

/// How long an image is kept that nothing needs.
const AFTER: Duration = Duration::from_secs(2);

struct Trial {
    cluster: Cluster,
    docker: Docker,
    registry: Registry,
}

impl Trial {
    /// An image with a service of its own that has run once; by hand or by cless.
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
        Ok(pushed.reference)
    }

    async fn delete(&self, service: &str) -> Result<()> {
        self.cluster.api()?.delete_service(service).await
    }

    async fn has(&self, reference: &str) -> Result<bool> {
        let names = local_names(&self.docker, self.registry.address()).await?;
        Ok(names.iter().any(|name| name == reference))
    }

    async fn goes(&self, reference: &str) -> Result<()> {
        wait::until(&format!("{reference} is removed"), SOON, async || {
            Ok((!self.has(reference).await?).then_some(()))
        })
        .await
    }

    /// Looks for several times as long as it takes an image to go.
    async fn stays(&self, reference: &str) -> Result<()> {
        let until = Instant::now() + 3 * AFTER;
        while Instant::now() < until {
            ensure!(self.has(reference).await?, "{reference} is gone");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_needs_is_pruned_and_nothing_else() -> Result<()> {
    let after = format!("{}s", AFTER.as_secs());
    let setup = NodeSetup::flags(&["--prune-images-after", &after]);
    let cluster = Cluster::start_with(1, setup).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let mut trial = Trial {
        cluster,
        docker: docker.clone(),
        registry,
    };
    let unused = trial.run_once("unused", false).await?;
    let retained = trial.run_once("retained", false).await?;
    let users = trial.run_once("users", true).await?;
    let in_use = trial.run_once("in-use", false).await?;
    let body = ContainerCreateBody {
        image: Some(in_use.clone()),
        ..Default::default()
    };
    // Made, never started: that is use enough.
    let container = docker
        .create_container(None::<CreateContainerOptions>, body)
        .await?
        .id;
    // A version that gets nothing any more is one that a rollback may want.
    trial.cluster.set_traffic("retained", &[]).await?;
    for service in ["unused", "users", "in-use"] {
        trial.delete(service).await?;
    }
    trial.goes(&unused).await?;
    for spared in [&retained, &users, &in_use] {
        trial.stays(spared).await?;
    }

    engine::remove(&docker, &container).await?;
    trial.goes(&in_use).await?;

    // Nobody can say what versions need: nothing goes.
    trial.delete("retained").await?;
    trial.cluster.kill_control_plane().await?;
    trial.stays(&retained).await?;
    trial.cluster.start_control_plane().await?;
    trial.cluster.wait_propagated(0).await?;
    trial.goes(&retained).await?;
    ensure!(trial.has(&users).await?, "the user's own image is gone");
    trial.cluster.finish().await?;
    registry::remove_local(&docker, at).await
}
