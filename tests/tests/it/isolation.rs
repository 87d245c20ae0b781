//! Isolation on the real engine and the real packet filter: what a container reaches and what not,
//! rules that come and go with their node, and nodes that cannot set them.

mod reach;
mod rules;
mod without;

use anyhow::{Context as _, Result};
use cless_proto::v1;
use cless_proto::v1::isolation::State;
use cless_tests::cluster::Cluster;
use cless_tests::wait;

use crate::SOON;

/// What a container of a service says of its try to connect, through a node.
async fn connect(cluster: &Cluster, node: usize, service: &str, to: &str) -> Result<String> {
    let path = format!("/connect?to={to}");
    let host = Cluster::host(service);
    let answer = cluster.node(node).get(&host, &path).await?;
    let outcome = answer.json()?["outcome"].as_str().map(str::to_owned);
    outcome.with_context(|| format!("{service} on node {node}: {}", answer.text()))
}

/// Waits until a node has reported a state of isolation, and returns what it says.
async fn told(cluster: &Cluster, node: usize, state: State) -> Result<v1::Isolation> {
    let name = cluster.node(node).name.clone();
    let mut seen = None;
    let found = wait::until("the state of isolation", SOON, async || {
        seen = cluster.api()?.node(&name).await?.isolation;
        Ok(seen.clone().filter(|isolation| isolation.state() == state))
    })
    .await;
    found.with_context(|| format!("{name} says {seen:?}, not {state:?}"))
}

/// The first 12 characters of a node's id, which its network is named by.
fn short(id: &str) -> String {
    id.chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .collect()
}

fn bridge_of(id: &str) -> String {
    format!("cless{}", &short(id)[..10])
}
