//! Pulls that take a while, and pulls that break.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_proto::v1::start_failure::Reason;
use cless_proto::v1::version_spec::PullPolicy;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::registry::{self, Pushed, Registry};
use cless_tests::wait;
use cless_tests::wire::{Mode, Wire};

use super::{greets, serve, spec, status};
use crate::SOON;
use crate::cli::cless;

const MB: usize = 1 << 20;

/// A cluster, and an image that it does not have, in a registry behind a network of the test's choice.
struct Away {
    cluster: Cluster,
    registry: Registry,
    wire: Wire,
    image: Pushed,
}

impl Away {
    /// The image has so many bytes that cannot be compressed, and greets with `pulled`.
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
async fn a_deploy_shows_how_far_the_pull_is() -> Result<()> {
    let away = Away::start(8 * MB).await?;
    let (cluster, wire, image) = (&away.cluster, &away.wire, &away.image.reference);
    wire.set(Mode::Slow(MB as u64));
    let deployed = cless(cluster, &["deploy", "hello", "--image", image]).await?;
    ensure!(deployed.code == Some(0), "{deployed:?}");
    let told = deployed
        .stderr
        .lines()
        .filter(|line| line.contains(": pulling "));
    let told: Vec<_> = told.collect();
    let parts = |line: &&str| {
        line.contains(" %, ") && line.contains(" MB of ") && line.contains("of 1 layers")
    };
    ensure!(
        told.len() >= 2 && told.iter().any(parts),
        "{}",
        deployed.stderr
    );
    ensure!(!deployed.stdout.contains("pulling"), "{}", deployed.stdout);
    greets(cluster, 0, "hello", "pulled").await?;
    away.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pull_serves_two_services_and_goes_on_without_its_callers() -> Result<()> {
    let away = Away::start(6 * MB).await?;
    let (cluster, wire, image) = (&away.cluster, &away.wire, &away.image.reference);
    wire.set(Mode::Slow(MB as u64));
    let hasty = v1::ServiceSettings {
        cold_start_timeout: duration(Duration::from_secs(1)),
        ..settings()
    };
    let before = away.registry.requests()?.len();
    for service in ["one", "two"] {
        serve(
            cluster,
            service,
            hasty.clone(),
            spec(image, PullPolicy::Missing),
        )
        .await?;
    }
    let (one, two) = tokio::join!(cluster.get("one", "/"), cluster.get("two", "/"));
    ensure!(
        one?.status == 504 && two?.status == 504,
        "both gave up before the image was there"
    );
    for service in ["one", "two"] {
        // No request waits any more; what they began goes on.
        wait::until("an instance is ready", SOON, async || {
            let found = cluster.api()?.instances(service).await?;
            let ready = |one: &v1::Instance| one.state() == v1::instance::State::Ready;
            Ok(found.iter().any(ready).then_some(()))
        })
        .await?;
        greets(cluster, 0, service, "pulled").await?;
    }
    let blobs = away.registry.requests()?.into_iter().skip(before);
    let blobs: Vec<_> = blobs
        .filter(|one| one.method == "GET" && one.path.contains("/blobs/"))
        .collect();
    // The configuration and the layer.
    ensure!(blobs.len() == 2, "{blobs:?}");
    let manifests = away.registry.manifests("app", before)?;
    ensure!(
        manifests.iter().filter(|by| *by == "1").count() <= 2,
        "a HEAD and a GET: {manifests:?}"
    );
    away.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_dies_in_a_pull_is_told_and_all_is_well_when_it_is_back() -> Result<()> {
    let away = Away::start(8 * MB).await?;
    let (cluster, wire, image) = (&away.cluster, &away.wire, &away.image.reference);
    wire.set(Mode::CutAfter(2 * MB as u64));
    serve(
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
        "the registry died in the middle of the layer",
        SOON,
        async || Ok(wire.has_cut().then_some(())),
    )
    .await?;
    // The engine asks again by itself, for about a minute.
    wait::until("that it does is told", SOON, async || {
        let nodes = status(cluster, "hello").await?;
        Ok(nodes
            .iter()
            .any(|node| node.pull_progress.contains("broke off"))
            .then_some(()))
    })
    .await?;
    let answer = request.await??;
    ensure!(answer.status == 503 || answer.status == 504, "{answer:?}");
    ensure!(
        !answer.text().contains("127.0.0.1"),
        "engine text leaks: {}",
        answer.text()
    );
    let patience = Duration::from_secs(120);
    let failure = wait::until("the failure is told", patience, async || {
        let nodes = status(cluster, "hello").await?;
        Ok(nodes.into_iter().find_map(|node| node.last_failure))
    })
    .await?;
    ensure!(failure.reason() == Reason::Image, "{failure:?}");
    ensure!(failure.message.contains(image), "{failure:?}");
    ensure!(
        failure.message.contains("this node reaches the registry"),
        "{failure:?}"
    );

    wire.set(Mode::Pass);
    wait::until("the next start pulls it", SOON, async || {
        let answer = cluster.get("hello", "/").await?;
        Ok((answer.status == 200 && answer.text() == "pulled\n").then_some(()))
    })
    .await?;
    wait::until("the failure is forgotten", SOON, async || {
        let nodes = status(cluster, "hello").await?;
        Ok(nodes
            .iter()
            .all(|node| node.last_failure.is_none())
            .then_some(()))
    })
    .await?;
    away.finish().await
}
