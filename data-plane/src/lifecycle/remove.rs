//! Removal of a container, repeated until the engine has done it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::warn;

use super::event::{EventSender, TaskEvent};
use super::failure;
use crate::engine::context::EngineContext;
use crate::engine::sandbox::Sandboxes;
use crate::engine::{confirmed_calls, error_class};
use crate::runtime::ContainerState;

/// Delay after the first failed removal; doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The steps of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Stop the container, kill it after this grace, then remove it.
    Stop(Duration),
    /// Remove a container that has ended or never ran.
    Remove,
    /// Report why the container ended while it served, then remove it.
    Explain,
}

pub(crate) struct RemoveTask {
    pub(crate) engine: Arc<EngineContext>,
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) events: EventSender,
    pub(crate) name: String,
    pub(crate) removal: Removal,
    /// The task before this one. It must end first: a container whose creation is in progress would
    /// appear after its removal.
    pub(crate) previous: Option<JoinHandle<()>>,
}

impl RemoveTask {
    /// Removes the container, then its sandbox, and reports that.
    pub(crate) async fn run(mut self) {
        if let Some(previous) = self.previous.take() {
            let _ = previous.await;
        }
        if self.removal == Removal::Explain {
            self.explain().await;
        }
        self.remove_container().await;
        // Before the sandbox's address is free for another container.
        self.engine.isolation.revoke(&self.name).await;
        // Before the report: a shutdown must not end while the sandbox exists.
        self.sandboxes.release(&self.name).await;
        self.events.send(TaskEvent::Removed);
    }

    async fn explain(&self) {
        let runtime = &*self.engine.runtime;
        let failure = match runtime.inspect(&self.name).await {
            Ok(found) if found.state != ContainerState::Exited && found.sandbox.is_some() => {
                failure::network_lost("while it served")
            }
            Ok(found) if found.state == ContainerState::Running => {
                failure::disconnected("while it served")
            }
            found => {
                let exit = found.map_or(failure::UNKNOWN_EXIT, |found| found.exit);
                failure::exited(runtime, &self.name, exit, "while it served").await
            }
        };
        self.events.send(TaskEvent::Exited(Box::new(failure)));
    }

    async fn remove_container(&self) {
        let (engine, name) = (&*self.engine, &self.name);
        let mut stop_grace = match self.removal {
            Removal::Stop(grace) => Some(grace),
            Removal::Remove | Removal::Explain => None,
        };
        let mut retry = RETRY_FIRST;
        loop {
            if let Some(grace) = stop_grace {
                let stopped = confirmed_calls::stop(engine, name, grace).await;
                if !stopped.is_err_and(|error| error_class::is_unreachable(&error)) {
                    stop_grace = None;
                }
            }
            let Err(error) = confirmed_calls::remove(engine, name).await else {
                return;
            };
            warn!(container = name, %error, "cannot remove a container, trying again");
            tokio::time::sleep(retry).await;
            engine.available().await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }
}
