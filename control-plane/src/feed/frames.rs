//! A change of the table, cut into frames.
//!
//! Routes travel as the bytes they were stored as: a frame shares them with the table and with all
//! other streams, and is encoded when the transport takes it. So what a stream holds while it
//! sends is pointers; and it is given up after `STALL_LIMIT` without progress.

use crate::domain::Uid;
use crate::feed::Cursor;
use crate::feed::table::{Change, EncodedRoute};
use std::sync::Arc;

/// A proxy reassembles chunks of at most this many bytes of routes, and uids.
const CHUNK_BYTES: usize = 64 * 1024;
/// What a route's tags, lengths and uid add around its bytes, at most.
const FRAMING: usize = 64;

/// One message of a change.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    /// Opens a change; `from` is absent for a snapshot.
    Begin {
        txn: u64,
        cluster: Arc<str>,
        from: Option<Cursor>,
        to: Cursor,
    },
    /// Part of it.
    Chunk {
        txn: u64,
        part: u32,
        upserts: Vec<Arc<EncodedRoute>>,
        removed: Vec<Uid>,
    },
    /// Closes it; `count` routes are in the table then.
    Commit { txn: u64, to: Cursor, count: u64 },
}

/// The frames of a change, in the order they are sent.
pub(crate) fn frames(txn: u64, change: Change) -> impl Iterator<Item = Frame> {
    let begin = Frame::Begin {
        txn,
        cluster: change.cluster,
        from: change.from,
        to: change.to.clone(),
    };
    let commit = Frame::Commit {
        txn,
        to: change.to,
        count: change.count,
    };
    let mut chunks = Vec::new();
    let mut chunk = Chunk::default();
    for route in change.upserts {
        chunk = chunk.with_room_for(route.bytes.len() + FRAMING, &mut chunks);
        chunk.upserts.push(route);
    }
    for uid in change.removed {
        chunk = chunk.with_room_for(FRAMING, &mut chunks);
        chunk.removed.push(uid);
    }
    if chunk.bytes > 0 {
        chunks.push(chunk);
    }
    let chunks = (0u32..).zip(chunks).map(move |(part, chunk)| Frame::Chunk {
        txn,
        part,
        upserts: chunk.upserts,
        removed: chunk.removed,
    });
    std::iter::once(begin)
        .chain(chunks)
        .chain(std::iter::once(commit))
}

#[derive(Default)]
struct Chunk {
    bytes: usize,
    upserts: Vec<Arc<EncodedRoute>>,
    removed: Vec<Uid>,
}

impl Chunk {
    /// This chunk, or a new one if `size` bytes more would make it too large.
    fn with_room_for(mut self, size: usize, full: &mut Vec<Self>) -> Self {
        if self.bytes > 0 && self.bytes + size > CHUNK_BYTES {
            full.push(std::mem::take(&mut self));
        }
        self.bytes += size;
        self
    }
}
