//! Following the engine's events, and when containers are reconciled with pools.
//!
//! Containers are reconciled at every connection to the event stream, at its end, after a call
//! without a response, and periodically. So reconciling also finds out that the engine is back: one
//! task per node asks, not every pool.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tracing::debug;

use super::message::Message;
use super::registry::Pools;
use crate::runtime::{EngineEvent, Error};

/// Between two reconciliations without another cause.
const RECONCILE_EVERY: Duration = Duration::from_secs(60);
/// After a failed reconciliation.
const RECONCILE_RETRY: Duration = Duration::from_secs(1);

impl Pools {
    /// Follows the engine's events and reconciles its containers, until the node stops. Waits for
    /// an engine that is unavailable.
    pub async fn follow_engine(self) {
        let engine = &self.inner.context.engine;
        let mut events = engine.runtime.events(&engine.node);
        let mut availability = engine.availability.subscribe();
        let mut disconnected = false;
        let mut next = Duration::ZERO;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(EngineEvent::Connected) => {
                        if std::mem::take(&mut disconnected) {
                            engine.forget_network();
                        }
                    }
                    Some(EngineEvent::Disconnected) => disconnected = true,
                    Some(EngineEvent::Died { name, labels }) => {
                        self.died(name, &labels);
                        continue;
                    }
                    Some(EngineEvent::Unhealthy { name, labels }) => {
                        self.send_to(&labels, Message::Unhealthy(name));
                        continue;
                    }
                    None => return,
                },
                () = self.inner.reconcile.notified() => {}
                // A call got no response. Never an error: `engine` holds the sender.
                Ok(_) = availability.changed() => {}
                () = tokio::time::sleep(next) => {}
            }
            next = match self.reconcile_and_follow(&mut events).await {
                Ok(()) => RECONCILE_EVERY,
                Err(error) => {
                    debug!(%error, "the engine's containers cannot be reconciled now");
                    RECONCILE_RETRY
                }
            };
            availability.mark_unchanged();
        }
    }

    /// Reconciles, which may take long, and forwards events meanwhile.
    async fn reconcile_and_follow(
        &self,
        events: &mut BoxStream<'static, EngineEvent>,
    ) -> Result<(), Error> {
        let reconcile = self.reconcile_containers();
        tokio::pin!(reconcile);
        loop {
            tokio::select! {
                biased;
                done = &mut reconcile => return done,
                Some(event) = events.next() => match event {
                    EngineEvent::Died { name, labels } => self.died(name, &labels),
                    EngineEvent::Unhealthy { name, labels } => {
                        self.send_to(&labels, Message::Unhealthy(name));
                    }
                    // The reconciliation in progress may have missed earlier events.
                    EngineEvent::Connected | EngineEvent::Disconnected => self.inner.reconcile.notify_one(),
                },
            }
        }
    }

    /// Handles the end of a container of this node: an instance or a pause container.
    fn died(&self, name: String, labels: &BTreeMap<String, String>) {
        self.sandbox_died(&name);
        self.send_to(labels, Message::Died(name));
    }
}
