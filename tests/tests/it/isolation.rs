//! Isolation on the real engine and packet filter: reachability from containers, the lifecycle of
//! the rules, and nodes that cannot set them.

mod reach;
mod rules;
mod without;

use anyhow::{Context as _, Result};
use cless_proto::v1;
use cless_proto::v1::isolation::State;
use cless_tests::cluster::Cluster;
use cless_tests::wait;

use crate::SOON;

/// The outcome of a connection attempt by a container of a service on a node.
async fn connect(cluster: &Cluster, node: usize, service: &str, to: &str) -> Result<String> {
    let path = format!("/connect?to={to}");
    let host = Cluster::host(service);
    let answer = cluster.node(node).get(&host, &path).await?;
    let outcome = answer.json()?["outcome"].as_str().map(str::to_owned);
    outcome.with_context(|| format!("{service} on node {node}: {}", answer.text()))
}

/// Waits until a node reports this state of isolation.
async fn wait_isolation(cluster: &Cluster, node: usize, state: State) -> Result<v1::Isolation> {
    let name = cluster.node(node).name.clone();
    let mut last = None;
    let found = wait::until("the state of isolation", SOON, async || {
        last = cluster.api()?.node(&name).await?.isolation;
        Ok(last.clone().filter(|isolation| isolation.state() == state))
    })
    .await;
    found.with_context(|| format!("{name} reports {last:?}, not {state:?}"))
}
