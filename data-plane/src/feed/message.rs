//! The messages of `StreamRoutes`, without their encoding. [`super::wire`] makes and unmakes them.

use crate::route::{Cursor, Quarantined, Scope};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// What the control plane says.
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
    /// Does not say what the contract asks of it; `closes` if it stood for a Commit.
    Garbled {
        closes: bool,
        reason: &'static str,
    },
    /// A kind of message that a later control plane may send.
    Unknown,
}

/// Opens a change of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Begin {
    pub(crate) txn: u64,
    pub(crate) cluster: String,
    pub(crate) scope: Scope,
    /// What a delta applies to.
    pub(crate) from: Option<Cursor>,
    pub(crate) to: Cursor,
}

/// Part of a change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) txn: u64,
    pub(crate) part: u32,
    /// Service uid, and the route's bytes.
    pub(crate) upserts: Vec<(String, Bytes)>,
    /// Service uids.
    pub(crate) removed: Vec<String>,
}

/// Closes a change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Commit {
    pub(crate) txn: u64,
    pub(crate) to: Cursor,
    /// Routes in the table after the change.
    pub(crate) count: u64,
}

/// The plane's newest revision; without a digest, which a heartbeat need not carry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) epoch: String,
    pub(crate) revision: i64,
}

/// What the node answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// The table at `cursor` serves.
    Ack {
        cursor: Cursor,
        quarantined: Vec<Quarantined>,
    },
    /// A change was refused; the table at `cursor`, if any, goes on serving.
    Nack {
        cursor: Option<Cursor>,
        refusal: Refusal,
    },
}

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It did not arrive whole and in order; a snapshot follows.
    #[error("corrupt: {0}")]
    Corrupt(Arc<str>),
    /// It arrived whole but cannot be used; nothing follows until the head moves.
    #[error("rejected: {0}")]
    Rejected(Arc<str>),
}

impl Refusal {
    pub(crate) fn corrupt(reason: impl Into<Arc<str>>) -> Self {
        Self::Corrupt(reason.into())
    }

    pub(crate) fn rejected(reason: impl Into<Arc<str>>) -> Self {
        Self::Rejected(reason.into())
    }
}
