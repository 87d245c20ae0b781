//! The engine as the starts of a node share it: whose containers they are, the network they join,
//! the gate they pass.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{OnceCell, watch};

use super::gate::Gate;
use super::oci::OciRuntime;
use super::outage::Outage;
use super::sandbox::Sandboxes;
use crate::image::Puller;
use crate::isolation::{self, Isolation};
use crate::runtime::{Error, Runtime, label};

/// What every start on a node needs.
pub(super) struct Engine {
    /// From the route table; containers are labelled with it.
    pub(super) cluster: RwLock<Arc<str>>,
    pub(super) node: String,
    pub(super) boot: String,
    pub(super) gate: Gate,
    pub(super) network: RwLock<Arc<OnceCell<String>>>,
    pub(super) oci: OciRuntime,
    pub(super) sandboxes: Arc<Sandboxes>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) puller: Puller,
    /// A control plane is connected.
    pub(super) linked: watch::Sender<bool>,
    pub(super) isolation: Isolation,
    /// Whether it answers.
    pub(super) outage: watch::Sender<Outage>,
    /// What it said when its disk was full, until it makes a container again.
    pub(super) full: Mutex<Option<String>>,
}

impl Engine {
    /// The node's network, made at first need, with the rules around it in force. Its name is found
    /// again by the node's id.
    pub(super) async fn network(&self) -> Result<String, Error> {
        let network = self.network.read().clone();
        network
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

    /// Has the network looked for again: an engine that was away may have lost it.
    pub(super) fn forget_network(&self) {
        *self.network.write() = Arc::default();
    }

    /// A call got no answer.
    pub(super) fn missed(&self) {
        self.outage
            .send_if_modified(|outage| outage.missed(Instant::now()));
    }

    /// A call was answered.
    pub(super) fn answered(&self) {
        self.outage.send_if_modified(Outage::answered);
    }

    /// Its disk was full when it was last asked to make something.
    pub(super) fn has_no_space(&self, said: &str) {
        *self.full.lock() = Some(said.to_owned());
    }

    /// It has made a container.
    pub(super) fn has_space(&self) {
        *self.full.lock() = None;
    }

    /// Waits until it answers, if it does not.
    pub(super) async fn back(&self) {
        let mut outage = self.outage.subscribe();
        // The sender is held by this very engine.
        let _ = outage.wait_for(|outage| !outage.is_on()).await;
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
