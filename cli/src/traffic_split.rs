//! The arithmetic of traffic: which share each version gets after a deploy or a `traffic set`.
//!
//! Pure. Laws, each a property below: the result of [`Split::give`] and [`Split::reweigh`] sums to
//! exactly 100; the version named gets exactly what was asked; the others keep their order and
//! differ from their exact share by less than one; tags that are not named stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use cless_proto::v1::TrafficTarget;

/// Why a split cannot be made; each says what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "nothing else gets traffic, so v{0} cannot take {1} %: leave --traffic out to give it all of it, or use --no-traffic"
    )]
    NothingElse(i32, u32),
    #[error("v{0} is named twice: give each version one percent")]
    Twice(i32),
    #[error("v{0} and v{1} are both without a number: only one can take the rest")]
    TwoInferred(i32, i32),
    #[error("the percents sum to {0}, not 100{1}")]
    Sum(u32, &'static str),
    #[error("nothing is left for v{0}: the other percents already sum to {1}")]
    NothingLeft(i32, u32),
}

/// Weights and tags of one service, apart from each other: a version may have a weight, a tag, or
/// both. A version has at most one tag, and a tag names one version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Split {
    /// Version to percent; no zeros.
    weights: BTreeMap<i32, u32>,
    /// Version to tag.
    tags: BTreeMap<i32, String>,
}

impl Split {
    /// Reads targets as the control plane gives them.
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

    /// One target a version, by version.
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

    /// Whether any version gets traffic.
    pub(crate) fn serves(&self) -> bool {
        !self.weights.is_empty()
    }

    /// Gives `version` exactly `percent` and scales the others in proportion: largest remainder,
    /// ties to the lowest version.
    ///
    /// # Errors
    /// [`Error::NothingElse`] if nothing could take the rest.
    pub(crate) fn give(mut self, version: i32, percent: u32) -> Result<Self, Error> {
        self.weights.remove(&version);
        let rest = 100 - percent.min(100);
        let whole: u32 = self.weights.values().sum();
        if whole == 0 && rest > 0 {
            return Err(Error::NothingElse(version, percent));
        }
        // (version, floor, remainder): each is `rest * weight / whole`, and whole is at most 100.
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

    /// Replaces all weights; one of them may be `None` and takes what the others leave. No weights
    /// at all leaves the split as it is.
    ///
    /// # Errors
    /// If a version is named twice, two are without a number, or the sum is not 100.
    pub(crate) fn reweigh(mut self, weights: &[(i32, Option<u32>)]) -> Result<Self, Error> {
        if weights.is_empty() {
            return Ok(self);
        }
        let mut inferred = None;
        let mut new = BTreeMap::new();
        for &(version, percent) in weights {
            if new.insert(version, percent.unwrap_or(0)).is_some() {
                return Err(Error::Twice(version));
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
                let remedy = ": leave one version without a number and it takes the rest";
                return Err(Error::Sum(sum, remedy));
            }
            None if sum > 100 => return Err(Error::Sum(sum, "")),
            None => {}
        }
        new.retain(|_, percent| *percent > 0);
        self.weights = new;
        Ok(self)
    }

    /// Takes all weights away; tags stay.
    pub(crate) fn without_weights(mut self) -> Self {
        self.weights.clear();
        self
    }

    /// Makes `tag` name `version`, whatever it named before and whatever tag the version had.
    pub(crate) fn tag(mut self, tag: String, version: i32) -> Self {
        self.untag(&tag);
        self.tags.insert(version, tag);
        self
    }

    /// Removes a tag; `false` if there is none of that name.
    pub(crate) fn untag(&mut self, tag: &str) -> bool {
        let before = self.tags.len();
        self.tags.retain(|_, have| have != tag);
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
    fn a_deploy_scales_the_others() {
        let before = split(&[(1, 50), (2, 50)], &[("stable", 1)]);
        let after = before.give(3, 25).unwrap();
        // 37.5 each: the tie goes to the lowest version.
        assert_eq!(after, split(&[(1, 38), (2, 37), (3, 25)], &[("stable", 1)]));
        let all = after.give(4, 100).unwrap();
        assert_eq!(
            all.to_targets(),
            [target(1, 0, "stable"), target(4, 100, "")]
        );
    }

    #[test]
    fn the_first_version_takes_everything() {
        assert_eq!(
            Split::default().give(1, 100).unwrap(),
            split(&[(1, 100)], &[])
        );
        assert_eq!(Split::default().give(1, 10), Err(Error::NothingElse(1, 10)));
    }

    #[test]
    fn set_infers_one_and_explains_the_rest() {
        let before = split(&[(1, 100)], &[("old", 1)]);
        let set = |weights: &[(i32, Option<u32>)]| before.clone().reweigh(weights);
        assert_eq!(
            set(&[(2, Some(10)), (3, None)]).unwrap(),
            split(&[(2, 10), (3, 90)], &[("old", 1)])
        );
        assert_eq!(set(&[]).unwrap(), before);
        assert_eq!(set(&[(2, Some(10)), (2, None)]), Err(Error::Twice(2)));
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
        let moved = before.clone().tag("c".to_owned(), 3);
        assert_eq!(moved.to_targets(), [target(3, 100, "c")]);
        let mut gone = before;
        assert!(gone.untag("c") && !gone.untag("c"));
        assert_eq!(gone.to_targets(), [target(3, 100, "a")]);
    }

    /// Weights that sum to 100: cuts of a line of 100.
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
        fn give_keeps_the_sum_and_the_proportions(
            before in weights(), version in 1_i32..12, percent in 0_u32..=100, tags in
            prop::collection::btree_map(1_i32..12, "[a-z]{1,3}", 0..4)
        ) {
            let start = Split { weights: before.clone(), tags: tags.clone() };
            let others: u32 = before.iter().filter(|(v, _)| **v != version).map(|(_, p)| p).sum();
            let Ok(after) = start.give(version, percent) else {
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
        fn reweigh_with_one_left_out_gives_the_same(weights in weights(), which in any::<prop::sample::Index>()) {
            let full: Vec<(i32, Option<u32>)> = weights.iter().map(|(v, p)| (*v, Some(*p))).collect();
            let mut hole = full.clone();
            hole[which.index(full.len())].1 = None;
            let before = Split::default();
            prop_assert_eq!(before.clone().reweigh(&full), before.reweigh(&hole));
        }
    }
}
