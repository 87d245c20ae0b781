//! The epochs that this process has left, with the highest revision served in each. Pure.
//!
//! Epochs have no order. A replica that cannot read the database stays in the epoch before a
//! restore, and offers its table to a node that has already moved on. Law: revisions never decrease
//! within an epoch, even when another epoch was served in between. Returning to an epoch is
//! allowed, as when a restored backup is discarded for the original database.

use crate::route::{Cursor, Table};
use std::collections::VecDeque;

/// Bounds the list. Restores are rare, and a replica lagging by more of them need not be detected.
const MAX_EPOCHS: usize = 16;

/// Pairs of epoch and highest revision served in it; the newest is last.
#[derive(Clone, Debug, Default)]
pub(crate) struct PastEpochs(VecDeque<(String, i64)>);

impl PastEpochs {
    /// Records the epoch of `table` if `to`, which replaces it, has another one.
    pub(crate) fn record(&mut self, table: &Table, to: &Cursor) {
        let at = table.cursor();
        if table.is_initial() || at.epoch == to.epoch {
            return;
        }
        self.0.retain(|(epoch, _)| *epoch != at.epoch);
        self.0.push_back((at.epoch.clone(), at.revision));
        if self.0.len() > MAX_EPOCHS {
            self.0.pop_front();
        }
    }

    /// The revision served in the epoch of `to`, if it is newer than `to`.
    pub(crate) fn newer_than(&self, to: &Cursor) -> Option<i64> {
        let mut left = self.0.iter();
        let (_, revision) = left.find(|(epoch, _)| *epoch == to.epoch)?;
        (to.revision < *revision).then_some(*revision)
    }
}
