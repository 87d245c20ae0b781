//! A table as it is published, with the changes to it that streams have asked for.
//!
//! All proxies that are at one point need the same change to the head: it is computed and cut by the
//! first stream that asks, and shared by the rest.
//!
//! Invariants: what is kept leads to this table and goes with it, so nothing old is kept for the sake of
//! a later stream; and it is at most [`KEPT_MOST`] changes, whatever proxies say they have.

use crate::feed::Cursor;
use crate::feed::frames::Frames;
use crate::feed::table::Table;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Proxies that keep up are at the head before, or the one before that; those that connect have nothing.
const KEPT_MOST: usize = 8;

/// A table and the changes that lead to it.
#[derive(Debug)]
pub(crate) struct Published {
    /// The table.
    pub(crate) table: Table,
    /// By where they start: nothing, for a snapshot. Oldest first.
    kept: Mutex<VecDeque<(Option<Cursor>, Frames)>>,
}

impl Published {
    /// A table that no stream has asked for yet.
    pub(crate) fn new(table: Table) -> Self {
        Self {
            table,
            kept: Mutex::default(),
        }
    }

    /// Everything.
    pub(crate) fn snapshot(&self) -> Frames {
        self.frames(None)
    }

    /// What changed since `from`; everything, if the history does not reach back to it.
    pub(crate) fn delta(&self, from: &Cursor) -> Frames {
        self.frames(Some(from))
    }

    fn frames(&self, from: Option<&Cursor>) -> Frames {
        // Held while it is computed: those that come meanwhile want the same.
        let mut kept = self.kept.lock();
        if let Some((_, frames)) = kept.iter().find(|(start, _)| start.as_ref() == from) {
            return frames.clone();
        }
        let delta = from.and_then(|from| self.table.delta(from));
        let frames = Frames::of(delta.unwrap_or_else(|| self.table.snapshot()));
        if kept.len() == KEPT_MOST {
            kept.pop_front();
        }
        kept.push_back((from.cloned(), frames.clone()));
        frames
    }
}

#[cfg(test)]
mod tests;
