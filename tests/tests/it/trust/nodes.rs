//! Nodes that join, expire, are drained and removed. Clocks are moved by Debian's libfaketime, for
//! one process at a time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::{debian, http_client, wait};

use super::{REVOCATION, wait_connected};
use crate::cli::cless;
use crate::{SOON, check_serves, contains, sample, wait_serves};

/// Variables with which a process sees a clock moved by `offset`, such as `+2d`.
async fn clock(offset: &str) -> Result<Vec<(String, String)>> {
    let library = debian::faketime().await?;
    let variables = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME", offset),
        // Timers run as ever.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(owned.to_vec())
}

/// The log of a node.
fn log(cluster: &Cluster, index: usize) -> Result<String> {
    let file = format!("{}.log", cluster.node(index).name);
    Ok(std::fs::read_to_string(cluster.dir().join(file))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn law_7_a_node_with_an_expired_certificate_and_no_plane_wakes_containers() -> Result<()> {
    let mut cluster = Cluster::start_trusted(1).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    check_serves(&cluster, "hello").await?;
    cluster.stop_node(0).await?;
    cluster.kill_control_plane().await?;

    // Three days later the certificate has long expired.
    cluster.node_mut(0).setup.env = clock("+3d").await?;
    cluster.start_node(0).await?;
    wait_serves(&cluster, "hello", SOON).await?;
    cluster.stop_node(0).await?;

    // The plane returns, and the node renews with the certificate that has expired.
    cluster
        .start_control_plane_with(&clock("+3d").await?)
        .await?;
    cluster.start_node(0).await?;
    let node = wait_connected(&cluster, "node-0").await?;
    let expires = node.certificate_expire_time.context("a certificate")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let days = (expires.seconds as f64 - now.as_secs_f64()) / 86_400.0;
    ensure!((3.5..4.5).contains(&days), "expires in {days} days");
    check_serves(&cluster, "hello").await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_off_by_two_hours_is_named_with_both_times() -> Result<()> {
    let mut cluster = Cluster::start_trusted(0).await?;
    let setup = cless_tests::cluster::NodeSetup {
        env: clock("-2h").await?,
        ..Default::default()
    };
    cluster.add_node_with(setup).await?;
    wait::until("the node says so", SOON, async || {
        Ok(log(&cluster, 0)?.contains("clock").then_some(()))
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_cut_off_within_two_seconds_and_cannot_return() -> Result<()> {
    let mut cluster = Cluster::start_trusted(2).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    let removed = cless(&cluster, &["node", "remove", "node-1", "--yes"]).await?;
    ensure!(removed.code == Some(0), "{removed:?}");
    wait::until("its streams end", REVOCATION, async || {
        Ok(log(&cluster, 1)?
            .contains("the route feed is interrupted")
            .then_some(()))
    })
    .await?;
    cluster.stop_node(1).await?;
    cluster.start_node(1).await?;
    wait::until("the refusal is logged", SOON, async || {
        Ok(log(&cluster, 1)?.contains("removed").then_some(()))
    })
    .await?;
    // It goes on to serve what it has.
    let response = cluster.node(1).get("hello.localhost", "/").await?;
    ensure!(response.status == 200, "{response:?}");
    let listed = cless(&cluster, &["node", "list"]).await?.ok()?;
    contains(&listed, "node-0")?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_not_ready_also_after_its_restart() -> Result<()> {
    let mut cluster = Cluster::start_trusted(2).await?;
    let two = v1::ServiceSettings {
        min_instances: Some(1),
        idle_timeout: duration(Duration::from_secs(1)),
        ..settings()
    };
    cluster.serve("hello", sample().await?, two).await?;
    cluster.wait_containers("hello", 2, SOON).await?;
    let drained = cless(&cluster, &["node", "drain", "node-1"]).await?;
    ensure!(drained.code == Some(0), "{drained:?}");
    // `min_instances` counts no more there.
    cluster.wait_containers("hello", 1, SOON).await?;
    for restart in [false, true] {
        if restart {
            cluster.stop_node(1).await?;
            cluster.start_node(1).await?;
            wait_connected(&cluster, "node-1").await?;
        }
        let ready = http_client::get(cluster.node(1).admin, "admin", "/readyz").await?;
        ensure!(ready.status == 503, "{ready:?}");
        contains(&ready.text(), "drain")?;
        let serves = cluster.node(1).get("hello.localhost", "/").await?;
        ensure!(serves.status == 200, "{serves:?}");
    }
    let undrained = cless(&cluster, &["node", "undrain", "node-1"]).await?;
    ensure!(undrained.code == Some(0), "{undrained:?}");
    wait::until("it is ready again", SOON, async || {
        let ready = http_client::get(cluster.node(1).admin, "admin", "/readyz").await?;
        Ok((ready.status == 200).then_some(()))
    })
    .await?;
    cluster.finish().await
}
