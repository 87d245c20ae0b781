//! The revision that a rollback goes back to. PURE.
//!
//! The traffic history is replayed as a stack of splits, compared by their percents:
//!
//! ```text
//! set, other percents     push
//! set, same percents      the top is replaced: a repeated set or a change of tags is no step
//! rollback to N           pop down to the entry of N; if it was popped before: pop the top, push
//! ```
//!
//! A rollback without a target goes to the entry below the top. Laws: it always changes the
//! percents; repeated, it goes further back and never to what a rollback has left; after a set it
//! returns to what was in force before that set. An entry without percents is no target, because no
//! rollback stops a service.
//!
//! Memory is linear in the number of revisions, with a few bytes for each.

use std::collections::BTreeMap;

use serde::Serialize;

use super::id::{Percent, VersionNumber};
use super::traffic::TrafficSplit;

/// The target of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RollbackTo {
    /// The entry below the top.
    Previous,
    /// The traffic revision of this number.
    Revision(i32),
    /// All traffic to one version.
    Version(VersionNumber),
}

/// A revision of the traffic history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRevision {
    /// Counts 1, 2, 3 per service.
    pub number: i32,
    /// The percents, by ascending version.
    pub weights: Vec<(VersionNumber, Percent)>,
    /// The revision that a rollback went back to; 0 for a set.
    pub rolled_back_from: i32,
}

impl PastRevision {
    /// A revision with the percents of `split`.
    #[must_use]
    pub fn new(number: i32, split: &TrafficSplit, rolled_back_from: i32) -> Self {
        Self {
            number,
            weights: split.weights().collect(),
            rolled_back_from,
        }
    }
}

/// An entry of the stack: consecutive revisions with the same percents.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The revision that pushed it.
    id: i32,
    /// Its newest revision.
    newest: i32,
    weights: Vec<(VersionNumber, Percent)>,
}

/// The replayed history of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Bottom first; ids ascend and neighbours differ in percents.
    stack: Vec<Entry>,
    /// The id of the entry of each revision, at the index `number - 1`.
    entries: Vec<i32>,
    /// The newest revision in which each version had a share.
    shares: BTreeMap<VersionNumber, i32>,
}

impl History {
    /// The number of the newest replayed revision; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> i32 {
        i32::try_from(self.entries.len()).unwrap_or(i32::MAX)
    }

    /// Replays the next revision.
    pub fn push(&mut self, revision: PastRevision) {
        for (version, _) in &revision.weights {
            self.shares.insert(*version, revision.number);
        }
        if revision.rolled_back_from > 0 {
            match self.position(revision.rolled_back_from, &revision.weights) {
                Some(at) => self.stack.truncate(at + 1),
                None if self.is_top(&revision.weights) => {}
                None => {
                    self.stack.pop();
                }
            }
        }
        match self.stack.last_mut() {
            Some(top) if top.weights == revision.weights => top.newest = revision.number,
            _ => self.stack.push(Entry {
                id: revision.number,
                newest: revision.number,
                weights: revision.weights,
            }),
        }
        let id = self.stack.last().map_or(0, |top| top.id);
        self.entries.push(id);
    }

    fn is_top(&self, weights: &[(VersionNumber, Percent)]) -> bool {
        self.stack.last().is_some_and(|top| top.weights == weights)
    }

    /// The entry of a revision in the stack, if it is there and has these percents.
    fn position(&self, number: i32, weights: &[(VersionNumber, Percent)]) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        let id = *self.entries.get(index)?;
        let at = self
            .stack
            .binary_search_by_key(&id, |entry| entry.id)
            .ok()?;
        self.stack
            .get(at)
            .is_some_and(|entry| entry.weights == weights)
            .then_some(at)
    }

    /// The revision that a rollback without a target copies; `None` if there is none.
    #[must_use]
    pub fn previous(&self) -> Option<i32> {
        let (top, below) = self.stack.split_last()?;
        below
            .iter()
            .rev()
            .find(|entry| !entry.weights.is_empty() && entry.weights != top.weights)
            .map(|entry| entry.newest)
    }

    /// The revision that a rollback of all traffic to `version` goes back to: the newest in the
    /// stack with these percents, else the newest in which the version had a share, else the newest.
    #[must_use]
    pub fn of_version(&self, version: VersionNumber) -> i32 {
        self.stack
            .iter()
            .rev()
            .find(|entry| entry.weights == [(version, Percent::ALL)])
            .map(|entry| entry.newest)
            .or_else(|| self.shares.get(&version).copied())
            .unwrap_or_else(|| self.newest())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::traffic::tests::{any_split, number, split};
    use super::*;

    /// A service under sets and rollbacks, with the stack as one would keep it by hand.
    #[derive(Default)]
    struct Service {
        history: History,
        splits: Vec<TrafficSplit>,
    }

    impl Service {
        fn change(&mut self, split: TrafficSplit, from: i32) -> i32 {
            let number = self.history.newest() + 1;
            self.history.push(PastRevision::new(number, &split, from));
            self.splits.push(split);
            number
        }

        fn set(&mut self, weights: &[(i32, u32)]) -> i32 {
            self.change(split(weights), 0)
        }

        fn copy(&self, revision: i32) -> TrafficSplit {
            self.splits[usize::try_from(revision).unwrap() - 1].clone()
        }

        fn back_to(&mut self, revision: i32) {
            self.change(self.copy(revision), revision);
        }

        /// A press without a target; the revision that it copied.
        fn press(&mut self) -> Option<i32> {
            let to = self.history.previous()?;
            self.back_to(to);
            Some(to)
        }

        fn current(&self) -> TrafficSplit {
            self.splits.last().cloned().unwrap_or_default()
        }
    }

    fn of(weights: &[&[(i32, u32)]]) -> Service {
        let mut service = Service::default();
        for weights in weights {
            service.set(weights);
        }
        service
    }

    const ONE: &[(i32, u32)] = &[(1, 100)];
    const TWO: &[(i32, u32)] = &[(2, 100)];
    const THREE: &[(i32, u32)] = &[(3, 100)];

    #[test]
    fn a_repeated_set_is_no_step() {
        let mut service = of(&[ONE, TWO, TWO, TWO]);
        assert_eq!(service.press(), Some(1));
        assert_eq!(service.current(), split(ONE));
        assert_eq!(service.press(), None, "nothing is further back");
    }

    #[test]
    fn presses_go_further_back_and_never_to_what_they_left() {
        let mut service = of(&[ONE, TWO, THREE]);
        assert_eq!(service.press(), Some(2));
        assert_eq!(service.press(), Some(1));
        assert_eq!(service.press(), None);
        service.set(THREE);
        assert_eq!(
            service.press(),
            Some(5),
            "what was in force before that set"
        );
    }

    #[test]
    fn a_rollback_to_a_revision_drops_those_above_it() {
        let mut service = of(&[ONE, TWO, THREE, ONE, &[(4, 100)]]);
        service.back_to(2);
        assert_eq!(service.press(), Some(1));
        // Revision 3 was left: the rollback to it leaves revision 7 in its turn.
        service.back_to(3);
        assert_eq!(service.press(), None);
    }

    #[test]
    fn no_traffic_is_no_target() {
        let mut service = of(&[&[], ONE]);
        assert_eq!(service.press(), None);
        let mut service = of(&[ONE, &[], TWO, &[]]);
        assert_eq!(service.press(), Some(3));
        assert_eq!(service.press(), Some(1));
    }

    #[test]
    fn a_version_is_found_where_it_had_all_or_some_of_the_traffic() {
        let mut service = of(&[ONE, &[(1, 50), (2, 50)], THREE]);
        assert_eq!(service.history.of_version(number(1)), 1);
        assert_eq!(service.history.of_version(number(2)), 2);
        assert_eq!(service.history.of_version(number(9)), 3);
        let from = service.history.of_version(number(2));
        service.change(split(TWO), from);
        assert_eq!(
            service.press(),
            Some(2),
            "the version with all traffic was new"
        );
    }

    #[derive(Debug, Clone)]
    enum Op {
        Set(TrafficSplit),
        Repeat,
        Press,
        BackTo(usize),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => any_split().prop_map(Op::Set),
            4 => (1..4_i32).prop_map(|v| Op::Set(split(&[(v, 100)]))),
            2 => Just(Op::Repeat),
            4 => Just(Op::Press),
            1 => any::<usize>().prop_map(Op::BackTo),
        ]
    }

    fn weights(split: &TrafficSplit) -> Vec<(VersionNumber, Percent)> {
        split.weights().collect()
    }

    proptest! {
        #[test]
        fn rollbacks_go_back(ops in proptest::collection::vec(any_op(), 0..40)) {
            let mut service = Service::default();
            for op in ops {
                let before = weights(&service.current());
                match op {
                    Op::Set(split) => {
                        let changes = weights(&split) != before && !service.splits.is_empty();
                        service.change(split, 0);
                        let undo = service.history.previous();
                        if changes && !before.is_empty() {
                            let undo = undo.map(|to| weights(&service.copy(to)));
                            prop_assert_eq!(undo, Some(before), "a set is undone by one press");
                        }
                    }
                    Op::Repeat => {
                        let undo = service.history.previous();
                        service.change(service.current(), 0);
                        if service.splits.len() > 1 {
                            prop_assert_eq!(service.history.previous(), undo, "no step");
                        }
                    }
                    Op::Press => {
                        if service.press().is_some() {
                            let now = weights(&service.current());
                            prop_assert!(now != before && !now.is_empty());
                        }
                    }
                    Op::BackTo(at) if !service.splits.is_empty() => {
                        let revision = i32::try_from(at % service.splits.len()).unwrap() + 1;
                        service.back_to(revision);
                        let (now, then) = (service.current(), service.copy(revision));
                        prop_assert_eq!(weights(&now), weights(&then));
                    }
                    Op::BackTo(_) => {}
                }
                let stack = &service.history.stack;
                for pair in stack.windows(2) {
                    prop_assert!(pair[0].weights != pair[1].weights && pair[0].id < pair[1].id);
                }
            }
            // Presses end, and each goes to an older entry than the one before.
            let (mut last, mut presses) = (i32::MAX, 0);
            let depth = service.history.stack.len();
            while let Some(to) = service.press() {
                prop_assert!(to < last, "{to} is not further back than {last}");
                (last, presses) = (to, presses + 1);
            }
            prop_assert!(presses < depth.max(1));
        }
    }
}
