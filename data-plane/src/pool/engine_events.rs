//! Following the engine: its events, whether it answers, and when its containers are compared with the
//! pools.
//!
//! A sweep comes at every connection to the engine's events, at their end, when a call got no answer,
//! and from time to time in any case; so it is also what finds out that the engine is back.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tracing::{debug, info, warn};

use super::Pools;
use crate::instance::owner::Message;
use crate::runtime::{Container, Error, Event};

/// How often containers are compared with pools, besides at every (re)connection to the engine.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How soon after a sweep that failed the next is tried.
const SWEEP_RETRY: Duration = Duration::from_secs(1);

impl Pools {
    /// Follows the engine's events and sweeps, until the node stops. Never returns an error: an
    /// engine that is away is waited for.
    pub async fn follow_engine(self) {
        let engine = &self.inner.around.engine;
        let mut events = engine.runtime.events(&engine.node);
        let mut outage = engine.outage.subscribe();
        let mut lost = false;
        let mut next_sweep = Duration::ZERO;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Connected) => {
                        if std::mem::take(&mut lost) {
                            engine.forget_network();
                        }
                    }
                    // Asks whether it is the engine that is gone.
                    Some(Event::Disconnected) => lost = true,
                    Some(Event::Died { name, labels }) => {
                        self.died(name, &labels);
                        continue;
                    }
                    Some(Event::Unhealthy { name, labels }) => {
                        self.tell(&labels, Message::Unhealthy(name));
                        continue;
                    }
                    None => return,
                },
                () = self.inner.sweep.notified() => {}
                // Somebody got no answer. Its sender is in `engine`.
                Ok(_) = outage.changed() => {}
                () = tokio::time::sleep(next_sweep) => {}
            }
            next_sweep = match self.sweep_and_follow(&mut events).await {
                Ok(()) => SWEEP_EVERY,
                Err(error) => {
                    debug!(%error, "the engine's containers cannot be compared now");
                    SWEEP_RETRY
                }
            };
            outage.mark_unchanged();
        }
    }

    /// Sweeps, which may take long, and tells of deaths meanwhile.
    async fn sweep_and_follow(&self, events: &mut BoxStream<'static, Event>) -> Result<(), Error> {
        let sweep = self.sweep();
        tokio::pin!(sweep);
        loop {
            tokio::select! {
                biased;
                swept = &mut sweep => return swept,
                Some(event) = events.next() => match event {
                    Event::Died { name, labels } => self.died(name, &labels),
                    Event::Unhealthy { name, labels } => {
                        self.tell(&labels, Message::Unhealthy(name));
                    }
                    // What came before it may have been missed by the sweep under way.
                    Event::Connected | Event::Disconnected => self.inner.sweep.notify_one(),
                },
            }
        }
    }

    /// What the engine is and what it holds; whether it answers is noted.
    pub(super) async fn ask_engine(&self) -> Result<(String, Vec<Container>), Error> {
        let engine = &self.inner.around.engine;
        let named = engine.runtime.engine().await?;
        self.compare_runtimes(&engine.runtime.runtimes().await?);
        Ok((named, engine.runtime.list(&engine.node).await?))
    }

    pub(super) fn set_engine(&self, found: Result<String, String>) {
        let mut engine = self.inner.engine.lock();
        if *engine != found {
            match &found {
                Ok(name) => info!(engine = name, "the engine answers"),
                Err(error) => warn!(
                    error,
                    "the engine does not answer; what runs goes on serving"
                ),
            }
            *engine = found;
            self.inner.around.changed.send_modify(|count| *count += 1);
        }
    }
}
