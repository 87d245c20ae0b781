//! Images from real registries on loopback.
//!
//! The nodes of a cluster share one engine. Tests therefore observe pulls in the log of the registry
//! and remove images from the engine between steps.

mod credentials;
mod digest;
mod prune;
mod pull;

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::registry::Pushed;
use cless_tests::wait;

use crate::{SOON, serve_spec};

/// Settings with an idle timeout of one second.
fn short_idle_timeout() -> v1::ServiceSettings {
    v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(1)),
        ..settings()
    }
}

/// [`serve_spec`] with a pull policy and a short idle timeout.
async fn serve_briefly(
    cluster: &Cluster,
    service: &str,
    image: &Pushed,
    policy: v1::version_spec::PullPolicy,
) -> Result<()> {
    serve_spec(
        cluster,
        service,
        short_idle_timeout(),
        spec(&image.reference, policy),
    )
    .await
}

fn spec(image: &str, policy: v1::version_spec::PullPolicy) -> v1::VersionSpec {
    v1::VersionSpec {
        image: image.to_owned(),
        pull_policy: policy.into(),
        ..Default::default()
    }
}

/// Checks the response of a service through a node.
async fn greets(cluster: &Cluster, node: usize, service: &str, greeting: &str) -> Result<()> {
    let answer = cluster.node(node).get(&Cluster::host(service), "/").await?;
    let text = answer.text();
    ensure!(
        answer.status == 200 && text == format!("{greeting}\n"),
        "{answer:?}"
    );
    Ok(())
}

/// Waits until version 1 of a service has a digest.
async fn digest(cluster: &Cluster, service: &str) -> Result<String> {
    wait::until("the digest is known", SOON, async || {
        let digest = cluster.api()?.version(service, 1).await?.image_digest;
        Ok((!digest.is_empty()).then_some(digest))
    })
    .await
}

/// Checks that version 1 of a service runs this image.
async fn runs(cluster: &Cluster, service: &str, image: &Pushed) -> Result<()> {
    let digest = digest(cluster, service).await?;
    ensure!(digest == image.digest, "another digest: {digest}");
    Ok(())
}

/// The status of version 1 of a service on each node.
async fn status(cluster: &Cluster, service: &str) -> Result<Vec<v1::NodeVersionStatus>> {
    let version = cluster.api()?.version(service, 1).await?;
    Ok(version.status.unwrap_or_default().nodes)
}
