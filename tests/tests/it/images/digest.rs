//! Which image a version runs: the digest that counts, and the pull policies.

use anyhow::{Result, ensure};
use bollard::Docker;
use cless_proto::v1::start_failure::Reason;
use cless_proto::v1::version_spec::PullPolicy;
use cless_tests::cluster::Cluster;
use cless_tests::registry::{self, Pushed, Registry};
use cless_tests::wait;

use super::{digest, greets, runs, serve_briefly, status};
use crate::SOON;
use crate::cli::cless;

/// An image that a person got before cless did.
async fn pulled_before(registry: &Registry, docker: &Docker) -> Result<Pushed> {
    let at = registry.address();
    let image = registry.push(docker, at, ("app", "1"), "first", 0).await?;
    registry::pull_by_hand(docker, &image.reference).await?;
    Ok(image)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_digest_counts_on_all_nodes_though_the_tag_moves() -> Result<()> {
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
    // Engines keep manifests by digest, so it may have asked for none; but never for the tag's.
    ensure!(asked.iter().all(|by| *by == first.digest), "{asked:?}");
    let since = registry.requests()?.into_iter().skip(before);
    let blobs = since.filter(|one| one.path.contains("/blobs/")).count();
    ensure!(blobs > 0, "the second node pulled nothing");
    ensure!(
        digest(&cluster, "hello").await? == first.digest,
        "the second node changed it"
    );

    // A version of its own, made after the tag moved, runs what the tag is now.
    serve_briefly(&cluster, "other", &first, PullPolicy::Always).await?;
    greets(&cluster, 1, "other", "second").await?;
    runs(&cluster, "other", &second).await?;
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}

/// It was there already, so no node would have told the others which one it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_pulled_before_fixes_the_digest_too() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let first = pulled_before(&registry, &docker).await?;
    serve_briefly(&cluster, "hello", &first, PullPolicy::Missing).await?;
    let before = registry.requests()?.len();
    greets(&cluster, 0, "hello", "first").await?;
    runs(&cluster, "hello", &first).await?;
    ensure!(registry.requests()?.len() == before, "it was pulled again");
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}

#[tokio::test(flavor = "multi_thread")]
async fn always_asks_the_registry_before_the_first_start_on_a_node() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let first = pulled_before(&registry, &docker).await?;
    serve_briefly(&cluster, "hello", &first, PullPolicy::Always).await?;
    let before = registry.requests()?.len();
    greets(&cluster, 0, "hello", "first").await?;
    let asked = registry.manifests("app", before)?;
    ensure!(asked.iter().any(|by| by == "1"), "{asked:?}");
    runs(&cluster, "hello", &first).await?;
    // The digest must be back on the node before it restarts.
    cluster.wait_propagated(0).await?;

    cluster.wait_containers("hello", 0, SOON).await?;
    let before = registry.requests()?.len();
    greets(&cluster, 0, "hello", "first").await?;
    ensure!(
        registry.requests()?.len() == before,
        "asked before the second start"
    );

    // Its first start on the node is then that of a new process; the digest is known by now.
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
        "the registry was not asked"
    );
    // By the digest it need not ask for the manifest again; by the tag it must.
    ensure!(asked.iter().all(|by| *by == first.digest), "{asked:?}");
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}

#[tokio::test(flavor = "multi_thread")]
async fn never_takes_what_is_there_and_asks_no_registry() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::start().await?;
    let at = registry.address();
    let first = registry.push(&docker, at, ("app", "1"), "first", 0).await?;
    let before = registry.requests()?.len();
    serve_briefly(&cluster, "hello", &first, PullPolicy::Never).await?;
    let refused = cluster.get("hello", "/").await?;
    ensure!(refused.status == 503, "{refused:?}");
    let failure = wait::until("the failure is told", SOON, async || {
        let nodes = status(&cluster, "hello").await?;
        Ok(nodes.into_iter().find_map(|node| node.last_failure))
    })
    .await?;
    ensure!(failure.reason() == Reason::Image, "{failure:?}");
    ensure!(
        failure.message.contains("the pull policy is `never`"),
        "{failure:?}"
    );
    ensure!(
        registry.requests()?.len() == before,
        "the registry was asked"
    );

    registry::pull_by_hand(&docker, &first.reference).await?;
    let before = registry.requests()?.len();
    wait::until("the back-off is over", SOON, async || {
        Ok((cluster.get("hello", "/").await?.status == 200).then_some(()))
    })
    .await?;
    ensure!(
        registry.requests()?.len() == before,
        "the registry was asked"
    );
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}
