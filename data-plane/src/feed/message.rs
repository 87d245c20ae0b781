//! The messages of `StreamRoutes`, independent of their encoding, which is in [`super::wire`].

use crate::route::{Cursor, Quarantined, Scope};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// A message from the control plane.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Begin(Begin),
    Chunk(Chunk),
    Commit(Commit),
    Heartbeat {
        head: Head,
    },
    GoAway {
        retry_after: Duration,
    },
    /// Violates the contract; `is_commit` if it was sent as a Commit.
    Malformed {
        is_commit: bool,
        reason: &'static str,
    },
    /// A message kind introduced by a later control plane.
    Unknown,
}

/// Starts a change of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Begin {
    pub(crate) txn: u64,
    pub(crate) cluster: String,
    pub(crate) scope: Scope,
    /// The table that a delta applies to; `None` for a snapshot.
    pub(crate) from: Option<Cursor>,
    pub(crate) to: Cursor,
}

/// A part of a change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) txn: u64,
    pub(crate) part: u32,
    /// Pairs of service uid and encoded route.
    pub(crate) upserts: Vec<(String, Bytes)>,
    /// Service uids.
    pub(crate) removed: Vec<String>,
}

/// Ends a change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Commit {
    pub(crate) txn: u64,
    pub(crate) to: Cursor,
    /// Number of routes in the table after the change.
    pub(crate) count: u64,
}

/// Newest revision of the control plane, without the digest, which heartbeats may omit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) epoch: String,
    pub(crate) revision: i64,
}

/// A reply of the node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// The table at `cursor` serves.
    Ack {
        cursor: Cursor,
        quarantined: Vec<Quarantined>,
    },
    /// The change was refused; the table at `cursor`, if any, keeps serving.
    Nack {
        cursor: Option<Cursor>,
        refusal: ChangeRefusal,
    },
}

/// Reasons to refuse a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeRefusal {
    /// The change arrived incomplete or out of order; a snapshot follows.
    #[error("corrupt: {0}")]
    Corrupt(Arc<str>),
    /// The change is complete but unusable; nothing follows until the head moves.
    #[error("rejected: {0}")]
    Rejected(Arc<str>),
}

impl ChangeRefusal {
    pub(crate) fn corrupt(reason: impl Into<Arc<str>>) -> Self {
        Self::Corrupt(reason.into())
    }

    pub(crate) fn rejected(reason: impl Into<Arc<str>>) -> Self {
        Self::Rejected(reason.into())
    }
}
