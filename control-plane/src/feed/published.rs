//! A published table with a cache of the changes that streams requested.
//!
//! All nodes at one cursor need the same change to the head. The first stream that requests it
//! computes and cuts it; the others share the frames.
//!
//! Invariants: every cached change leads to this table and is dropped with it. The cache holds at
//! most [`CACHED_CHANGES_MAX`] changes, whatever cursors nodes claim to have.

use crate::feed::Cursor;
use crate::feed::frames::Frames;
use crate::feed::table::Table;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Nodes that keep up are one or two tables behind; nodes that connect need a snapshot.
const CACHED_CHANGES_MAX: usize = 8;

/// A table and the cached changes that lead to it.
#[derive(Debug)]
pub(crate) struct PublishedTable {
    pub(crate) table: Table,
    /// Frames by start cursor, oldest first. `None` is the snapshot.
    cached: Mutex<VecDeque<(Option<Cursor>, Frames)>>,
}

impl PublishedTable {
    pub(crate) fn new(table: Table) -> Self {
        Self {
            table,
            cached: Mutex::default(),
        }
    }

    /// The frames of the whole table.
    pub(crate) fn snapshot(&self) -> Frames {
        self.frames(None)
    }

    /// The frames of the change from `from`; a snapshot if the history does not reach back to it.
    pub(crate) fn delta(&self, from: &Cursor) -> Frames {
        self.frames(Some(from))
    }

    fn frames(&self, from: Option<&Cursor>) -> Frames {
        // Held during the computation, so that concurrent streams share its result.
        let mut cached = self.cached.lock();
        if let Some((_, frames)) = cached.iter().find(|(start, _)| start.as_ref() == from) {
            return frames.clone();
        }
        let delta = from.and_then(|from| self.table.delta(from));
        let frames = Frames::new(delta.unwrap_or_else(|| self.table.snapshot()));
        if cached.len() == CACHED_CHANGES_MAX {
            cached.pop_front();
        }
        cached.push_back((from.cloned(), frames.clone()));
        frames
    }
}

#[cfg(test)]
mod tests;
