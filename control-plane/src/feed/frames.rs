//! A change of the table, cut into frames.
//!
//! A frame shares the stored bytes of its routes with the table. All streams that send the same
//! change share its frames ([`PublishedTable`](super::published::PublishedTable)). A frame is
//! encoded when the transport takes it, so a sending stream holds only pointers to its remaining
//! frames. The stream ends after `STALL_LIMIT` without progress.

use crate::domain::Uid;
use crate::feed::Cursor;
use crate::feed::table::{EncodedRoute, TableChange};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of routes and uids in a chunk, unless a single route is larger. Every sending stream holds
/// a few chunks, so this bounds the memory of many streams.
const CHUNK_BYTES: usize = 16 * 1024;
/// Upper bound of the encoding overhead of a route: field tags, lengths and uid.
const ROUTE_OVERHEAD: usize = 64;

/// One message of a change, without the transaction number, which belongs to the stream.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Starts a change. `from` is `None` for a snapshot.
    Begin {
        cluster: Arc<str>,
        from: Option<Cursor>,
        to: Cursor,
    },
    /// A part of the change.
    Chunk {
        part: u32,
        upserts: Vec<Arc<EncodedRoute>>,
        removed: Vec<Uid>,
    },
    /// Ends the change. `count` is the number of routes in the table after it.
    Commit { to: Cursor, count: u64 },
}

/// The frames of a change in sending order. Clones share the frames; iteration drops each frame.
#[derive(Debug, Clone)]
pub(crate) struct Frames(VecDeque<Arc<Frame>>);

impl Frames {
    pub(crate) fn new(change: TableChange) -> Self {
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
        let mut chunk = ChunkBuilder::default();
        for route in change.upserts {
            chunk = chunk.with_room_for(route.bytes.len() + ROUTE_OVERHEAD, &mut chunks);
            chunk.upserts.push(route);
        }
        for uid in change.removed {
            chunk = chunk.with_room_for(ROUTE_OVERHEAD, &mut chunks);
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
struct ChunkBuilder {
    bytes: usize,
    upserts: Vec<Arc<EncodedRoute>>,
    removed: Vec<Uid>,
}

impl ChunkBuilder {
    /// Returns this chunk, or an empty one if `size` more bytes would exceed the limit.
    fn with_room_for(mut self, size: usize, full: &mut Vec<Self>) -> Self {
        if self.bytes > 0 && self.bytes + size > CHUNK_BYTES {
            full.push(std::mem::take(&mut self));
        }
        self.bytes += size;
        self
    }
}
