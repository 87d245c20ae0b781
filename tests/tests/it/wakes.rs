//! The limit on the sleeping versions that one client wakes at a time.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::http_client::{self, Connection, FullResponse};
use cless_tests::wait;
use http::{HeaderName, Request, header};
use http_body_util::Full;

use crate::{SOON, sample_spec, serve_spec, wait_serves};

/// Services whose start takes long enough to count requests meanwhile.
async fn serve_slow(cluster: &Cluster, services: &[&str]) -> Result<()> {
    for service in services {
        let spec = sample_spec(&[("START_DELAY_MS", "4000")]).await?;
        serve_spec(cluster, service, settings(), spec).await?;
    }
    Ok(())
}

async fn get_from(cluster: &Cluster, source: &str, service: &str) -> Result<FullResponse> {
    let source: IpAddr = source.parse()?;
    let mut connection = Connection::open_from(source, cluster.node(0).listen).await?;
    connection.get(&Cluster::host(service), "/").await
}

/// Begins a request that wakes a service, and waits until it is in the queue.
async fn begin_wake(
    cluster: &Cluster,
    source: &str,
    service: &str,
) -> Result<tokio::task::JoinHandle<Result<FullResponse>>> {
    let source: IpAddr = source.parse()?;
    let mut connection = Connection::open_from(source, cluster.node(0).listen).await?;
    let host = Cluster::host(service);
    let request = tokio::spawn(async move { connection.get(&host, "/").await });
    cluster.wait_containers(service, 1, SOON).await?;
    Ok(request)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_wakes_few_versions_at_a_time_and_others_are_unaffected() -> Result<()> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(&["--max-wakes-per-ip", "2"])).await?;
    serve_slow(&cluster, &["one", "two", "three"]).await?;
    let (storm, other) = ("127.0.0.2", "127.0.0.3");
    let one = begin_wake(&cluster, storm, "one").await?;
    let two = begin_wake(&cluster, storm, "two").await?;

    let refused = get_from(&cluster, storm, "three").await?;
    ensure!(refused.status == 503, "{refused:?}");
    ensure!(refused.header("retry-after").is_some(), "{refused:?}");
    let proxy_status = refused.header("proxy-status").unwrap_or_default();
    ensure!(proxy_status.starts_with("cless; error="), "{refused:?}");
    let metrics = http_client::get(cluster.node(0).admin, "admin", "/metrics").await?;
    let labels = r#"reason="max_wakes_per_ip",service="three",version="1""#;
    let counted = metrics.text().contains(&format!("{labels}}} 1"));
    ensure!(counted, "{}", metrics.text());
    ensure!(cluster.containers(Some("three")).await?.is_empty());

    // A service counts once, and another client has wakes of its own.
    let again = tokio::spawn({
        let mut connection = Connection::open_from(storm.parse()?, cluster.node(0).listen).await?;
        async move { connection.get("one.localhost", "/").await }
    });
    let three = begin_wake(&cluster, other, "three").await?;
    for request in [one, two, again, three] {
        let response = request.await??;
        ensure!(response.status == 200, "{response:?}");
    }
    // The wakes are over.
    ensure!(get_from(&cluster, storm, "three").await?.status == 200);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_whose_client_left_counts_until_its_start_ends() -> Result<()> {
    let cluster = Cluster::start_with(1, NodeSetup::flags(&["--max-wakes-per-ip", "1"])).await?;
    serve_slow(&cluster, &["one", "two"]).await?;
    let left = begin_wake(&cluster, "127.0.0.2", "one").await?;
    left.abort();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = get_from(&cluster, "127.0.0.2", "two").await?;
    ensure!(refused.status == 503, "{refused:?}");
    wait::until("the start has ended", SOON, async || {
        let response = get_from(&cluster, "127.0.0.2", "two").await?;
        Ok((response.status == 200).then_some(()))
    })
    .await?;
    wait_serves(&cluster, "one", SOON).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_trusted_proxy_have_wakes_of_their_own() -> Result<()> {
    let flags = [
        "--max-wakes-per-ip",
        "1",
        "--trusted-proxies",
        "127.0.0.0/8",
    ];
    let cluster = Cluster::start_with(1, NodeSetup::flags(&flags)).await?;
    serve_slow(&cluster, &["one", "two"]).await?;
    let address = cluster.node(0).listen;
    let get = |client: &'static str, service: &'static str| async move {
        let name = HeaderName::from_static("x-forwarded-for");
        let request = Request::get("/")
            .header(header::HOST, Cluster::host(service))
            .header(name, client)
            .body(Full::default())?;
        http_client::send(address, request).await
    };
    let one = tokio::spawn(get("198.51.100.1", "one"));
    cluster.wait_containers("one", 1, SOON).await?;
    // The client forges the first part of the chain.
    let refused = get("203.0.113.7, 198.51.100.1, 127.0.0.9", "two").await?;
    ensure!(refused.status == 503, "{refused:?}");
    let other = get("198.51.100.2", "two").await?;
    ensure!(other.status == 200, "{other:?}");
    ensure!(one.await??.status == 200);
    cluster.finish().await
}
