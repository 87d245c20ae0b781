//! The epochs that this process has left, and how far it had come in each. Pure.
//!
//! Epochs have no order: a replica that cannot read the database goes on in the epoch before a restore,
//! and offers its table to a node that has come from there. The law is that revisions never go back
//! within an epoch, also when another was served in between; going on in it is allowed, as when a
//! restored backup is given up for the original.

use crate::route::{Cursor, Table};
use std::collections::VecDeque;

/// A restore is rare, and a replica that lags that many of them is not worth a list that grows.
const MOST: usize = 16;

/// Epoch and the highest revision that served in it, the newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epochs(VecDeque<(String, i64)>);

impl Epochs {
    /// `to` takes the place of `table`.
    pub(crate) fn leave(&mut self, table: &Table, to: &Cursor) {
        let at = table.cursor();
        if table.is_initial() || at.epoch == to.epoch {
            return;
        }
        self.0.retain(|(epoch, _)| *epoch != at.epoch);
        self.0.push_back((at.epoch.clone(), at.revision));
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// The revision that has served in this epoch and is newer than `to`.
    pub(crate) fn newer_than(&self, to: &Cursor) -> Option<i64> {
        let mut left = self.0.iter();
        let (_, revision) = left.find(|(epoch, _)| *epoch == to.epoch)?;
        (to.revision < *revision).then_some(*revision)
    }
}
