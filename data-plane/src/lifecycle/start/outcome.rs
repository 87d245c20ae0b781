//! Results of the steps of a start.

use std::net::SocketAddr;

use futures_util::future::BoxFuture;

use crate::engine::error_class::Cause;
use crate::report::StartFailure;
use crate::runtime::Error;

pub(super) enum StartAbort {
    Cancelled,
    /// The network sandbox, or the node's network, cannot be used, for this reason.
    NetworkUnusable(String),
    Failed(StartFailure, Cause),
}

impl From<StartFailure> for StartAbort {
    fn from(failure: StartFailure) -> Self {
        Self::Failed(failure, Cause::Version)
    }
}

pub(super) struct Launched<'a> {
    pub(super) address: SocketAddr,
    /// The engine's start call, if the container answered before the engine did.
    pub(super) pending: Option<PendingStart<'a>>,
}

/// A start call in progress; it holds its permit until its end.
pub(super) type PendingStart<'a> = BoxFuture<'a, Result<(), Error>>;
