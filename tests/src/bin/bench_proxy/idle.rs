//! The memory of an idle node with ten thousand routes.

use std::time::Duration;

use anyhow::Result;
use cless_proto::v1;
use cless_tests::cluster::{Api, Cluster, settings};
use cless_tests::{cpu, wait};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::say;

/// Services, each with one version that gets all traffic.
const ROUTES: usize = 10_000;
/// Writers at once: the control plane writes one after the other, so few keep it busy.
const WRITERS: usize = 16;
/// Memory may be given back for a while after the table came in.
const SETTLE: Duration = Duration::from_secs(5);
/// Ten thousand routes are 6 MB on the wire.
const TABLE_WITHIN: Duration = Duration::from_secs(60);

/// Resident megabytes of a node that has just begun, followed the feed, and served nothing.
pub(crate) async fn memory() -> Result<f64> {
    let mut cluster = Cluster::start(0).await?;
    say(&format!("idle: making {ROUTES} services"));
    futures_util::stream::iter(0..ROUTES)
        .map(|number| service(cluster.api(), number))
        .buffer_unordered(WRITERS)
        .try_collect::<()>()
        .await?;
    let node = cluster.add_node().await?;
    let name = cluster.node(node).name.clone();
    wait::until("the node has the table", TABLE_WITHIN, async || {
        let answer = cluster.api()?.check_propagation(0).await?;
        Ok((answer.nodes_applied == 1 && answer.pending.is_empty()).then_some(()))
    })
    .await?;
    tokio::time::sleep(SETTLE).await;
    let rss = cpu::usage(cluster.node(node).pid()?)?.rss as f64 / 1e6;
    say(&format!("idle: {name} holds {rss:.1} MB"));
    cluster.finish().await?;
    Ok(rss)
}

async fn service(api: Result<Api>, number: usize) -> Result<()> {
    let mut api = api?;
    let name = format!("idle-{number}");
    api.create_service(&name, settings()).await?;
    let spec = v1::VersionSpec {
        image: format!("registry.example.com/team/idle-{number}:1"),
        ..Default::default()
    };
    let version = api.create_version_of(&name, spec).await?;
    api.set_traffic(&name, &[(version.number, 100)]).await?;
    Ok(())
}
