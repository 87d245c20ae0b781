//! Which version answers, and what the proxy itself answers when none can.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_proto::v1::TrafficTarget;
use cless_tests::cluster::{Cluster, settings};
use cless_tests::http_client::raw;
use cless_tests::stats::{binomial_bounds, median, quantile};
use cless_tests::wait;
use tokio::time::Instant;

use crate::{SOON, count_answers, sample};

const HELLO: &str = "hello.localhost";

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_within_binomial_bounds() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut api = cluster.api()?;
    api.create_service("hello", settings()).await?;
    for greeting in ["one", "two", "three"] {
        api.create_version("hello", sample().await?, &[("GREETING", greeting)])
            .await?;
    }
    let weights = [("one", 10), ("two", 30), ("three", 60)];
    cluster
        .set_traffic("hello", &[(1, 10), (2, 30), (3, 60)])
        .await?;
    let counts = count_answers(cluster.node(0).listen, HELLO, 1000, 8).await?;
    for (greeting, percent) in weights {
        let (low, high) = binomial_bounds(1000, percent);
        let count = counts.get(greeting).copied().unwrap_or(0);
        ensure!(
            (low..=high).contains(&count),
            "{greeting}: {count} not in {low}..={high}"
        );
    }
    ensure!(
        counts.values().sum::<usize>() == 1000,
        "answers nobody gave: {counts:?}"
    );

    // A version without weight is never chosen, be it the first or the last.
    cluster.set_traffic("hello", &[(2, 100)]).await?;
    let counts = count_answers(cluster.node(0).listen, HELLO, 300, 8).await?;
    ensure!(
        counts.keys().eq(["two"]),
        "not all on version 2: {counts:?}"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_host_reaches_its_version_alone() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    let mut api = cluster.api()?;
    api.create_version("hello", sample().await?, &[("GREETING", "two")])
        .await?;
    let target = |version, percent, tag: &str| TrafficTarget {
        version,
        percent,
        tag: tag.into(),
    };
    let targets = vec![target(1, 100, ""), target(2, 0, "canary")];
    let traffic = api.set_targets("hello", targets).await?;
    cluster.wait_propagated(traffic.feed_revision).await?;

    let tagged = cluster.node(0).get("canary--hello.localhost", "/").await?;
    ensure!(
        tagged.status == 200 && tagged.text() == "two\n",
        "{tagged:?}"
    );
    for host in [
        "hello.localhost",
        "HELLO.localhost",
        "hello.localhost:8080",
        "hello.localhost.",
    ] {
        let answer = cluster.node(0).get(host, "/").await?;
        ensure!(
            answer.status == 200 && answer.text() == "one\n",
            "{host}: {answer:?}"
        );
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_traffic_is_in_force_soon_after_the_acknowledged_write() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    let mut api = cluster.api()?;
    api.create_version("hello", sample().await?, &[("GREETING", "two")])
        .await?;
    cluster.set_traffic("hello", &[(1, 50), (2, 50)]).await?;
    count_answers(cluster.node(0).listen, HELLO, 40, 4).await?;
    // From a split in which the first answer looked for cannot come by chance.
    cluster.set_traffic("hello", &[(2, 100)]).await?;

    let mut delays = Vec::new();
    for round in 0..20 {
        let (version, greeting) = if round % 2 == 0 {
            (1, "one\n")
        } else {
            (2, "two\n")
        };
        api.set_traffic("hello", &[(version, 100)]).await?;
        let acknowledged = Instant::now();
        loop {
            // The request that sees the change was routed when it was sent.
            let sent = acknowledged.elapsed();
            if cluster.get("hello", "/").await?.text() == greeting {
                delays.push(sent);
                break;
            }
            ensure!(
                sent < SOON,
                "the change of traffic is not in force after {sent:?}"
            );
        }
        let counts = count_answers(cluster.node(0).listen, HELLO, 20, 4).await?;
        ensure!(
            counts.keys().eq([greeting.trim()]),
            "an old split was used: {counts:?}"
        );
    }
    #[expect(
        clippy::print_stdout,
        reason = "a measurement, for whoever runs it with --nocapture"
    )]
    {
        println!(
            "in force after {:?}, at most {:?}",
            median(&delays),
            quantile(&delays, 1.0)
        );
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_routed_is_answered_by_the_proxy() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut api = cluster.api()?;
    api.create_service("idle", settings()).await?;
    cluster.wait_propagated(0).await?;

    let unknown = cluster.node(0).get("nobody.localhost", "/").await?;
    ensure!(unknown.status == 404, "{unknown:?}");
    let no_traffic = cluster.get("idle", "/").await?;
    ensure!(no_traffic.status == 503, "{no_traffic:?}");
    ensure!(
        no_traffic.header("retry-after").is_some(),
        "no Retry-After: {no_traffic:?}"
    );
    for answer in [&unknown, &no_traffic] {
        ensure!(
            answer.header("cache-control") == Some("no-store"),
            "{answer:?}"
        );
        ensure!(answer.header("proxy-status").is_some(), "{answer:?}");
        ensure!(answer.header("x-request-id").is_some(), "{answer:?}");
    }

    let bad = [
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        (
            "two Hosts",
            "GET / HTTP/1.1\r\nHost: idle.localhost\r\nHost: a.localhost\r\n\r\n",
        ),
        (
            "a Host with a space",
            "GET / HTTP/1.1\r\nHost: idle localhost\r\n\r\n",
        ),
        (
            "a Host with a slash",
            "GET / HTTP/1.1\r\nHost: idle/localhost\r\n\r\n",
        ),
        (
            "a folded field",
            "GET / HTTP/1.1\r\nHost: idle.localhost\r\nA: b\r\n c\r\n\r\n",
        ),
        ("no HTTP at all", "hello\r\n\r\n"),
    ];
    for (what, bytes) in bad {
        let answer = raw(
            cluster.node(0).listen,
            bytes.as_bytes(),
            Duration::from_secs(1),
        )
        .await?;
        ensure!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer:?}");
    }
    let connect = "CONNECT idle.localhost:80 HTTP/1.1\r\nHost: idle.localhost:80\r\n\r\n";
    let answer = raw(
        cluster.node(0).listen,
        connect.as_bytes(),
        Duration::from_secs(1),
    )
    .await?;
    ensure!(answer.starts_with("HTTP/1.1 405 "), "CONNECT: {answer:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_service_is_another_service() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let first = cluster.serve("hello", sample().await?, settings()).await?;
    ensure!(
        cluster.get("hello", "/").await?.text() == "one\n",
        "no answer from the first"
    );
    let old = cluster.wait_containers("hello", 1, SOON).await?;
    ensure!(old[0].label("cless.uid") == first.uid, "{old:?}");

    cluster.api()?.delete_service("hello").await?;
    cluster.wait_propagated(0).await?;
    let gone = cluster.get("hello", "/").await?;
    ensure!(gone.status == 404, "{gone:?}");

    let env = [("GREETING", "another")];
    let second = cluster
        .serve_env("hello", sample().await?, settings(), &env)
        .await?;
    ensure!(second.uid != first.uid, "the uid was used again");
    let answer = cluster.get("hello", "/").await?;
    ensure!(answer.text() == "another\n", "{answer:?}");
    wait::until(
        "only the new service's container is left",
        SOON,
        async || {
            let left = cluster.containers(Some("hello")).await?;
            let new = left.len() == 1 && left[0].label("cless.uid") == second.uid;
            Ok(new.then_some(()))
        },
    )
    .await?;
    cluster.finish().await
}
