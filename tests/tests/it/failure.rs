//! Failures of starts: reported in full to operators, and only as a status to clients.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::TagImageOptionsBuilder;
use cless_proto::v1::NodeVersionStatus;
use cless_proto::v1::start_failure::Reason;
use cless_tests::cluster::{Cluster, settings};
use cless_tests::http_client::FullResponse;
use cless_tests::{image, wait};
use tokio::time::Instant;

use crate::cli::cless;
use crate::{SOON, contains, reported_failure, sample, sample_spec, serve_spec};

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_is_reported_with_code_last_probe_and_the_last_twenty_log_lines() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    // Late enough for a failed probe, even on a busy machine.
    let env = ["START_DELAY_MS=1500", "LOG_LINES=30", "EXIT_AT_START=7"];
    let image = sample().await?;
    let args = [
        "deploy", "broken", "--image", image, "-e", env[0], "-e", env[1], "-e", env[2],
    ];
    let failed = cless(&cluster, &args).await?;
    ensure!(failed.code == Some(7), "{failed:?}");
    for expected in [
        "exited with code 7",
        "  last probe: ",
        "  | sample-app: line 30",
    ] {
        contains(&failed.stderr, expected)?;
    }

    let failure = reported_failure(&cluster, "broken").await?;
    ensure!(failure.reason() == Reason::Exited, "{failure:?}");
    ensure!(failure.exit_code == Some(7), "{failure:?}");
    ensure!(
        failure.signal.is_empty() && !failure.oom_killed,
        "{failure:?}"
    );
    ensure!(failure.log_tail.len() == 20, "{failure:?}");
    ensure!(failure.log_tail[0] == "sample-app: line 13", "{failure:?}");

    let shown = cless(&cluster, &["version", "get", "broken"]).await?.ok()?;
    for expected in [
        "exited with code 7",
        "last probe: ",
        "| sample-app: line 13",
    ] {
        ensure!(shown.contains(expected), "no `{expected}`: {shown}");
    }
    for format in ["json", "yaml"] {
        let args = ["-o", format, "version", "get", "broken"];
        let shown = cless(&cluster, &args).await?.ok()?;
        ensure!(shown.contains("lastProbe"), "{shown}");
        ensure!(shown.contains("sample-app: line 30"), "{shown}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_reported_by_name() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let spec = sample_spec(&[("ABORT_AT_START", "1")]).await?;
    serve_spec(&cluster, "aborts", settings(), spec).await?;
    ensure!(
        cluster.get("aborts", "/").await?.status == 503,
        "it answers"
    );
    let failure = reported_failure(&cluster, "aborts").await?;
    ensure!(failure.signal == "SIGABRT", "{failure:?}");
    ensure!(failure.exit_code == Some(134), "{failure:?}");
    ensure!(failure.message.contains("SIGABRT"), "{failure:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_out_of_memory_kill_is_reported() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut spec = sample_spec(&[("ALLOC_AT_START", "200000000")]).await?;
    spec.memory_bytes = 16 << 20;
    serve_spec(&cluster, "greedy", settings(), spec).await?;
    ensure!(
        cluster.get("greedy", "/").await?.status == 503,
        "it answers"
    );
    let failure = reported_failure(&cluster, "greedy").await?;
    ensure!(failure.oom_killed, "{failure:?}");
    ensure!(failure.signal == "SIGKILL", "{failure:?}");
    ensure!(failure.message.contains("memory"), "{failure:?}");
    let shown = cless(&cluster, &["version", "get", "greedy"]).await?.ok()?;
    ensure!(shown.contains("--memory"), "{shown}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_errors_reach_operators_but_not_clients() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    // The group is looked up in the image, which has none of that name, and not on the host.
    let mut spec = sample_spec(&[]).await?;
    spec.user = "root:docker".to_owned();
    serve_spec(&cluster, "nobody", settings(), spec).await?;
    let answer = cluster.get("nobody", "/").await?;
    ensure!(answer.status == 503, "{answer:?}");
    for word in ["docker", "group", "engine"] {
        ensure!(!answer.text().contains(word), "leaks: {}", answer.text());
    }
    let failure = reported_failure(&cluster, "nobody").await?;
    ensure!(failure.reason() == Reason::Engine, "{failure:?}");
    contains(&failure.engine_error, "no matching entries")?;
    cluster.finish().await
}

/// Sends a request that must fail at once, and returns the seconds of its `Retry-After`.
async fn retry_after(cluster: &Cluster, service: &str) -> Result<(FullResponse, u64)> {
    let begin = Instant::now();
    let answer = cluster.get(service, "/").await?;
    ensure!(answer.status == 503, "{answer:?}");
    ensure!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    let seconds = answer.header("retry-after").context("no Retry-After")?;
    let seconds = seconds.parse()?;
    Ok((answer, seconds))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_backs_off_until_a_start_succeeds() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let docker = cluster.docker().clone();
    // The tag points to a broken image first and to a working one later.
    let repository = format!("cless-test/loop-{}", std::process::id());
    let entry = r#"ENTRYPOINT ["/nothing-here"]"#;
    let broken = image::sample_app_with(&docker, &repository, "broken", &[entry]).await?;
    let live = format!("{repository}:live");
    let tag = || {
        TagImageOptionsBuilder::default()
            .repo(&repository)
            .tag("live")
            .build()
    };
    docker.tag_image(&broken, Some(tag())).await?;
    cluster.serve("loop", &live, settings()).await?;

    let mut last = 0;
    for round in 1..=4 {
        let (_, wait) = retry_after(&cluster, "loop").await?;
        let asked = Instant::now();
        ensure!(wait > last, "round {round}: {wait} s after {last} s");
        // A request during the back-off fails at once with the remaining time.
        let (_, left) = retry_after(&cluster, "loop").await?;
        ensure!(
            left <= wait && asked.elapsed() < Duration::from_secs(1),
            "{left} s"
        );
        last = wait;
        if round == 4 {
            // The version keeps the broken image, whatever the tag names, until it is reset.
            docker.tag_image(sample().await?, Some(tag())).await?;
            cluster.api()?.reset_image("loop", 1).await?;
        }
        tokio::time::sleep_until(asked + Duration::from_secs(wait)).await;
    }
    let answer = cluster.get("loop", "/").await?;
    ensure!(answer.status == 200, "{answer:?}");
    wait::until("the failure count is reset", SOON, async || {
        let version = cluster.api()?.version("loop", 1).await?;
        let nodes = version.status.unwrap_or_default().nodes;
        let reset = |node: &NodeVersionStatus| node.failures == 0 && node.backoff_until.is_none();
        Ok(nodes.iter().all(reset).then_some(()))
    })
    .await?;
    cluster.finish().await?;
    for reference in [&live, &broken] {
        image::remove(&docker, reference).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_exits_soon_after_readiness_are_a_crash_loop() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster.serve("brief", sample().await?, settings()).await?;
    // The first early exit is replaced at once; the second starts the back-off.
    for _ in 0..2 {
        // An exiting process closes its connections before its listener, so a connection opened in
        // between is cut as well.
        wait::until("it answers", SOON, async || {
            let answer = cluster.get("brief", "/").await?;
            ensure!(matches!(answer.status.as_u16(), 200 | 502), "{answer:?}");
            Ok((answer.status == 200).then_some(()))
        })
        .await?;
        let cut = cluster.get("brief", "/exit?code=9").await?;
        ensure!(cut.status == 502, "{cut:?}");
    }
    let begin = Instant::now();
    let mut status = 0;
    while begin.elapsed() < Duration::from_millis(900) && status != 503 {
        status = cluster.get("brief", "/").await?.status.as_u16();
    }
    ensure!(status == 503, "{status}");
    let failure = reported_failure(&cluster, "brief").await?;
    ensure!(failure.exit_code == Some(9), "{failure:?}");
    cluster.finish().await
}
