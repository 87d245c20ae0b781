//! The engine as the starts of a node share it: whose containers they are, the network they join,
//! the gate they pass.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::gate::Gate;
use super::sandbox::Sandboxes;
use crate::runtime::{Error, Runtime, label};

/// What every start on a node needs.
pub(super) struct Engine {
    /// From the route table; containers are labelled with it.
    pub(super) cluster: parking_lot::RwLock<Arc<str>>,
    pub(super) node: String,
    pub(super) boot: String,
    pub(super) gate: Gate,
    pub(super) sandboxes: Arc<Sandboxes>,
    pub(super) network: OnceCell<String>,
    pub(super) runtime: Arc<dyn Runtime>,
}

impl Engine {
    /// The node's network, made at first need. Its name is found again by the node's id.
    pub(super) async fn network(&self) -> Result<String, Error> {
        self.network
            .get_or_try_init(|| async {
                let name = network_name(&self.node);
                let labels = [
                    (label::CLUSTER.to_owned(), self.cluster.read().to_string()),
                    (label::NODE.to_owned(), self.node.clone()),
                ];
                self.runtime
                    .ensure_network(&name, &labels.into_iter().collect())
                    .await?;
                Ok(name)
            })
            .await
            .cloned()
    }
}

/// The name of a node's network.
pub(super) fn network_name(node: &str) -> String {
    let short: String = node
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .collect();
    format!("cless-{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_network_is_named_by_its_id() {
        assert_eq!(
            network_name("0a1b2c3d-4e5f-6789-abcd-ef0123456789"),
            "cless-0a1b2c3d4e5f"
        );
    }
}
