//! Arithmetic of the traffic split in `deploy` and `traffic set`.
//!
//! Pure. Laws, each with a property test: the results of [`Split::set_share`] and
//! [`Split::set_weights`] sum to 100; the given version gets exactly the given share; every other
//! share differs from its exact value by less than one; tags are unchanged.

use std::collections::{BTreeMap, BTreeSet};

use cless_proto::v1::TrafficTarget;

/// An impossible split, with the remedy in its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "no other version has traffic, so v{0} cannot take {1} %: omit --traffic to give it all traffic, or use --no-traffic"
    )]
    NoOtherVersion(i32, u32),
    #[error("v{0} is given twice: give each version one percentage")]
    Duplicate(i32),
    #[error("v{0} and v{1} have no percentage: only one version can take the rest")]
    TwoInferred(i32, i32),
    #[error("the percentages sum to {0}, not 100{1}")]
    Sum(u32, &'static str),
    #[error("nothing is left for v{0}: the other percentages already sum to {1}")]
    NothingLeft(i32, u32),
}

/// Weights and tags of one service. A version has a weight, a tag or both, and at most one tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Split {
    /// Version to percentage, without zeros.
    weights: BTreeMap<i32, u32>,
    /// Version to tag.
    tags: BTreeMap<i32, String>,
}

impl Split {
    /// Reads the targets of the API.
    pub(crate) fn from_targets(targets: &[TrafficTarget]) -> Self {
        let mut split = Self::default();
        for target in targets {
            if target.percent > 0 {
                *split.weights.entry(target.version).or_default() += target.percent;
            }
            if !target.tag.is_empty() {
                split.tags.insert(target.version, target.tag.clone());
            }
        }
        split
    }

    /// One target per version, in order of version.
    pub(crate) fn to_targets(&self) -> Vec<TrafficTarget> {
        let versions: BTreeSet<i32> = self
            .weights
            .keys()
            .chain(self.tags.keys())
            .copied()
            .collect();
        let target = |version| TrafficTarget {
            version,
            percent: self.weights.get(&version).copied().unwrap_or(0),
            tag: self.tags.get(&version).cloned().unwrap_or_default(),
        };
        versions.into_iter().map(target).collect()
    }

    /// Whether any version has traffic.
    pub(crate) fn has_traffic(&self) -> bool {
        !self.weights.is_empty()
    }

    /// Gives `version` exactly `percent` and scales the others in proportion, by the largest
    /// remainder method with ties to the lowest version.
    ///
    /// # Errors
    /// [`Error::NoOtherVersion`] if no version can take the rest.
    pub(crate) fn set_share(mut self, version: i32, percent: u32) -> Result<Self, Error> {
        self.weights.remove(&version);
        let rest = 100 - percent.min(100);
        let whole: u32 = self.weights.values().sum();
        if whole == 0 && rest > 0 {
            return Err(Error::NoOtherVersion(version, percent));
        }
        // (version, floor, remainder) of `rest * weight / whole`, where `whole` is at most 100.
        let mut shares: Vec<(i32, u32, u32)> = self
            .weights
            .iter()
            .map(|(&v, &weight)| (v, rest * weight / whole, rest * weight % whole))
            .collect();
        let given: u32 = shares.iter().map(|share| share.1).sum();
        shares.sort_by_key(|&(v, _, remainder)| (std::cmp::Reverse(remainder), v));
        for share in shares.iter_mut().take((rest - given) as usize) {
            share.1 += 1;
        }
        self.weights = shares.into_iter().map(|(v, share, _)| (v, share)).collect();
        self.weights.insert(version, percent);
        self.weights.retain(|_, share| *share > 0);
        Ok(self)
    }

    /// Replaces all weights. One of them may be `None` and takes the rest. An empty list changes
    /// nothing.
    ///
    /// # Errors
    /// For a duplicate version, a second `None`, or a sum other than 100.
    pub(crate) fn set_weights(mut self, weights: &[(i32, Option<u32>)]) -> Result<Self, Error> {
        if weights.is_empty() {
            return Ok(self);
        }
        let mut inferred = None;
        let mut new = BTreeMap::new();
        for &(version, percent) in weights {
            if new.insert(version, percent.unwrap_or(0)).is_some() {
                return Err(Error::Duplicate(version));
            }
            if percent.is_none()
                && let Some(first) = inferred.replace(version)
            {
                return Err(Error::TwoInferred(first, version));
            }
        }
        let sum: u32 = new.values().sum();
        match inferred {
            Some(version) if sum < 100 => {
                new.insert(version, 100 - sum);
            }
            Some(version) => return Err(Error::NothingLeft(version, sum)),
            None if sum < 100 => {
                let remedy = ": omit the percentage of one version to give it the rest";
                return Err(Error::Sum(sum, remedy));
            }
            None if sum > 100 => return Err(Error::Sum(sum, "")),
            None => {}
        }
        new.retain(|_, percent| *percent > 0);
        self.weights = new;
        Ok(self)
    }

    /// Removes all weights and keeps the tags.
    pub(crate) fn without_weights(mut self) -> Self {
        self.weights.clear();
        self
    }

    /// Points `tag` to `version`, whose previous tag it replaces.
    pub(crate) fn set_tag(mut self, tag: String, version: i32) -> Self {
        self.remove_tag(&tag);
        self.tags.insert(version, tag);
        self
    }

    /// Removes a tag; `false` if it does not exist.
    pub(crate) fn remove_tag(&mut self, tag: &str) -> bool {
        let before = self.tags.len();
        self.tags.retain(|_, other| other != tag);
        self.tags.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(weights: &[(i32, u32)], tags: &[(&str, i32)]) -> Split {
        Split {
            weights: weights.iter().copied().collect(),
            tags: tags.iter().map(|&(tag, v)| (v, tag.to_owned())).collect(),
        }
    }

    fn target(version: i32, percent: u32, tag: &str) -> TrafficTarget {
        TrafficTarget {
            version,
            percent,
            tag: tag.to_owned(),
        }
    }

    #[test]
    fn set_share_scales_the_others() {
        let before = split(&[(1, 50), (2, 50)], &[("stable", 1)]);
        let after = before.set_share(3, 25).unwrap();
        // 37.5 each: the tie goes to the lowest version.
        assert_eq!(after, split(&[(1, 38), (2, 37), (3, 25)], &[("stable", 1)]));
        let all = after.set_share(4, 100).unwrap();
        assert_eq!(
            all.to_targets(),
            [target(1, 0, "stable"), target(4, 100, "")]
        );
    }

    #[test]
    fn the_first_version_takes_everything() {
        assert_eq!(
            Split::default().set_share(1, 100).unwrap(),
            split(&[(1, 100)], &[])
        );
        assert_eq!(
            Split::default().set_share(1, 10),
            Err(Error::NoOtherVersion(1, 10))
        );
    }

    #[test]
    fn set_weights_infers_one_and_rejects_the_rest() {
        let before = split(&[(1, 100)], &[("old", 1)]);
        let set = |weights: &[(i32, Option<u32>)]| before.clone().set_weights(weights);
        assert_eq!(
            set(&[(2, Some(10)), (3, None)]).unwrap(),
            split(&[(2, 10), (3, 90)], &[("old", 1)])
        );
        assert_eq!(set(&[]).unwrap(), before);
        assert_eq!(set(&[(2, Some(10)), (2, None)]), Err(Error::Duplicate(2)));
        assert_eq!(set(&[(2, None), (3, None)]), Err(Error::TwoInferred(2, 3)));
        assert_eq!(
            set(&[(2, Some(100)), (3, None)]),
            Err(Error::NothingLeft(3, 100))
        );
        assert!(matches!(set(&[(2, Some(95))]), Err(Error::Sum(95, _))));
        assert!(matches!(
            set(&[(2, Some(60)), (3, Some(60))]),
            Err(Error::Sum(120, ""))
        ));
        assert_eq!(
            set(&[(2, Some(100)), (3, Some(0))]).unwrap().weights.len(),
            1
        );
    }

    #[test]
    fn a_tag_moves_and_a_version_has_one() {
        let before = split(&[(3, 100)], &[("a", 3), ("c", 2)]);
        assert_eq!(
            before.to_targets(),
            [target(2, 0, "c"), target(3, 100, "a")]
        );
        let moved = before.clone().set_tag("c".to_owned(), 3);
        assert_eq!(moved.to_targets(), [target(3, 100, "c")]);
        let mut gone = before;
        assert!(gone.remove_tag("c") && !gone.remove_tag("c"));
        assert_eq!(gone.to_targets(), [target(3, 100, "a")]);
    }

    /// Weights that sum to 100.
    fn weights() -> impl Strategy<Value = BTreeMap<i32, u32>> {
        prop::collection::btree_set(1_u32..100, 0..6).prop_map(|cuts| {
            let mut edges: Vec<u32> = cuts.into_iter().collect();
            edges.insert(0, 0);
            edges.push(100);
            (1..)
                .zip(edges.windows(2).map(|pair| pair[1] - pair[0]))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn set_share_keeps_the_sum_and_the_proportions(
            before in weights(), version in 1_i32..12, percent in 0_u32..=100, tags in
            prop::collection::btree_map(1_i32..12, "[a-z]{1,3}", 0..4)
        ) {
            let start = Split { weights: before.clone(), tags: tags.clone() };
            let others: u32 = before.iter().filter(|(v, _)| **v != version).map(|(_, p)| p).sum();
            let Ok(after) = start.set_share(version, percent) else {
                prop_assert!(others == 0 && percent < 100);
                return Ok(());
            };
            prop_assert_eq!(after.weights.values().sum::<u32>(), 100);
            prop_assert_eq!(after.weights.get(&version).copied().unwrap_or(0), percent);
            prop_assert_eq!(&after.tags, &tags);
            for (v, weight) in before.iter().filter(|(v, _)| **v != version) {
                let got = f64::from(after.weights.get(v).copied().unwrap_or(0));
                let exact = f64::from((100 - percent) * weight) / f64::from(others);
                prop_assert!((got - exact).abs() < 1.0, "v{} {} for {}", v, got, exact);
            }
            prop_assert_eq!(Split::from_targets(&after.to_targets()), after);
        }

        #[test]
        fn set_weights_infers_the_omitted_weight(weights in weights(), which in any::<prop::sample::Index>()) {
            let full: Vec<(i32, Option<u32>)> = weights.iter().map(|(v, p)| (*v, Some(*p))).collect();
            let mut hole = full.clone();
            hole[which.index(full.len())].1 = None;
            let before = Split::default();
            prop_assert_eq!(before.clone().set_weights(&full), before.set_weights(&hole));
        }
    }
}
