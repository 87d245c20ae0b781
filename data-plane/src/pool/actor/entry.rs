//! An instance as its pool's actor knows it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::instance::Instance;
use crate::instance::state::State;
use crate::lifecycle::event::EventSender;

pub(super) struct InstanceEntry {
    pub(super) instance: Arc<Instance>,
    pub(super) state: State,
    /// For the tasks that work on its container.
    pub(super) events: EventSender,
    /// The first 12 characters of the engine's id; empty until the container exists.
    pub(super) container_id: String,
    pub(super) created_at: SystemTime,
    /// The digest of its image; `None` until it is known.
    pub(super) digest: Option<Arc<str>>,
    /// The task that works on its container.
    pub(super) task: Option<JoinHandle<()>>,
    /// When it became ready; `None` before, and for an adopted instance.
    pub(super) ready_at: Option<Instant>,
    /// The engine's outages until it became ready.
    pub(super) outages: u64,
    /// Whether it was started for a verification while no request waited.
    pub(super) for_verification: bool,
    /// Cancels its start or adoption.
    pub(super) cancel: CancellationToken,
    /// Notifies its start or adoption of the container's death.
    pub(super) died: CancellationToken,
}

impl InstanceEntry {
    pub(super) fn new(instance: Arc<Instance>, state: State, events: EventSender) -> Self {
        Self {
            instance,
            state,
            events,
            container_id: String::new(),
            created_at: SystemTime::now(),
            digest: None,
            task: None,
            ready_at: None,
            outages: 0,
            for_verification: false,
            cancel: CancellationToken::new(),
            died: CancellationToken::new(),
        }
    }

    pub(super) fn set_container_id(&mut self, id: &str) {
        self.container_id = id.chars().take(12).collect();
    }
}
