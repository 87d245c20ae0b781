//! Several control plane processes on one PostgreSQL.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::settings;
use cless_tests::control_plane::{ControlPlane, Follower, any_port, api};
use cless_tests::{http_client, process, wait};
use tokio::task::JoinSet;

use crate::{SOON, sample};

/// The metric with the revision that a node serves.
const REVISION: &str = "cless_feed_revision";

/// A separate database on the server of `tests/postgres.sh`.
struct Database {
    url: String,
}

impl Database {
    async fn new(dir: &Path) -> Result<Self> {
        let server = std::env::var("CLESS_TEST_POSTGRES").context(
            "CLESS_TEST_POSTGRES: run `sh tests/postgres.sh run cargo test`, as `make test` does",
        )?;
        let name = dir
            .file_name()
            .context("the folder has no name")?
            .to_string_lossy();
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        psql(&server, &format!("CREATE DATABASE \"{name}\"")).await?;
        let (before, after) = server.split_once("/postgres").context("unexpected URL")?;
        Ok(Self {
            url: format!("{before}/{name}{after}"),
        })
    }

    async fn number(&self, sql: &str) -> Result<i64> {
        Ok(psql(&self.url, sql).await?.trim().parse()?)
    }
}

async fn psql(url: &str, sql: &str) -> Result<String> {
    let mut client = tokio::process::Command::new("psql");
    client.args(["--no-psqlrc", "-qAtX", "-v", "ON_ERROR_STOP=1"]);
    client.args([url, "-c", sql]);
    process::run(client).await?.ok()
}

/// With concurrent writers on three replicas, each revision is unique and the log has no gap.
#[tokio::test(flavor = "multi_thread")]
async fn writers_on_several_replicas_skip_no_revision() -> Result<()> {
    const REPLICAS: usize = 3;
    const WRITERS: usize = 12;
    const WRITES: usize = 200;
    let dir = tempfile::Builder::new().prefix("cless-test-").tempdir()?;
    let database = Database::new(dir.path()).await?;
    let mut planes = Vec::new();
    for replica in 0..REPLICAS {
        let label = format!("replica-{replica}");
        planes.push(ControlPlane::start(dir.path(), &label, any_port(), &database.url).await?);
    }
    // A reader of each feed checks that revisions never decrease.
    let mut readers = JoinSet::new();
    let expected = i64::try_from(WRITERS * (WRITES + 1))?;
    for plane in &planes {
        let mut api = plane.api()?;
        readers.spawn(async move {
            let request = v1::WatchRoutesRequest::default();
            let mut stream = api.feed.watch_routes(request).await?.into_inner();
            let mut last = -1;
            while last < expected {
                let change = stream.message().await?.context("the stream ended")?;
                ensure!(change.revision >= last, "{} after {last}", change.revision);
                last = change.revision;
            }
            anyhow::Ok(())
        });
    }
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut api = planes[writer % REPLICAS].api()?;
        writers.spawn(async move {
            let service = format!("w{writer}");
            let mut revisions = vec![api.create_service(&service, settings()).await?.revision];
            for turn in 0..WRITES {
                // Some writes change routes, and so the digest.
                if turn % 10 == 9 {
                    // Each set differs from the one in force, else it would write nothing.
                    let first = if turn % 20 == 9 { 99 } else { 98 };
                    let split = [(1, first), (2, 100 - first)];
                    let set = api.set_traffic(&service, &split).await?;
                    revisions.push(set.feed_revision);
                } else {
                    api.create_version(&service, "hello:1", &[]).await?;
                }
            }
            ensure!(revisions.is_sorted());
            Ok(revisions)
        });
    }
    let mut revisions = Vec::new();
    while let Some(written) = writers.join_next().await {
        revisions.extend(written??);
    }
    let took = begun.elapsed();
    let count = revisions.len();
    revisions.sort_unstable();
    revisions.dedup();
    ensure!(revisions.len() == count, "a revision is not unique");
    for (sql, value) in [
        ("SELECT revision FROM feed_state", expected),
        (
            "SELECT count(*) FROM route_changes WHERE revision > 0",
            expected,
        ),
        ("SELECT max(revision) FROM route_changes", expected),
        (
            "SELECT count(*) FROM versions",
            i64::try_from(WRITERS * WRITES * 9 / 10)?,
        ),
    ] {
        let found = database.number(sql).await?;
        ensure!(found == value, "{sql}: {found}, not {value}");
    }
    let digests = database
        .number("SELECT count(*) FROM feed_state s JOIN route_changes c USING (revision, digest)")
        .await?;
    ensure!(digests == 1, "the digests of head and log differ");
    let followed = async {
        while let Some(read) = readers.join_next().await {
            read??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SOON, followed)
        .await
        .context("a feed does not reach the newest revision")??;
    // A new replica computes the routes from the rows and finds the stored ones up to date.
    let last = ControlPlane::start(dir.path(), "last", any_port(), &database.url).await?;
    let log = std::fs::read_to_string(dir.path().join("last.log"))?;
    ensure!(!log.contains("rebuilding them"), "{log}");
    planes.push(last);
    for plane in planes {
        plane.stop().await?;
    }
    writeln!(
        std::io::stderr(),
        "{expected} writes on {REPLICAS} replicas in {took:?} without a gap"
    )?;
    Ok(())
}

/// Checks until `stop` that the revision of a node never decreases; returns the number of reads.
async fn check_monotonic(node: Follower, stop: Arc<AtomicBool>) -> Result<(Follower, usize)> {
    let (mut last, mut reads) = (0.0, 0);
    while !stop.load(Ordering::Relaxed) {
        let now = node.metric(REVISION).await?;
        ensure!(now >= last, "revision {now} after {last}");
        last = now;
        reads += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok((node, reads))
}

async fn connected_nodes(grpc: SocketAddr) -> Result<usize> {
    let mut api = api(grpc)?;
    let request = v1::ListNodesRequest::default();
    let nodes = api.nodes.list_nodes(request).await?.into_inner().nodes;
    let connected = v1::node::State::Connected;
    Ok(nodes
        .iter()
        .filter(|node| node.state() == connected)
        .count())
}

/// Both control planes list all nodes. After a kill of one, its nodes follow the other within
/// seconds without an effect on requests.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_follow_another_replica_within_seconds_and_revisions_never_decrease() -> Result<()> {
    /// The probability that all of them choose the same control plane is 1 in 2048.
    const MAX_NODES: usize = 12;
    let dir = tempfile::Builder::new().prefix("cless-test-").tempdir()?;
    let database = Database::new(dir.path()).await?;
    let one = ControlPlane::start(dir.path(), "one", any_port(), &database.url).await?;
    let two = ControlPlane::start(dir.path(), "two", any_port(), &database.url).await?;
    let (mut api_one, mut api_two) = (one.api()?, two.api()?);
    let cluster = api_one.cluster_id().await?;
    ensure!(
        api_two.cluster_id().await? == cluster,
        "the cluster ids differ"
    );
    api_one.create_service("hello", settings()).await?;
    api_one
        .create_version("hello", sample().await?, &[("GREETING", "one")])
        .await?;
    api_one
        .create_version("hello", sample().await?, &[("GREETING", "two")])
        .await?;
    api_one.set_traffic("hello", &[(1, 100)]).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut watched = JoinSet::new();
    let mut proxies = Vec::new();
    // Nodes are added until each control plane has at least one.
    let mut followed = BTreeSet::new();
    while followed.len() < 2 {
        ensure!(proxies.len() < MAX_NODES, "all nodes follow {followed:?}");
        let name = format!("node-{}", proxies.len());
        let node = Follower::start(dir.path(), &name, &[one.grpc, two.grpc]).await?;
        let follows =
            wait::until("the node follows one", SOON, async || Ok(node.follows())).await?;
        followed.insert(follows);
        proxies.push(node.listen);
        watched.spawn(check_monotonic(node, Arc::clone(&stop)));
    }
    let nodes = proxies.len();
    for plane in [&one, &two] {
        wait::until("all nodes are listed", SOON, async || {
            Ok((connected_nodes(plane.grpc).await? == nodes).then_some(()))
        })
        .await?;
    }
    for proxy in &proxies {
        let response = http_client::get(*proxy, "hello.localhost", "/").await?;
        ensure!(response.text() == "one\n", "{response:?}");
    }
    // All nodes must verify a version, whichever replica receives the request.
    let name = "services/hello/versions/2".to_owned();
    let request = v1::VerifyVersionRequest {
        name: name.clone(),
        ..Default::default()
    };
    let version = api_two.catalog.verify_version(request).await?.into_inner();
    let verification = version.verification.context("no verification")?;
    let verifying = verification.nodes.len();
    ensure!(verifying == nodes, "{verifying} of {nodes} nodes verify");
    wait::until("the version is verified", SOON, async || {
        let version = api_one.version("hello", 2).await?;
        let verification = version.verification.context("no verification")?;
        Ok((verification.state() == v1::verification::State::Verified).then_some(()))
    })
    .await?;

    // Writes on one replica, then a kill of the other with all its streams.
    for target in [(2, 100), (1, 100), (2, 100)] {
        api_two.set_traffic("hello", &[target]).await?;
    }
    let mut one = one;
    one.kill().await?;
    let killed = Instant::now();
    let set = api_two.set_traffic("hello", &[(1, 100)]).await?;
    wait::until(
        "all nodes apply the change",
        Duration::from_secs(10),
        async || {
            let progress = api_two.check_propagation(set.feed_revision).await?;
            Ok((progress.nodes_applied as usize == nodes).then_some(()))
        },
    )
    .await?;
    let moved = killed.elapsed();
    for proxy in &proxies {
        let response = http_client::get(*proxy, "hello.localhost", "/").await?;
        ensure!(response.text() == "one\n", "{response:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut reads = 0;
    while let Some(node) = watched.join_next().await {
        let (node, more) = node??;
        reads += more;
        node.stop().await?;
    }
    two.stop().await?;
    let docker = cless_tests::engine::connect().await?;
    let left = cless_tests::engine::containers(&docker, &[("cless.cluster", &cluster)]).await?;
    ensure!(left.is_empty(), "{left:?}");
    writeln!(
        std::io::stderr(),
        "{nodes} nodes follow the other replica {moved:?} after the kill; {reads} reads, no decrease"
    )?;
    Ok(())
}
