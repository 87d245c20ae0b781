//! The mailbox of a pool's actor.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::refusal::Refusal;
use crate::engine::start_limiter::Caller;
use crate::instance::Instance;
use crate::lifecycle::event::TaskEvent;
use crate::route::{Settings, Version};
use crate::runtime::Container;
use crate::scale::decide::VersionStatus;

#[derive(Debug)]
pub(super) enum Message {
    Wait(Waiter),
    /// A waiter has disconnected or timed out.
    WaiterGone,
    /// A slot became free while requests wait.
    SlotFreed,
    /// The last request left a draining instance.
    Emptied(u64),
    /// The version as the route table has it.
    Routed(RouteMembership),
    /// The version has left the route table; `Left` or `Deleted`.
    Unrouted(VersionStatus),
    /// An event of the task that works on an instance.
    Task(u64, TaskEvent),
    /// Several requests to an instance failed in a row.
    CheckHealth(u64),
    /// An instance sent a malformed response, described for a person.
    Malformed(String),
    /// The HEALTHCHECK of the container of this name fails.
    Unhealthy(String),
    /// The process of the container of this name ended.
    Died {
        name: String,
        /// `None` if it is unknown.
        exit_code: Option<i32>,
    },
    /// The container of this name was paused or resumed, perhaps by another program.
    PauseChanged {
        name: String,
        paused: bool,
    },
    /// The container of this name has no network any more: its sandbox ended, or another program
    /// disconnected it.
    NetworkLost(String),
    /// Adopt a container of an earlier process.
    Adopt(Box<Container>, SocketAddr),
    Stop {
        /// Leave ready containers running, for the next process to adopt.
        keep: bool,
        /// Dropped when the pool has ended.
        done: oneshot::Sender<()>,
    },
}

#[derive(Debug)]
pub(super) struct Waiter {
    /// An instance in the reply has been entered: its receiver owns the slot.
    pub(super) reply: oneshot::Sender<Result<Arc<Instance>, Refusal>>,
    /// Makes the starts that it waits for urgent.
    pub(super) _caller: Caller,
}

/// A version as the route table has it.
#[derive(Debug, Clone)]
pub(super) struct RouteMembership {
    pub(super) status: VersionStatus,
    pub(super) version: Arc<Version>,
    pub(super) settings: Arc<Settings>,
}
