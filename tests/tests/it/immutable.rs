//! A version runs the same program for good: local images are pinned by id, tags are resolved in
//! their registry.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_data_plane::image::resolve::resolve;
use cless_data_plane::report::{FailureReason, ImageSource, Resolution, StartFailure};
use cless_data_plane::runtime::docker;
use cless_proto::v1;
use cless_proto::v1::start_failure::Reason;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::registry::{self, Registry};
use cless_tests::{image, wait};

use crate::{SOON, reported_failure, serve_spec};

/// Builds `REPOSITORY:1` with a greeting, as `docker build` would again and again. Returns its id.
async fn build(docker: &Docker, repository: &str, greeting: &str) -> Result<String> {
    let reference = image::sample_app_unique(docker, repository, "1", greeting, 0).await?;
    let found = docker.inspect_image(&reference).await?;
    found.id.context("an image without id")
}

async fn serve(cluster: &Cluster, service: &str, image: &str) -> Result<()> {
    let brief = v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(1)),
        ..settings()
    };
    let spec = v1::VersionSpec {
        image: image.to_owned(),
        ..Default::default()
    };
    serve_spec(cluster, service, brief, spec).await
}

async fn greets(cluster: &Cluster, service: &str, greeting: &str) -> Result<()> {
    let answer = cluster.get(service, "/").await?;
    let text = answer.text();
    ensure!(
        answer.status == 200 && text == format!("{greeting}\n"),
        "{answer:?}"
    );
    Ok(())
}

async fn ask(reference: &str) -> Resolution {
    resolve(&docker::Docker::new(None), reference, false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_tag_that_is_built_again_changes_no_version() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let docker = cluster.docker().clone();
    let repository = format!("cless-test/rebuilt-{}", std::process::id());
    let reference = format!("{repository}:1");
    let first = build(&docker, &repository, "first").await?;
    serve(&cluster, "hello", &reference).await?;
    greets(&cluster, "hello", "first").await?;

    let second = build(&docker, &repository, "second").await?;
    cluster.wait_containers("hello", 0, SOON).await?;
    greets(&cluster, "hello", "first").await?;
    // The pin outlives the node's process.
    cluster.wait_containers("hello", 0, SOON).await?;
    cluster.stop_node(0).await?;
    cluster.start_node(0).await?;
    cluster.wait_propagated(0).await?;
    greets(&cluster, "hello", "first").await?;
    serve(&cluster, "other", &reference).await?;
    greets(&cluster, "other", "second").await?;

    cluster.wait_containers("hello", 0, SOON).await?;
    cluster.wait_containers("other", 0, SOON).await?;
    image::remove(&docker, &first).await?;
    let refused = cluster.get("hello", "/").await?;
    ensure!(refused.status == 503, "{refused:?}");
    let failure = reported_failure(&cluster, "hello").await?;
    ensure!(failure.reason() == Reason::Image, "{failure:?}");
    for words in [&*reference, &first, &second, "load that image again"] {
        ensure!(failure.message.contains(words), "no {words}: {failure:?}");
    }
    ensure!(
        cluster.containers(Some("hello")).await?.is_empty(),
        "something else runs"
    );
    cluster.finish().await?;
    Ok(image::remove(&docker, &second).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_what_its_registry_says_now() -> Result<()> {
    let docker = cless_tests::engine::connect().await?;
    let registry = Registry::start().await?;
    let at = registry.address();
    let first = registry.push(&docker, at, ("app", "1"), "first", 0).await?;
    let reference = first.reference.clone();
    let resolved = ask(&reference).await.map_err(failed)?;
    ensure!(
        resolved.digest.as_ref() == Some(&first.digest),
        "{resolved:?}"
    );
    ensure!(resolved.id.is_none(), "not pulled: {resolved:?}");

    registry::pull_by_hand(&docker, &reference).await?;
    let resolved = ask(&reference).await.map_err(failed)?;
    ensure!(resolved.id.is_some(), "pulled: {resolved:?}");
    // The push removes the local copy.
    let second = registry
        .push(&docker, at, ("app", "1"), "second", 0)
        .await?;
    ensure!(first.digest != second.digest, "the tag did not move");
    let resolved = ask(&reference).await.map_err(failed)?;
    ensure!(resolved.source == ImageSource::Registry, "{resolved:?}");
    ensure!(
        resolved.digest == Some(second.digest.clone()),
        "{resolved:?}"
    );

    let unknown = ask(&format!("{at}/app:nonesuch")).await;
    let failure = unknown.err().context("there is no such image")?;
    ensure!(failure.reason == FailureReason::Image, "{failure:?}");
    let built = build(&docker, &format!("{at}/built"), "built").await?;
    let resolved = ask(&format!("{at}/built:1")).await.map_err(failed)?;
    ensure!(resolved.source == ImageSource::LocalImage, "{resolved:?}");
    ensure!(resolved.id == Some(built), "{resolved:?}");

    registry::pull_by_hand(&docker, &reference).await?;
    drop(registry);
    wait::until("the registry is gone", SOON, async || {
        let gone = tokio::net::TcpStream::connect(at).await.is_err();
        Ok(gone.then_some(()))
    })
    .await?;
    let resolved = ask(&reference).await.map_err(failed)?;
    ensure!(resolved.source == ImageSource::LocalCopy, "{resolved:?}");
    ensure!(resolved.digest == Some(second.digest), "{resolved:?}");
    let warning = resolved.warning.unwrap_or_default();
    for words in ["did not respond", "connection refused", "built", "ago"] {
        ensure!(warning.contains(words), "no {words}: {warning}");
    }
    let failure = ask(&format!("{at}/app:2")).await.err().context("no copy")?;
    ensure!(failure.reason == FailureReason::Engine, "{failure:?}");
    registry::remove_local(&docker, at).await
}

/// A registry that does not respond is no fault of the version.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_registry_punishes_no_version() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    serve(&cluster, "hello", "127.0.0.1:9/app:1").await?;
    let refused = cluster.get("hello", "/").await?;
    ensure!(refused.status == 503, "{refused:?}");
    let failure = reported_failure(&cluster, "hello").await?;
    ensure!(failure.message.contains("did not respond"), "{failure:?}");
    let version = cluster.api()?.version("hello", 1).await?;
    let nodes = version.status.unwrap_or_default().nodes;
    ensure!(nodes.iter().all(|node| node.failures == 0), "{nodes:?}");
    cluster.finish().await
}

#[expect(clippy::boxed_local, reason = "the error of a resolution")]
fn failed(failure: Box<StartFailure>) -> anyhow::Error {
    anyhow::anyhow!("not resolved: {}", failure.message)
}
