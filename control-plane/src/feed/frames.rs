//! A change of the table, cut into frames.
//!
//! Routes travel as the bytes they were stored as: a frame shares them with the table, and is itself
//! shared by all streams that send the same change ([`Published`](super::published::Published)). It is
//! encoded when the transport takes it. So what a stream holds while it sends is pointers to the frames
//! it has yet to send; and it is given up after `STALL_LIMIT` without progress.

use crate::domain::Uid;
use crate::feed::Cursor;
use crate::feed::table::{Change, EncodedRoute};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of routes and uids in a chunk, unless one route has more. Each stream that sends holds some chunks,
/// so this bounds the memory of many.
const CHUNK_BYTES: usize = 16 * 1024;
/// What a route's tags, lengths and uid add around its bytes, at most.
const FRAMING: usize = 64;

/// One message of a change; the number of the transaction is the stream's own.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Opens a change; `from` is absent for a snapshot.
    Begin {
        cluster: Arc<str>,
        from: Option<Cursor>,
        to: Cursor,
    },
    /// Part of it.
    Chunk {
        part: u32,
        upserts: Vec<Arc<EncodedRoute>>,
        removed: Vec<Uid>,
    },
    /// Closes it; `count` routes are in the table then.
    Commit { to: Cursor, count: u64 },
}

/// The frames of a change, in the order they are sent. A clone shares each of them; one that was taken
/// out is no longer held.
#[derive(Debug, Clone)]
pub(crate) struct Frames(VecDeque<Arc<Frame>>);

impl Frames {
    /// Cuts a change.
    pub(crate) fn of(change: Change) -> Self {
        let begin = Frame::Begin {
            cluster: change.cluster,
            from: change.from,
            to: change.to.clone(),
        };
        let commit = Frame::Commit {
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
        let chunks = (0u32..).zip(chunks).map(|(part, chunk)| Frame::Chunk {
            part,
            upserts: chunk.upserts,
            removed: chunk.removed,
        });
        let all = std::iter::once(begin).chain(chunks).chain([commit]);
        Self(all.map(Arc::new).collect())
    }
}

impl Iterator for Frames {
    type Item = Arc<Frame>;

    fn next(&mut self) -> Option<Arc<Frame>> {
        self.0.pop_front()
    }
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
