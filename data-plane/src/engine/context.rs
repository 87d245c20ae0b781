//! The engine as all tasks of a node share it: labels, network, limits and availability.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{OnceCell, watch};

use super::availability::Availability;
use super::oci_runtime::OciRuntime;
use super::policy::NodePolicy;
use super::start_limiter::StartLimiter;
use crate::image::{Pins, Puller};
use crate::isolation::{self, Isolation};
use crate::runtime::{Error, Runtime, label};

/// See the module.
pub(crate) struct EngineContext {
    /// The cluster's id for container labels; empty until there is a route table.
    pub(crate) cluster: RwLock<Arc<str>>,
    pub(crate) node: String,
    /// The id of this process.
    pub(crate) boot: String,
    pub(crate) start_limiter: StartLimiter,
    /// The name of the node's network; unset until a start needs it.
    pub(crate) network: RwLock<Arc<OnceCell<String>>>,
    pub(crate) oci_runtime: OciRuntime,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) puller: Puller,
    pub(crate) pins: Arc<Pins>,
    /// The engine's name and version, or its error. The name is empty until it answers.
    pub(crate) answer: Mutex<Result<String, String>>,
    pub(crate) control_plane: watch::Sender<bool>,
    pub(crate) isolation: Isolation,
    pub(crate) policy: NodePolicy,
    pub(crate) availability: watch::Sender<Availability>,
    /// Tasks whose callers wait for the engine.
    pub(crate) busy: watch::Sender<usize>,
    /// The engine's message about its full disk; `None` once it creates a container again.
    pub(crate) disk_full: Mutex<Option<String>>,
}

/// A task whose callers wait for the engine.
#[derive(Debug)]
pub(crate) struct EngineTask(watch::Sender<usize>);

impl Drop for EngineTask {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl EngineContext {
    /// The name of the node's network. The first call creates the network and its firewall rules;
    /// the name follows from the node's id, so a later process finds it.
    pub(crate) async fn network(&self) -> Result<String, Error> {
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

    /// Restores the firewall rules of an existing network: an engine that restarts overwrites them,
    /// and an earlier process may have named the bridge differently.
    pub(crate) async fn cover_network(&self) {
        if let Ok(bridge) = self.runtime.bridge(&network_name(&self.node)).await {
            self.isolation.cover(&bridge).await;
        }
    }

    /// Makes the next start look for the network: a restarted engine may have lost it.
    pub(crate) fn forget_network(&self) {
        *self.network.write() = Arc::default();
    }

    pub(crate) fn record_failure(&self) {
        self.record_failure_at(Instant::now());
    }

    /// Records that a call of this time got no response. True if this begins an outage.
    pub(crate) fn record_failure_at(&self, at: Instant) -> bool {
        self.availability
            .send_if_modified(|availability| availability.record_failure(at))
    }

    /// Counts a task whose callers wait for the engine, until the returned value is dropped.
    pub(crate) fn begin_task(&self) -> EngineTask {
        self.busy.send_modify(|count| *count += 1);
        EngineTask(self.busy.clone())
    }

    pub(crate) fn record_answer(&self) {
        self.availability
            .send_if_modified(Availability::record_answer);
    }

    pub(crate) fn is_available(&self) -> bool {
        self.availability.borrow().is_available()
    }

    pub(crate) async fn available(&self) {
        let mut availability = self.availability.subscribe();
        // Never an error: `self` holds the sender.
        let _ = availability.wait_for(Availability::is_available).await;
    }

    pub(crate) fn set_disk_full(&self, message: &str) {
        *self.disk_full.lock() = Some(message.to_owned());
    }

    pub(crate) fn clear_disk_full(&self) {
        *self.disk_full.lock() = None;
    }
}

pub(crate) fn network_name(node: &str) -> String {
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
