//! The split of a service's requests over its versions.
//!
//! Law: a [`TrafficSplit`] either sends no request by chance (no percent at all), or its percents sum to exactly 100;
//! a version has one target; a tag names one version; a target does something (it has a percent or a tag).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::error::{Reason, Violations};
use super::id::{Percent, ServiceId, Tag, Uid, VersionNumber};
use super::time::Timestamp;

/// What one version gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Which version.
    pub version: VersionNumber,
    /// Its share of requests drawn by chance.
    pub percent: Percent,
    /// A name that reaches it alone.
    pub tag: Option<Tag>,
}

/// A target as a request carries it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "the fields of cless.v1.TrafficTarget, documented there"
)]
pub struct TargetInput {
    pub version: i32,
    pub percent: u32,
    pub tag: String,
}

/// A valid set of targets, by ascending version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrafficSplit {
    targets: Vec<Target>,
}

impl TrafficSplit {
    /// Reads the targets at `field` (`traffic.targets`) for a service; what is refused is noted in `violations`.
    ///
    /// Whether the versions exist only the store can tell.
    pub fn new(
        field: &str,
        service: &ServiceId,
        inputs: Vec<TargetInput>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let before = violations.len();
        let mut targets = Vec::with_capacity(inputs.len().min(1000));
        let mut versions = BTreeSet::new();
        let mut tags = BTreeSet::new();
        for (index, input) in inputs.into_iter().enumerate() {
            let at = format!("{field}[{index}]");
            let version =
                violations.take(format!("{at}.version"), VersionNumber::new(input.version));
            let percent = violations.take(format!("{at}.percent"), Percent::new(input.percent));
            let tag = if input.tag.is_empty() {
                Some(None)
            } else {
                let tag =
                    Tag::parse(input.tag).and_then(|tag| tag.label(service).map(|_| Some(tag)));
                violations.take(format!("{at}.tag"), tag)
            };
            if version.is_some_and(|version| !versions.insert(version)) {
                violations.push(
                    format!("{at}.version"),
                    "another target names this version: join them into one",
                );
            }
            if let Some(Some(tag)) = &tag
                && !tags.insert(tag.clone())
            {
                violations.push(
                    format!("{at}.tag"),
                    format!("another target has the tag `{tag}`: a tag names one version"),
                );
            }
            if percent == Some(Percent::ZERO) && tag == Some(None) {
                violations.push(
                    at,
                    "a target without percent and tag does nothing: give one, or leave it out",
                );
            }
            if let (Some(version), Some(percent), Some(tag)) = (version, percent, tag) {
                targets.push(Target {
                    version,
                    percent,
                    tag,
                });
            }
        }
        if violations.len() > before {
            return None;
        }
        let sum: u32 = targets.iter().map(|t| u32::from(t.percent.get())).sum();
        if sum != 0 && sum != 100 {
            violations.push(
                field,
                format!("the percents sum to {sum}: make it exactly 100, or give none"),
            );
            return None;
        }
        Some(Self::sorted(targets))
    }

    fn sorted(mut targets: Vec<Target>) -> Self {
        targets.sort_by_key(|target| target.version);
        Self { targets }
    }

    /// By ascending version.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The target of a version.
    #[must_use]
    pub fn target(&self, version: VersionNumber) -> Option<&Target> {
        self.targets
            .binary_search_by_key(&version, |target| target.version)
            .ok()
            .and_then(|at| self.targets.get(at))
    }

    /// Whether requests are drawn by chance at all.
    #[must_use]
    pub fn has_weights(&self) -> bool {
        self.targets.iter().any(|target| !target.percent.is_zero())
    }

    /// The versions with a percent, and it.
    pub fn weights(&self) -> impl Iterator<Item = (VersionNumber, Percent)> {
        self.targets
            .iter()
            .filter(|target| !target.percent.is_zero())
            .map(|target| (target.version, target.percent))
    }

    /// The tags, and what they name.
    pub fn tags(&self) -> impl Iterator<Item = (&Tag, VersionNumber)> {
        self.targets
            .iter()
            .filter_map(|target| Some((target.tag.as_ref()?, target.version)))
    }
}

/// Gives `version` exactly `percent` and scales the others to what is left, in proportion.
///
/// By largest remainder, ties to the lowest version. A version scaled down to nothing leaves the split unless it is
/// tagged; tags stay where they are.
///
/// # Errors
/// If something is left over and no other version has a weight to scale.
pub fn scale_others(
    current: &TrafficSplit,
    version: VersionNumber,
    percent: Percent,
) -> Result<TrafficSplit, Reason> {
    let left = 100 - u32::from(percent.get());
    let others: Vec<(VersionNumber, u32)> = current
        .weights()
        .filter(|(other, _)| *other != version)
        .map(|(other, weight)| (other, u32::from(weight.get())))
        .collect();
    let total: u32 = others.iter().map(|(_, weight)| weight).sum();
    if total == 0 && left > 0 {
        return Err(Reason::new(format!(
            "no other version has traffic to take the remaining {left} %: give version {version} 100"
        )));
    }
    let mut shares = BTreeMap::new();
    let mut remainders = Vec::new();
    let mut given = 0;
    for (other, weight) in &others {
        let exact = weight * left;
        shares.insert(*other, exact / total);
        given += exact / total;
        remainders.push((exact % total, *other));
    }
    // Largest remainder first; among equals the lowest version.
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let short = usize::try_from(left - given).unwrap_or(0);
    for (_, other) in remainders.into_iter().take(short) {
        *shares.entry(other).or_insert(0) += 1;
    }
    shares.insert(version, u32::from(percent.get()));

    let mut targets = Vec::new();
    let mut versions: BTreeSet<VersionNumber> = shares.keys().copied().collect();
    versions.extend(current.targets.iter().map(|target| target.version));
    for named in versions {
        let tag = current.target(named).and_then(|target| target.tag.clone());
        let percent = Percent::new(shares.get(&named).copied().unwrap_or(0))?;
        if !percent.is_zero() || tag.is_some() {
            targets.push(Target {
                version: named,
                percent,
                tag,
            });
        }
    }
    Ok(TrafficSplit::sorted(targets))
}

/// Who asked for a change of traffic and why, as the client said; both may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeNote {
    actor: String,
    reason: String,
}

impl ChangeNote {
    /// Reads `actor` (at most 128 characters) and `reason` (at most 1024); what is refused is noted in `violations`.
    pub fn new(actor: String, reason: String, violations: &mut Violations) -> Option<Self> {
        let before = violations.len();
        for (field, text, max) in [("actor", &actor, 128), ("reason", &reason, 1024)] {
            let length = text.chars().count();
            if length > max {
                violations.push(
                    field,
                    format!("it has {length} characters, at most {max} are kept: shorten it"),
                );
            }
        }
        (violations.len() == before).then_some(Self { actor, reason })
    }

    /// Who.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The traffic of a service, in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Whose.
    pub service: ServiceId,
    /// Its uid.
    pub service_uid: Uid,
    /// Who gets what.
    pub split: TrafficSplit,
    /// Changes with every traffic change.
    pub etag: String,
    /// The number of the traffic revision in force; 0 before the first.
    pub revision: i32,
    /// When it came into force; the service's creation before the first.
    pub update_time: Timestamp,
    /// The feed revision that carries it.
    pub feed_revision: i64,
}

/// One change of traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficRevision {
    /// Whose.
    pub service: ServiceId,
    /// 1, 2, 3 per service.
    pub number: i32,
    /// Who got what.
    pub split: TrafficSplit,
    /// Who asked for it, as the client said.
    pub actor: String,
    /// Why, as the client said.
    pub reason: String,
    /// When.
    pub create_time: Timestamp,
    /// The revision that was copied, if this is a rollback; else 0.
    pub rolled_back_from: i32,
    /// The feed revision that carried it.
    pub feed_revision: i64,
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::super::error::Error;
    use super::*;

    pub(crate) fn number(n: i32) -> VersionNumber {
        VersionNumber::new(n).unwrap()
    }

    fn read(inputs: &[(i32, u32, &str)]) -> Result<TrafficSplit, Error> {
        let inputs = inputs
            .iter()
            .map(|&(version, percent, tag)| TargetInput {
                version,
                percent,
                tag: tag.to_owned(),
            })
            .collect();
        let mut violations = Violations::new();
        let service = ServiceId::parse("hello").unwrap();
        let read = TrafficSplit::new("traffic.targets", &service, inputs, &mut violations);
        violations.finish()?;
        Ok(read.expect("neither a split nor violations"))
    }

    pub(crate) fn split(weights: &[(i32, u32)]) -> TrafficSplit {
        let inputs: Vec<_> = weights.iter().map(|&(v, p)| (v, p, "")).collect();
        read(&inputs).unwrap()
    }

    /// Weights over some of versions 1 to 12 that sum to 100, or none.
    pub(crate) fn any_split() -> impl Strategy<Value = TrafficSplit> {
        proptest::collection::btree_map(1..=12_i32, 0..50_u32, 0..8).prop_map(|raw| {
            let total: u32 = raw.values().sum();
            if total == 0 {
                return TrafficSplit::default();
            }
            let mut left = 100;
            let mut weights: Vec<(i32, u32)> = raw
                .iter()
                .map(|(&version, &weight)| {
                    let share = weight * 100 / total;
                    left -= share;
                    (version, share)
                })
                .collect();
            weights[0].1 += left;
            weights.retain(|&(_, percent)| percent > 0);
            split(&weights)
        })
    }

    #[test]
    fn splits_that_are_taken() {
        assert!(!read(&[]).unwrap().has_weights());
        assert!(!read(&[(1, 0, "a"), (2, 0, "b")]).unwrap().has_weights());
        let both = read(&[(3, 60, ""), (1, 40, "old"), (2, 0, "next")]).unwrap();
        let order: Vec<_> = both.targets().iter().map(|t| t.version.get()).collect();
        assert_eq!(order, [1, 2, 3]);
        assert_eq!(both.tags().count(), 2);
        assert_eq!(both.weights().count(), 2);
    }

    #[test]
    fn splits_that_are_refused_name_the_target() {
        for (bad, field) in [
            (vec![(1, 99, "")], "traffic.targets"),
            (vec![(1, 50, ""), (2, 51, "")], "traffic.targets"),
            (vec![(1, 101, "")], "traffic.targets[0].percent"),
            (vec![(0, 100, "")], "traffic.targets[0].version"),
            (vec![(1, 50, ""), (1, 50, "")], "traffic.targets[1].version"),
            (vec![(1, 100, ""), (2, 0, "")], "traffic.targets[1]"),
            (vec![(1, 50, "a"), (2, 50, "a")], "traffic.targets[1].tag"),
            (vec![(1, 100, "A")], "traffic.targets[0].tag"),
            (vec![(1, 100, "admin")], "traffic.targets[0].tag"),
        ] {
            let error = read(&bad).unwrap_err();
            assert_eq!(error.violations()[0].field, field, "{error}");
        }
    }

    #[test]
    fn the_others_are_scaled_in_proportion() {
        let shares = |from: &[(i32, u32)], version, percent| {
            let percent = Percent::new(percent).unwrap();
            scale_others(&split(from), number(version), percent)
                .unwrap()
                .weights()
                .map(|(v, p)| (v.get(), u32::from(p.get())))
                .collect::<Vec<_>>()
        };
        assert_eq!(shares(&[(1, 100)], 2, 10), [(1, 90), (2, 10)]);
        assert_eq!(shares(&[(1, 90), (2, 10)], 2, 100), [(2, 100)]);
        assert_eq!(
            shares(&[(1, 50), (2, 50)], 3, 1),
            [(1, 50), (2, 49), (3, 1)]
        );
        assert_eq!(shares(&[(1, 100)], 1, 100), [(1, 100)]);
        assert_eq!(shares(&[], 1, 100), [(1, 100)]);
    }

    #[test]
    fn nothing_to_scale_is_refused() {
        let some = Percent::new(10).unwrap();
        assert!(scale_others(&TrafficSplit::default(), number(1), some).is_err());
        assert!(scale_others(&split(&[(1, 100)]), number(1), some).is_err());
    }

    #[test]
    fn tags_stay_when_their_version_is_scaled_away() {
        let before = read(&[(1, 100, "old"), (2, 0, "next")]).unwrap();
        let after = scale_others(&before, number(3), Percent::ALL).unwrap();
        assert_eq!(after.tags().count(), 2);
        assert_eq!(
            after.weights().collect::<Vec<_>>(),
            [(number(3), Percent::ALL)]
        );
    }

    proptest! {
        #[test]
        fn scaling_gives_a_valid_split_within_one_of_the_exact_share(
            from in any_split(), version in 1..=14_i32, percent in 0..=100_u32,
        ) {
            let version = number(version);
            let given = Percent::new(percent).unwrap();
            let Ok(after) = scale_others(&from, version, given) else {
                prop_assert!(percent < 100);
                prop_assert!(from.weights().all(|(v, _)| v == version));
                return Ok(());
            };
            let sum: u32 = after.weights().map(|(_, p)| u32::from(p.get())).sum();
            prop_assert_eq!(sum, 100);
            prop_assert_eq!(after.target(version).map_or(0, |t| t.percent.get()), given.get());
            let total: u32 = from
                .weights()
                .filter(|(v, _)| *v != version)
                .map(|(_, p)| u32::from(p.get()))
                .sum();
            for (other, weight) in from.weights().filter(|(v, _)| *v != version) {
                let exact = f64::from(weight.get()) * f64::from(100 - percent) / f64::from(total);
                let got = after.target(other).map_or(0, |t| t.percent.get());
                prop_assert!((f64::from(got) - exact).abs() < 1.0);
            }
        }
    }
}
