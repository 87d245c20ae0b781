//! Cold start phases in the `Server-Timing` header, in metrics and in the CLI.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::http_client::{self, FullResponse};
use cless_tests::wait;

use crate::cli::cless;
use crate::{SOON, contains, sample};

/// The metrics of `Server-Timing` in milliseconds (W3C Server Timing, section 2).
fn timing(answer: &FullResponse) -> Result<BTreeMap<String, f64>> {
    let Some(field) = answer.header("server-timing") else {
        return Ok(BTreeMap::new());
    };
    let metric = |one: &str| {
        let (name, millis) = one.trim().split_once(";dur=")?;
        Some((name.to_owned(), millis.parse().ok()?))
    };
    let metrics = field.split(',').map(metric).collect::<Option<_>>();
    metrics.with_context(|| format!("no list of metrics: {field}"))
}

async fn metrics(cluster: &Cluster) -> Result<String> {
    let answer = http_client::get(cluster.node(0).admin, "admin", "/metrics").await?;
    Ok(answer.text())
}

/// The value of the sample with this name and these labels.
fn sample_value(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let line = metrics.lines().find(|line| {
        let has = |(key, value): &(&str, &str)| line.contains(&format!("{key}=\"{value}\""));
        line.starts_with(&format!("{name}{{")) && labels.iter().all(has)
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_start_phases_are_in_header_metrics_and_cli() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let timed = v1::ServiceSettings {
        server_timing: Some(true),
        pause_after: duration(Duration::from_secs(1)),
        ..settings()
    };
    cluster.serve("hello", sample().await?, timed).await?;
    cluster.serve("quiet", sample().await?, settings()).await?;

    let cold = timing(&cluster.get("hello", "/").await?)?;
    let names: Vec<&str> = cold.keys().map(String::as_str).collect();
    let expected = [
        "cless-create",
        "cless-queue",
        "cless-ready",
        "cless-start",
        "cless-wait",
    ];
    ensure!(names == expected, "{cold:?}");
    let phases: f64 = cold
        .iter()
        .filter(|(name, _)| *name != "cless-wait")
        .map(|(_, ms)| ms)
        .sum();
    ensure!(
        phases > 0.0 && phases <= cold["cless-wait"] + 1.0,
        "{cold:?}"
    );
    let warm = timing(&cluster.get("hello", "/").await?)?;
    ensure!(warm.is_empty(), "a warm request reports a wait: {warm:?}");
    let silent = timing(&cluster.get("quiet", "/").await?)?;
    ensure!(silent.is_empty(), "not enabled: {silent:?}");

    wait::until("the instance is paused", SOON, async || {
        let found = cluster.containers(Some("hello")).await?;
        Ok((found.len() == 1 && found[0].state == "paused").then_some(()))
    })
    .await?;
    let listed = wait::until("the instance is listed as paused", SOON, async || {
        let listed = cless(&cluster, &["instance", "list"]).await?.ok()?;
        Ok(listed.contains("PAUSED").then_some(listed))
    })
    .await?;
    let heading = listed.lines().next().unwrap_or_default();
    for column in ["STATE", "AGE", "IN FLIGHT", "COLD START"] {
        ensure!(heading.contains(column), "{listed}");
    }
    let version = cless(&cluster, &["version", "get", "hello", "1"])
        .await?
        .ok()?;
    contains(&version, "last cold start:")?;
    contains(&version, ", ready ")?;

    let resumed = timing(&cluster.get("hello", "/").await?)?;
    let names: Vec<&str> = resumed.keys().map(String::as_str).collect();
    ensure!(names == ["cless-unpause", "cless-wait"], "{resumed:?}");

    let scraped = metrics(&cluster).await?;
    let hello = ("service", "hello");
    for phase in ["queue", "create", "start", "ready", "total"] {
        let labels = [
            hello,
            ("version", "1"),
            ("phase", phase),
            ("outcome", "ready"),
        ];
        let count = sample_value(&scraped, "cless_cold_start_phase_seconds_count", &labels);
        ensure!(count == Some(1.0), "{phase}: {scraped}");
    }
    for call in ["pause", "unpause"] {
        let count = sample_value(
            &scraped,
            "cless_sleep_seconds_count",
            &[hello, ("call", call)],
        );
        ensure!(count == Some(1.0), "{call}: {scraped}");
    }
    let waits = sample_value(&scraped, "cless_queue_wait_seconds_count", &[hello]);
    ensure!(waits == Some(2.0), "{scraped}");
    let ready = sample_value(&scraped, "cless_instances", &[hello, ("state", "ready")]);
    ensure!(ready == Some(1.0), "{scraped}");
    ensure!(scraped.contains("cless_engine_up 1"), "{scraped}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_starts_have_phases_and_the_queue_depth_is_exported() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let env = [("EXIT_AT_START", "3")];
    cluster
        .serve_env("broken", sample().await?, settings(), &env)
        .await?;
    let refused = cluster.get("broken", "/").await?;
    ensure!(refused.status == 503, "{refused:?}");
    let scraped = metrics(&cluster).await?;
    for phase in ["create", "start", "ready", "total"] {
        let labels = [
            ("service", "broken"),
            ("phase", phase),
            ("outcome", "exited"),
        ];
        let count = sample_value(&scraped, "cless_cold_start_phase_seconds_count", &labels);
        ensure!(count == Some(1.0), "{phase}: {scraped}");
    }
    let rejects = sample_value(
        &scraped,
        "cless_rejects_total",
        &[("reason", "start_failed")],
    );
    ensure!(rejects == Some(1.0), "{scraped}");

    let env = [("START_DELAY_MS", "3000"), ("GREETING", "slow")];
    cluster
        .serve_env("slow", sample().await?, settings(), &env)
        .await?;
    let address = cluster.node(0).listen;
    let slow = tokio::spawn(http_client::get(address, "slow.localhost", "/"));
    let depth = async |expected: f64| {
        wait::until("the queue depth", SOON, async || {
            let scraped = metrics(&cluster).await?;
            let depth = sample_value(&scraped, "cless_queue_depth", &[("service", "slow")]);
            Ok((depth == Some(expected)).then_some(()))
        })
        .await
    };
    depth(1.0).await?;
    ensure!(slow.await??.status == 200, "no answer");
    depth(0.0).await?;
    cluster.finish().await
}
