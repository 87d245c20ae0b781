//! The slot table: 100 slots, each with a version.
//!
//! Nodes pick a slot at random or by the key of a caller. All read the same table from the feed, so
//! they agree without coordination.
//!
//! Law 1: a version has exactly `percent` slots, none without weight. Successive tables differ in
//! as few slots as possible, half the sum of |change of percent|. Equal inputs give equal tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::id::VersionNumber;
use super::traffic::TrafficSplit;

/// Number of slots, one per percent.
pub const SLOT_COUNT: usize = 100;

/// A full table, stored in the database because the next table depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slots(Vec<VersionNumber>);

impl Slots {
    /// The table for a split, with the fewest moves from `previous`; `None` if the split has no
    /// weights.
    ///
    /// A slot keeps its version while that version still needs slots. The other slots go, in order,
    /// to the versions that need more, in order. So a version loses its highest slots first, and a
    /// first table has one run per version.
    #[must_use]
    pub fn next(previous: Option<&Self>, split: &TrafficSplit) -> Option<Self> {
        if !split.has_weights() {
            return None;
        }
        let mut wanted: BTreeMap<VersionNumber, u8> = split
            .weights()
            .map(|(version, p)| (version, p.get()))
            .collect();
        let mut kept: [Option<VersionNumber>; SLOT_COUNT] = [None; SLOT_COUNT];
        for (slot, &version) in kept.iter_mut().zip(previous.into_iter().flat_map(|p| &p.0)) {
            if let Some(left) = wanted.get_mut(&version).filter(|left| **left > 0) {
                *left -= 1;
                *slot = Some(version);
            }
        }
        let mut fill = wanted
            .into_iter()
            .flat_map(|(version, left)| std::iter::repeat_n(version, usize::from(left)));
        // Percents sum to 100, so `fill` ends with the last empty slot.
        let slots: Vec<_> = kept
            .into_iter()
            .filter_map(|slot| slot.or_else(|| fill.next()))
            .collect();
        Some(Self(slots))
    }

    /// The version of each slot.
    #[must_use]
    pub fn as_slice(&self) -> &[VersionNumber] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::traffic::tests::{any_split, number, split};
    use super::*;

    fn count(slots: &Slots, version: VersionNumber) -> usize {
        slots.0.iter().filter(|&&v| v == version).count()
    }

    fn percent(split: &TrafficSplit, version: i32) -> i32 {
        split
            .target(number(version))
            .map_or(0, |t| i32::from(t.percent.get()))
    }

    #[test]
    fn a_first_table_is_one_run_per_version() {
        let slots = Slots::next(None, &split(&[(2, 30), (5, 70)])).unwrap();
        assert!(slots.0[..30].iter().all(|v| v.get() == 2));
        assert!(slots.0[30..].iter().all(|v| v.get() == 5));
    }

    #[test]
    fn a_split_without_weights_has_no_table() {
        assert_eq!(Slots::next(None, &TrafficSplit::default()), None);
    }

    #[test]
    fn a_canary_moves_only_its_own_share() {
        let before = Slots::next(None, &split(&[(1, 100)])).unwrap();
        let after = Slots::next(Some(&before), &split(&[(1, 95), (2, 5)])).unwrap();
        assert_eq!(count(&after, number(2)), 5);
        assert!(after.0[..95].iter().all(|v| v.get() == 1));
    }

    proptest! {
        #[test]
        fn law_1_exact_shares_fewest_moves(chain in proptest::collection::vec(any_split(), 1..6)) {
            let mut previous: Option<(TrafficSplit, Slots)> = None;
            for split in chain {
                let next = Slots::next(previous.as_ref().map(|(_, slots)| slots), &split);
                let Some(slots) = next else {
                    prop_assert!(!split.has_weights());
                    previous = None;
                    continue;
                };
                prop_assert_eq!(slots.0.len(), SLOT_COUNT);
                for version in 1..=12 {
                    let share = usize::try_from(percent(&split, version)).unwrap();
                    prop_assert_eq!(count(&slots, number(version)), share);
                }
                let again = Slots::next(previous.as_ref().map(|(_, slots)| slots), &split);
                prop_assert_eq!(Some(&slots), again.as_ref());
                if let Some((old_split, old)) = &previous {
                    let moved = old.0.iter().zip(&slots.0).filter(|(a, b)| a != b).count();
                    let changed: i32 = (1..=12)
                        .map(|v| (percent(old_split, v) - percent(&split, v)).abs())
                        .sum();
                    prop_assert_eq!(moved, usize::try_from(changed / 2).unwrap());
                }
                previous = Some((split, slots));
            }
        }

        #[test]
        fn the_same_split_again_moves_nothing(a in any_split(), b in any_split()) {
            if let Some(first) = Slots::next(None, &a)
                && let Some(second) = Slots::next(Some(&first), &b)
            {
                prop_assert_eq!(Slots::next(Some(&second), &b), Some(second));
            }
        }
    }
}
