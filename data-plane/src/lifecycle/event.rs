//! Events that a task reports of its instance.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::phases::FailedPhases;
use crate::engine::error_class::Cause;
use crate::report::{ColdStart, FailureReason, StartFailure};

#[derive(Debug)]
pub(crate) enum TaskEvent {
    /// The progress of a pull, as text for people; `None` when it is over.
    Pulling(Option<String>),
    Pulled,
    /// The port that the container is told to listen on.
    Port(u16),
    /// The digest of the image that the instance will run.
    Runs(Arc<str>),
    /// A pull or a start of the image with this digest succeeded; the phases of the start.
    DigestConfirmed(Arc<str>, Option<Box<ColdStart>>),
    /// A doubt about the image of the version, as text for people; `None` if there is none.
    ImageWarning(Option<String>),
    /// The container exists; its engine id.
    Created(String),
    Started,
    Answered(Box<Started>),
    /// The engine reported a failed start of a container that answers.
    StartUnconfirmed,
    Failed(Box<StartFailure>, Cause),
    /// The phases of a start; a [`TaskEvent::Failed`] of the same reason follows.
    FailedPhases(FailureReason, Box<FailedPhases>),
    /// The reason why the container ended while it served.
    Exited(Box<StartFailure>),
    /// The container is paused; the duration of the engine's call.
    Paused(Duration),
    /// The container was not paused, because the engine was unavailable.
    PauseSkipped,
    /// The container is resumed; the duration of the engine's call.
    Resumed(Duration),
    /// The engine could not pause or resume the container.
    PauseFailed(Box<StartFailure>),
    Unresponsive(Box<StartFailure>),
    /// Another program had paused the container; it is resumed.
    Thawed(Box<StartFailure>),
    /// Another program resumed the container, which the node had paused.
    RunsAgain,
    Removed,
}

/// A container that became ready.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) address: SocketAddr,
    /// `None` for an adopted container.
    pub(crate) cold_start: Option<ColdStart>,
}

/// Reports the events of one instance. Cheap to clone.
///
/// Events of all instances of a pool arrive in the order in which they were sent, in one queue with
/// the pool's other messages.
#[derive(Clone)]
pub(crate) struct EventSender {
    serial: u64,
    sink: Arc<dyn Fn(u64, TaskEvent) + Send + Sync>,
}

impl EventSender {
    pub(crate) fn new(serial: u64, sink: impl Fn(u64, TaskEvent) + Send + Sync + 'static) -> Self {
        let sink = Arc::new(sink);
        Self { serial, sink }
    }

    pub(crate) fn send(&self, event: TaskEvent) {
        (self.sink)(self.serial, event);
    }
}
