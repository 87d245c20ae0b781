//! Several control planes, as processes, on one PostgreSQL.

use std::collections::BTreeSet;
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

/// The metric that says which revision a node serves.
const REVISION: &str = "cless_feed_revision";

/// A database of its own on the server that `tests/postgres.sh` started.
struct Database {
    url: String,
}

impl Database {
    async fn new(dir: &Path) -> Result<Self> {
        let server = std::env::var("CLESS_TEST_POSTGRES").context(
            "CLESS_TEST_POSTGRES: run `sh tests/postgres.sh run cargo test`, as `make test` does",
        )?;
        let name = dir.file_name().context("a name")?.to_string_lossy();
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        psql(&server, &format!("CREATE DATABASE \"{name}\"")).await?;
        let (before, after) = server.split_once("/postgres").context("its URL")?;
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
    client.args([
        "--no-psqlrc",
        "-qAtX",
        "-v",
        "ON_ERROR_STOP=1",
        url,
        "-c",
        sql,
    ]);
    process::run(client).await?.ok()
}

/// Writers on three replicas at once: each revision is given once, and the log has no gap.
#[tokio::test(flavor = "multi_thread")]
async fn writers_on_several_replicas_skip_no_revision() -> Result<()> {
    const REPLICAS: usize = 3;
    const WRITERS: usize = 12;
    const EACH: usize = 200;
    let dir = tempfile::Builder::new().prefix("cless-test-").tempdir()?;
    let database = Database::new(dir.path()).await?;
    let mut planes = Vec::new();
    for replica in 0..REPLICAS {
        let label = format!("replica-{replica}");
        planes.push(ControlPlane::start(dir.path(), &label, any_port(), &database.url).await?);
    }
    // A reader on each follows its feed all the while: never back, never another digest at one revision.
    let mut readers = JoinSet::new();
    let wanted = i64::try_from(WRITERS * (EACH + 1))?;
    for plane in &planes {
        let mut api = plane.api()?;
        readers.spawn(async move {
            let request = v1::WatchRoutesRequest::default();
            let mut stream = api.feed.watch_routes(request).await?.into_inner();
            let mut last = -1;
            while last < wanted {
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
            for turn in 0..EACH {
                // Routes change too, so that the digest has something to say.
                if turn % 10 == 9 {
                    let set = api.set_traffic(&service, &[(1, 100)]).await?;
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
    ensure!(revisions.len() == count, "a revision was given twice");
    for (sql, value) in [
        ("SELECT revision FROM feed_state", wanted),
        (
            "SELECT count(*) FROM route_changes WHERE revision > 0",
            wanted,
        ),
        ("SELECT max(revision) FROM route_changes", wanted),
        (
            "SELECT count(*) FROM versions",
            i64::try_from(WRITERS * EACH * 9 / 10)?,
        ),
    ] {
        let found = database.number(sql).await?;
        ensure!(found == value, "{sql}: {found}, not {value}");
    }
    let digests = database
        .number("SELECT count(*) FROM feed_state s JOIN route_changes c USING (revision, digest)")
        .await?;
    ensure!(digests == 1, "the head's digest is not the log's");
    let followed = async {
        while let Some(read) = readers.join_next().await {
            read??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SOON, followed)
        .await
        .context("a feed does not reach the head")??;
    // One that starts now builds the table from the rows, and finds it as it is stored.
    let last = ControlPlane::start(dir.path(), "last", any_port(), &database.url).await?;
    let said = std::fs::read_to_string(dir.path().join("last.log"))?;
    ensure!(!said.contains("building them anew"), "{said}");
    planes.push(last);
    for plane in planes {
        plane.stop().await?;
    }
    use std::io::Write as _;
    writeln!(
        std::io::stderr(),
        "{wanted} writes on {REPLICAS} replicas in {took:?}, no gap"
    )?;
    Ok(())
}

/// The revision that a node serves, read until told to stop: never lower than before.
async fn never_back(admin: Follower, stop: Arc<AtomicBool>) -> Result<(Follower, usize)> {
    let (mut last, mut looks) = (0.0, 0);
    while !stop.load(Ordering::Relaxed) {
        let now = admin.metric(REVISION).await?;
        ensure!(now >= last, "back from {last} to {now}");
        last = now;
        looks += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok((admin, looks))
}

async fn connected(grpc: SocketAddr) -> Result<usize> {
    let mut api = api(grpc)?;
    let answer = api
        .nodes
        .list_nodes(v1::ListNodesRequest::default())
        .await?;
    let nodes = answer.into_inner().nodes;
    let connected = v1::node::State::Connected;
    Ok(nodes
        .iter()
        .filter(|node| node.state() == connected)
        .count())
}

/// Nodes that are given both addresses are counted by both, and when one control plane is killed all of
/// them follow the other within seconds; requests do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_move_to_another_replica_within_seconds_and_never_back() -> Result<()> {
    /// Chance puts all of so many on one of two control planes once in two thousand times.
    const NODES_MOST: usize = 12;
    let dir = tempfile::Builder::new().prefix("cless-test-").tempdir()?;
    let database = Database::new(dir.path()).await?;
    let one = ControlPlane::start(dir.path(), "one", any_port(), &database.url).await?;
    let two = ControlPlane::start(dir.path(), "two", any_port(), &database.url).await?;
    let (mut api_one, mut api_two) = (one.api()?, two.api()?);
    let cluster = api_one.cluster_id().await?;
    ensure!(api_two.cluster_id().await? == cluster, "one database");
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
    // Both control planes get some of the nodes.
    let mut followed = BTreeSet::new();
    while followed.len() < 2 {
        ensure!(
            proxies.len() < NODES_MOST,
            "they do not spread: {followed:?}"
        );
        let name = format!("node-{}", proxies.len());
        let node = Follower::start(dir.path(), &name, &[one.grpc, two.grpc]).await?;
        let follows = wait::until("it follows one", SOON, async || Ok(node.follows())).await?;
        followed.insert(follows);
        proxies.push(node.listen);
        watched.spawn(never_back(node, Arc::clone(&stop)));
    }
    let nodes = proxies.len();
    for plane in [&one, &two] {
        wait::until("all nodes are counted", SOON, async || {
            Ok((connected(plane.grpc).await? == nodes).then_some(()))
        })
        .await?;
    }
    for proxy in &proxies {
        let answer = http_client::get(*proxy, "hello.localhost", "/").await?;
        ensure!(answer.text() == "one\n", "{answer:?}");
    }
    // Which replica is asked makes no difference to who must prove a version.
    let name = "services/hello/versions/2".to_owned();
    let request = v1::VerifyVersionRequest {
        name: name.clone(),
        ..Default::default()
    };
    let asked = api_two.catalog.verify_version(request).await?.into_inner();
    let asked = asked.verification.context("a proof")?.nodes.len();
    ensure!(asked == nodes, "{asked} nodes were asked");
    wait::until("the version is proven by all", SOON, async || {
        let version = api_one.version("hello", 2).await?;
        let proof = version.verification.context("a proof")?;
        Ok((proof.state() == v1::verification::State::Verified).then_some(()))
    })
    .await?;

    // Writes on one, then the other dies with every stream it has.
    for percent in [(2, 100), (1, 100), (2, 100)] {
        api_two.set_traffic("hello", &[percent]).await?;
    }
    let mut one = one;
    one.kill().await?;
    let killed = Instant::now();
    let set = api_two.set_traffic("hello", &[(1, 100)]).await?;
    wait::until(
        "all nodes have the change",
        Duration::from_secs(10),
        async || {
            let answer = api_two.check_propagation(set.feed_revision).await?;
            Ok((answer.nodes_applied as usize == nodes).then_some(()))
        },
    )
    .await?;
    let moved = killed.elapsed();
    for proxy in &proxies {
        let answer = http_client::get(*proxy, "hello.localhost", "/").await?;
        ensure!(answer.text() == "one\n", "{answer:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut looks = 0;
    while let Some(node) = watched.join_next().await {
        let (node, seen) = node??;
        looks += seen;
        node.stop().await?;
    }
    two.stop().await?;
    let docker = cless_tests::engine::connect().await?;
    let left = cless_tests::engine::containers(&docker, &[("cless.cluster", &cluster)]).await?;
    ensure!(left.is_empty(), "{left:?}");
    use std::io::Write as _;
    writeln!(
        std::io::stderr(),
        "{nodes} nodes follow the other replica {moved:?} after the kill; {looks} looks, never back"
    )?;
    Ok(())
}
