//! Slow and broken pulls.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_proto::v1::start_failure::Reason;
use cless_proto::v1::version_spec::PullPolicy;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::registry::{self, Pushed, Registry};
use cless_tests::wait;
use cless_tests::wire::{Mode, Wire};

use super::{greets, spec, status};
use crate::cli::cless;
use crate::{SOON, contains, lacks, serve_spec};

const MB: usize = 1 << 20;

/// A cluster, and an image in a registry behind a network that the test controls.
struct RemoteImage {
    cluster: Cluster,
    registry: Registry,
    wire: Wire,
    image: Pushed,
}

impl RemoteImage {
    /// Pushes an image with this many incompressible bytes, which greets with `pulled`.
    async fn start(bytes: usize) -> Result<Self> {
        let cluster = Cluster::start(1).await?;
        let registry = Registry::start().await?;
        let wire = Wire::start(registry.address()).await?;
        let image = registry
            .push(
                cluster.docker(),
                wire.address(),
                ("app", "1"),
                "pulled",
                bytes,
            )
            .await?;
        Ok(Self {
            cluster,
            registry,
            wire,
            image,
        })
    }

    async fn finish(self) -> Result<()> {
        let docker = self.cluster.docker().clone();
        self.cluster.finish().await?;
        registry::remove_local(&docker, self.wire.address()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_shows_the_progress_of_the_pull() -> Result<()> {
    let remote = RemoteImage::start(8 * MB).await?;
    let (cluster, wire, image) = (&remote.cluster, &remote.wire, &remote.image.reference);
    wire.set(Mode::Slow(MB as u64));
    let deployed = cless(cluster, &["deploy", "hello", "--image", image]).await?;
    ensure!(deployed.code == Some(0), "{deployed:?}");
    let progress = deployed
        .stderr
        .lines()
        .filter(|line| line.contains(": pulling "));
    let progress: Vec<_> = progress.collect();
    let is_detailed = |line: &&str| {
        line.contains(" %, ") && line.contains(" MB of ") && line.contains("of 1 layers")
    };
    ensure!(
        progress.len() >= 2 && progress.iter().any(is_detailed),
        "{}",
        deployed.stderr
    );
    ensure!(!deployed.stdout.contains("pulling"), "{}", deployed.stdout);
    greets(cluster, 0, "hello", "pulled").await?;
    remote.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pull_serves_two_services_and_continues_without_requests() -> Result<()> {
    let remote = RemoteImage::start(6 * MB).await?;
    let (cluster, wire, image) = (&remote.cluster, &remote.wire, &remote.image.reference);
    wire.set(Mode::Slow(MB as u64));
    let short_timeout = v1::ServiceSettings {
        cold_start_timeout: duration(Duration::from_secs(1)),
        ..settings()
    };
    for service in ["one", "two"] {
        serve_spec(
            cluster,
            service,
            short_timeout.clone(),
            spec(image, PullPolicy::Missing),
        )
        .await?;
    }
    // The creation of each version has asked what the tag names.
    let before = remote.registry.requests()?.len();
    let (one, two) = tokio::join!(cluster.get("one", "/"), cluster.get("two", "/"));
    ensure!(
        one?.status == 504 && two?.status == 504,
        "the image arrived before the timeout"
    );
    for service in ["one", "two"] {
        // The pull continues although no request waits.
        wait::until("an instance is ready", SOON, async || {
            let found = cluster.api()?.instances(service).await?;
            let ready = |one: &v1::Instance| one.state() == v1::instance::State::Ready;
            Ok(found.iter().any(ready).then_some(()))
        })
        .await?;
        greets(cluster, 0, service, "pulled").await?;
    }
    let blobs = remote.registry.requests()?.into_iter().skip(before);
    let blobs: Vec<_> = blobs
        .filter(|one| one.method == "GET" && one.path.contains("/blobs/"))
        .collect();
    // The configuration and the layer.
    ensure!(blobs.len() == 2, "{blobs:?}");
    let manifests = remote.registry.manifests("app", before)?;
    ensure!(
        manifests.iter().all(|by| by != "1"),
        "the tag is asked again: {manifests:?}"
    );
    remote.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_failure_during_a_pull_is_reported_and_recovers() -> Result<()> {
    let remote = RemoteImage::start(8 * MB).await?;
    let (cluster, wire, image) = (&remote.cluster, &remote.wire, &remote.image.reference);
    wire.set(Mode::CutAfter(2 * MB as u64));
    serve_spec(
        cluster,
        "hello",
        settings(),
        spec(image, PullPolicy::Missing),
    )
    .await?;
    let address = cluster.node(0).listen;
    let request = tokio::spawn(cless_tests::http_client::get(
        address,
        "hello.localhost",
        "/",
    ));
    wait::until(
        "the registry fails in the middle of the layer",
        SOON,
        async || Ok(wire.has_cut().then_some(())),
    )
    .await?;
    // The engine retries for about a minute.
    wait::until("the retry is reported", SOON, async || {
        let nodes = status(cluster, "hello").await?;
        Ok(nodes
            .iter()
            .any(|node| node.pull_progress.contains("was interrupted"))
            .then_some(()))
    })
    .await?;
    let answer = request.await??;
    ensure!(answer.status == 503 || answer.status == 504, "{answer:?}");
    lacks(&answer.text(), "127.0.0.1")?;
    let limit = Duration::from_secs(120);
    let failure = wait::until("the failure is reported", limit, async || {
        let nodes = status(cluster, "hello").await?;
        Ok(nodes.into_iter().find_map(|node| node.last_failure))
    })
    .await?;
    ensure!(failure.reason() == Reason::Image, "{failure:?}");
    let repository = image.trim_end_matches(":1");
    ensure!(failure.message.contains(repository), "{failure:?}");
    contains(&failure.message, "check that this node reaches it")?;

    wire.set(Mode::Pass);
    wait::until("the next start pulls the image", SOON, async || {
        let answer = cluster.get("hello", "/").await?;
        Ok((answer.status == 200 && answer.text() == "pulled\n").then_some(()))
    })
    .await?;
    wait::until("the failure is cleared", SOON, async || {
        let nodes = status(cluster, "hello").await?;
        Ok(nodes
            .iter()
            .all(|node| node.last_failure.is_none())
            .then_some(()))
    })
    .await?;
    remote.finish().await
}
