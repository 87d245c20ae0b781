//! What an owner is told: by the pool's handle, by guards, by the route table and by drivers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::instance::guard::Guard;
use crate::instance::phases::Spent;
use crate::instance::pool::Refusal;
use crate::instance::report::{FailureReason, StartFailure};
use crate::instance::start::Started;
use crate::instance::trouble::Cause;
use crate::route::{Settings, Version};
use crate::runtime::Container;
use crate::scale::decide::Standing;

/// What the owner is told.
#[derive(Debug)]
pub(in crate::instance) enum Message {
    /// A request wants a place.
    Wait(Waiter),
    /// A request that waited went away, or its time is up.
    GaveUp,
    /// A place became free while somebody waits.
    Freed,
    /// The last request left a draining instance.
    Emptied(u64),
    /// The route table has the version, with this.
    Member(Membership),
    /// The route table does not have it any more: `Left` or `Deleted`.
    Left(Standing),
    /// A driver's finding about an instance.
    Progress(u64, Progress),
    /// Requests to an instance failed, a few in a row.
    Suspected(u64),
    /// A container's HEALTHCHECK fails, by its name.
    Unhealthy(String),
    /// A container's process ended, by its name.
    Died(String),
    /// The sandbox of the container of this name has ended: nobody reaches it any more.
    NetworkLost(String),
    /// A container of an earlier process is to be taken over.
    Adopt(Box<Container>, SocketAddr),
    /// The node stops. Answered when nothing is left to do.
    Stop {
        /// Leave the containers running, for the next process to adopt.
        keep: bool,
        /// Answered by being dropped.
        done: oneshot::Sender<()>,
    },
}

/// A request in the queue.
#[derive(Debug)]
pub(in crate::instance) struct Waiter {
    pub(in crate::instance) reply: oneshot::Sender<Result<Guard, Refusal>>,
}

/// What the route table says of the version.
#[derive(Debug, Clone)]
pub(in crate::instance) struct Membership {
    pub(in crate::instance) standing: Standing,
    pub(in crate::instance) version: Arc<Version>,
    pub(in crate::instance) settings: Arc<Settings>,
}

/// A driver's finding.
#[derive(Debug)]
pub(in crate::instance) enum Progress {
    /// A line of a pull; `None` when it is over.
    Pulling(Option<String>),
    /// The image was pulled.
    Pulled,
    /// The digest of the image that it runs, or will.
    Resolved(Arc<str>),
    /// The engine's id of the container.
    Created(String),
    Started,
    Answered(Box<Started>),
    Failed(Box<StartFailure>, Cause),
    /// Where the time of a start went that is about to fail so.
    Spent(FailureReason, Box<Spent>),
    /// Why it ended while it served.
    Explained(Box<StartFailure>),
    /// With what the engine took for it.
    Paused(Duration),
    /// The engine is away, and it was not frozen.
    Awake,
    /// With what the engine took for it.
    Resumed(Duration),
    /// It could not be frozen, or not thawed.
    Stuck(Box<StartFailure>),
    /// It did not answer when it was looked at.
    Deaf(Box<StartFailure>),
    Removed,
}
