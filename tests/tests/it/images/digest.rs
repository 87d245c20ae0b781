//! The image digest of a version, and the pull policies.

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_proto::v1::version_spec::PullPolicy;
use cless_tests::cluster::Cluster;
use cless_tests::registry::{self, Pushed, Registry};

use super::{digest, greets, runs, serve_briefly};
use crate::cli::cless;
use crate::{SOON, contains};

/// An image that a user pulled before cless.
async fn pulled_by_user(registry: &Registry, docker: &Docker) -> Result<Pushed> {
    let at = registry.address();
    let image = registry.push(docker, at, ("app", "1"), "first", 0).await?;
    registry::pull_by_hand(docker, &image.reference).await?;
    Ok(image)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_digest_is_used_on_all_nodes_after_the_tag_moves() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let first = registry.push(&docker, at, ("app", "1"), "first", 0).await?;
    serve_briefly(&cluster, "hello", &first, PullPolicy::Missing).await?;
    greets(&cluster, 0, "hello", "first").await?;
    runs(&cluster, "hello", &first).await?;
    let shown = cless(&cluster, &["version", "get", "hello"]).await?.ok()?;
    ensure!(shown.contains(&first.digest), "{shown}");

    let second = registry
        .push(&docker, at, ("app", "1"), "second", 0)
        .await?;
    ensure!(second.digest != first.digest, "the tag did not move");
    cluster.wait_containers("hello", 0, SOON).await?;
    registry::remove_local(&docker, at).await?;
    cluster.wait_propagated(0).await?;
    let before = registry.requests()?.len();
    greets(&cluster, 1, "hello", "first").await?;
    let asked = registry.manifests("app", before)?;
    // Engines cache manifests by digest, so there may be no request, but never one by tag.
    ensure!(asked.iter().all(|by| *by == first.digest), "{asked:?}");
    let since = registry.requests()?.into_iter().skip(before);
    let blobs = since.filter(|one| one.path.contains("/blobs/")).count();
    ensure!(blobs > 0, "the second node pulled nothing");
    ensure!(
        digest(&cluster, "hello").await? == first.digest,
        "the second node changed the digest"
    );

    // A version created after the tag moved runs the new image.
    serve_briefly(&cluster, "other", &first, PullPolicy::Always).await?;
    greets(&cluster, 1, "other", "second").await?;
    runs(&cluster, "other", &second).await?;
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}

/// The image is present already, so no pull reports its digest to the other nodes.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_pulled_by_the_user_fixes_the_digest_too() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let first = pulled_by_user(&registry, &docker).await?;
    serve_briefly(&cluster, "hello", &first, PullPolicy::Missing).await?;
    let before = registry.requests()?.len();
    greets(&cluster, 0, "hello", "first").await?;
    runs(&cluster, "hello", &first).await?;
    ensure!(registry.requests()?.len() == before, "it was pulled again");
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}

#[tokio::test(flavor = "multi_thread")]
async fn always_contacts_the_registry_before_the_first_start_on_a_node() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let first = pulled_by_user(&registry, &docker).await?;
    let before = registry.requests()?.len();
    serve_briefly(&cluster, "hello", &first, PullPolicy::Always).await?;
    let asked = registry.manifests("app", before)?;
    ensure!(asked.iter().any(|by| by == "1"), "{asked:?}");
    let before = registry.requests()?.len();
    greets(&cluster, 0, "hello", "first").await?;
    ensure!(
        registry.requests()?.len() > before,
        "the registry was not contacted"
    );
    runs(&cluster, "hello", &first).await?;
    // The node must receive the digest before it restarts.
    cluster.wait_propagated(0).await?;

    cluster.wait_containers("hello", 0, SOON).await?;
    let before = registry.requests()?.len();
    greets(&cluster, 0, "hello", "first").await?;
    ensure!(
        registry.requests()?.len() == before,
        "contacted before the second start"
    );

    // A new process counts starts from zero, and now knows the digest.
    registry
        .push(&docker, at, ("app", "1"), "second", 0)
        .await?;
    cluster.stop_node(0).await?;
    cluster.start_node(0).await?;
    cluster.wait_propagated(0).await?;
    let before = registry.requests()?.len();
    greets(&cluster, 0, "hello", "first").await?;
    let asked = registry.manifests("app", before)?;
    ensure!(
        registry.requests()?.len() > before,
        "the registry was not contacted"
    );
    // By tag the manifest would be requested again, by digest it may be cached.
    ensure!(asked.iter().all(|by| *by == first.digest), "{asked:?}");
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}

#[tokio::test(flavor = "multi_thread")]
async fn never_uses_local_images_and_contacts_no_registry() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let first = registry.push(&docker, at, ("app", "1"), "first", 0).await?;
    let before = registry.requests()?.len();
    let refused = serve_briefly(&cluster, "hello", &first, PullPolicy::Never).await;
    let error = refused.err().context("the image is on no node")?;
    contains(&error.to_string(), "the pull policy is `never`")?;
    ensure!(
        registry.requests()?.len() == before,
        "the registry was contacted"
    );

    registry::pull_by_hand(&docker, &first.reference).await?;
    let before = registry.requests()?.len();
    serve_briefly(&cluster, "later", &first, PullPolicy::Never).await?;
    greets(&cluster, 0, "later", "first").await?;
    ensure!(
        registry.requests()?.len() == before,
        "the registry was contacted"
    );
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}
