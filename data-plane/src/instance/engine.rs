//! The engine as the starts of a node share it: whose containers they are, the network they join,
//! the gate they pass.

use std::sync::Arc;

use tokio::sync::{OnceCell, watch};

use super::gate::Gate;
use super::oci::OciRuntime;
use crate::image::Puller;
use crate::isolation::{self, Isolation};
use crate::runtime::{Error, Runtime, label};

/// What every start on a node needs.
pub(super) struct Engine {
    /// From the route table; containers are labelled with it.
    pub(super) cluster: parking_lot::RwLock<Arc<str>>,
    pub(super) node: String,
    pub(super) boot: String,
    pub(super) gate: Gate,
    pub(super) network: OnceCell<String>,
    pub(super) oci: OciRuntime,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) puller: Puller,
    /// A control plane is connected.
    pub(super) linked: watch::Sender<bool>,
    pub(super) isolation: Isolation,
}

impl Engine {
    /// The node's network, made at first need, with the rules around it in force. Its name is found
    /// again by the node's id.
    pub(super) async fn network(&self) -> Result<String, Error> {
        self.network
            .get_or_try_init(|| async {
                let name = network_name(&self.node);
                let labels = [
                    (label::CLUSTER.to_owned(), self.cluster.read().to_string()),
                    (label::NODE.to_owned(), self.node.clone()),
                ];
                let bridge = isolation::bridge_name(&self.node);
                let bridge = self
                    .runtime
                    .ensure_network(&name, &bridge, &labels.into_iter().collect())
                    .await?;
                self.isolation.cover(&bridge).await;
                Ok(name)
            })
            .await
            .cloned()
    }

    /// Looks at the rules around the node's network, if it has been made: an engine that starts
    /// anew writes its own anew, and a process before may have named the bridge otherwise.
    pub(super) async fn cover_network(&self) {
        if let Ok(bridge) = self.runtime.bridge(&network_name(&self.node)).await {
            self.isolation.cover(&bridge).await;
        }
    }
}

/// The name of a node's network.
pub(super) fn network_name(node: &str) -> String {
    format!("cless-{}", isolation::short_id(node))
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
