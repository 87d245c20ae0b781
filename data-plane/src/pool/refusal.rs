//! The reason why a request gets no slot.

use std::time::Duration;

/// The reason why a request gets no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue is full.
    #[error("too many requests wait for this version")]
    QueueFull,
    /// The client wakes as many versions as it may at a time.
    #[error("this client wakes too many sleeping versions at a time")]
    TooManyWakes,
    /// The start that it waited for failed.
    #[error("the version failed to start")]
    StartFailed {
        /// Time until the next start.
        retry_after: Duration,
    },
    /// The version is in crash back-off: no start is tried now.
    #[error("the version fails to start and is not tried again yet")]
    BackingOff {
        /// Time until the next start.
        retry_after: Duration,
    },
    /// The engine has not answered for a while, and no instance is ready.
    #[error("the node cannot start an instance now")]
    EngineUnavailable {
        /// When a retry is sensible.
        retry_after: Duration,
    },
    /// No slot became free in time.
    #[error("no instance became free in time")]
    TimedOut,
    /// The version is deleted: route the request again.
    #[error("the version is gone")]
    Gone,
    /// The node is stopping.
    #[error("the node is stopping")]
    ShuttingDown,
}
