//! The memory of an idle node with ten thousand routes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use cless_proto::v1;
use cless_tests::cluster::{Api, Cluster, NodeSetup, settings};
use cless_tests::cpu;
use cless_tests::report::print_line;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::peers::Racer;

/// Services, each with one version that gets all traffic.
const ROUTES: usize = 10_000;
/// Concurrent writers; the control plane serializes writes, so a few keep it busy.
const WRITERS: usize = 16;
/// The allocator may return memory for a while after the table arrived.
const SETTLE: Duration = Duration::from_secs(5);

/// Resident megabytes of a new node that has received the route table and served no request; also
/// of the baseline, if there is one.
pub(crate) async fn memory(baseline: Option<&Path>) -> Result<Vec<(Racer, f64)>> {
    let mut cluster = Cluster::start(0).await?;
    print_line(&format!("idle: creating {ROUTES} services"));
    futures_util::stream::iter(0..ROUTES)
        .map(|number| service(cluster.api(), number))
        .buffer_unordered(WRITERS)
        .try_collect::<()>()
        .await?;
    let mut measured = Vec::new();
    for (racer, program) in [(Racer::Cless, None), (Racer::Baseline, baseline)] {
        if racer == Racer::Baseline && program.is_none() {
            continue;
        }
        let program = program.map(Path::to_owned);
        let setup = NodeSetup {
            program,
            ..NodeSetup::default()
        };
        let node = cluster.add_node_with(setup).await?;
        cluster.wait_propagated(0).await?;
        tokio::time::sleep(SETTLE).await;
        let rss = cpu::usage(cluster.node(node).pid()?)?.rss as f64 / 1e6;
        print_line(&format!("idle: {} uses {rss:.1} MB", racer.name()));
        measured.push((racer, rss));
    }
    cluster.finish().await?;
    Ok(measured)
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
