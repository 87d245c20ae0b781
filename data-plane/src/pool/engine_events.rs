//! Following the engine's events, and when containers are reconciled with pools.
//!
//! Containers are reconciled at every connection to the event stream, at its end, after a call
//! without a response, and periodically. So reconciling also finds out that the engine is back: one
//! task per node asks, not every pool.
//!
//! While a start or a resume takes longer than usual, the engine is asked for its version: a hung
//! engine must be noticed long before the time limit of the call.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tracing::{debug, warn};

use super::message::Message;
use super::registry::Pools;
use crate::engine::context::network_name;
use crate::engine::error_class::is_unreachable;
use crate::runtime::{EngineEvent, Error};

/// Between two reconciliations without another cause.
const RECONCILE_EVERY: Duration = Duration::from_secs(60);
/// Time after which a start or a resume is late, and between two questions to the engine. A start
/// usually takes 0.3 s.
const LATE: Duration = Duration::from_millis(500);
/// The longest wait for the engine's version, which takes milliseconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed reconciliation.
const RECONCILE_RETRY: Duration = Duration::from_secs(1);

impl Pools {
    /// Follows the engine's events and reconciles its containers, until the node stops. Waits for
    /// an engine that is unavailable.
    pub async fn follow_engine(self) {
        tokio::join!(self.follow_events(), self.probe_when_late());
    }

    /// Asks the engine while its callers wait for long, forever.
    async fn probe_when_late(&self) {
        let engine = &self.inner.context.engine;
        let mut busy = engine.busy.subscribe();
        loop {
            // Never an error: `engine` holds the sender.
            let _ = busy.wait_for(|tasks| *tasks > 0).await;
            tokio::time::sleep(LATE).await;
            // The reconciliation finds out when it answers again.
            engine.available().await;
            if *busy.borrow() == 0 {
                continue;
            }
            let began = Instant::now();
            let error = match tokio::time::timeout(PROBE_TIMEOUT, engine.runtime.engine()).await {
                Ok(Err(error)) if is_unreachable(&error) => error,
                Ok(_) => continue,
                Err(_) => Error::NoResponse(format!("no response within {PROBE_TIMEOUT:?}")),
            };
            if engine.record_failure_at(began) {
                self.note_engine(Err(error.to_string()));
            }
        }
    }

    async fn follow_events(&self) {
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
                    Some(event) => {
                        self.forward(event);
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
                    // The reconciliation in progress may have missed earlier events.
                    EngineEvent::Connected | EngineEvent::Disconnected => self.inner.reconcile.notify_one(),
                    event => self.forward(event),
                },
            }
        }
    }

    /// Handles an event about a container or a network.
    fn forward(&self, event: EngineEvent) {
        match event {
            EngineEvent::Died {
                name,
                labels,
                exit_code,
            } => {
                self.sandbox_died(&name);
                self.send_to(&labels, Message::Died { name, exit_code });
            }
            EngineEvent::Unhealthy { name, labels } => {
                self.send_to(&labels, Message::Unhealthy(name));
            }
            EngineEvent::PauseChanged {
                name,
                labels,
                paused,
            } => self.send_to(&labels, Message::PauseChanged { name, paused }),
            EngineEvent::NetworkLeft { container } => {
                let sandboxes = &self.inner.context.sandboxes;
                if self.serves_in(&container) || sandboxes.has_id(&container) {
                    self.inner.reconcile.notify_one();
                }
            }
            EngineEvent::NetworkRemoved { name } => {
                let engine = &self.inner.context.engine;
                if name == network_name(&engine.node) && !self.is_stopping() {
                    warn!("another program removed the node's network; it is created again");
                    engine.forget_network();
                    self.inner.reconcile.notify_one();
                }
            }
            EngineEvent::Connected | EngineEvent::Disconnected => {}
        }
    }
}
