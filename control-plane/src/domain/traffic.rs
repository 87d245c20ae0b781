//! The split of a service's requests over its versions.
//!
//! Invariants of a [`TrafficSplit`]: percents sum to 100, or there are none; a version has one
//! target; a tag names one version; a target has a percent or a tag.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::Violations;
use super::id::{Percent, ServiceId, Tag, Uid, VersionNumber};
use super::principal::Principal;
use super::time::Timestamp;

/// The share of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The version.
    pub version: VersionNumber,
    /// Its share of the requests that are routed by weight.
    pub percent: Percent,
    /// The tag that reaches only this version; `None` without one.
    pub tag: Option<Tag>,
}

/// A target in a request.
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
    /// Validates the targets at `field` (`traffic.targets`); adds refusals to `violations`.
    ///
    /// The store checks that the versions exist.
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

    /// The targets, by ascending version.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The target of a version, if it has one.
    #[must_use]
    pub fn target(&self, version: VersionNumber) -> Option<&Target> {
        self.targets
            .binary_search_by_key(&version, |target| target.version)
            .ok()
            .and_then(|at| self.targets.get(at))
    }

    /// Whether any target has a percent.
    #[must_use]
    pub fn has_weights(&self) -> bool {
        self.targets.iter().any(|target| !target.percent.is_zero())
    }

    /// All traffic to one version; the tags stay.
    #[must_use]
    pub fn all_to(&self, version: VersionNumber) -> Self {
        let tagged = self.targets.iter().filter(|target| target.tag.is_some());
        let mut targets: Vec<Target> = tagged
            .filter(|target| target.version != version)
            .map(|target| Target {
                percent: Percent::ZERO,
                ..target.clone()
            })
            .collect();
        targets.push(Target {
            version,
            percent: Percent::ALL,
            tag: self.target(version).and_then(|target| target.tag.clone()),
        });
        Self::sorted(targets)
    }

    /// The versions with a percent.
    pub fn weights(&self) -> impl Iterator<Item = (VersionNumber, Percent)> {
        self.targets
            .iter()
            .filter(|target| !target.percent.is_zero())
            .map(|target| (target.version, target.percent))
    }

    /// The tags and their versions.
    pub fn tags(&self) -> impl Iterator<Item = (&Tag, VersionNumber)> {
        self.targets
            .iter()
            .filter_map(|target| Some((target.tag.as_ref()?, target.version)))
    }
}

/// The author of a traffic change and the reason; both may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeNote {
    actor: String,
    reason: String,
}

impl ChangeNote {
    /// Validates `actor` (at most 128 characters) and `reason` (at most 1024); adds refusals to
    /// `violations`.
    pub fn new(actor: String, reason: String, violations: &mut Violations) -> Option<Self> {
        let before = violations.len();
        for (field, text, max) in [("actor", &actor, 128), ("reason", &reason, 1024)] {
            let length = text.chars().count();
            if length > max {
                violations.push(
                    field,
                    format!("it has {length} characters, at most {max} are allowed: shorten it"),
                );
            }
        }
        (violations.len() == before).then_some(Self { actor, reason })
    }

    /// The note of a verified principal. The client's own words about the author become a part of
    /// the reason.
    #[must_use]
    pub fn by(self, principal: &Principal) -> Self {
        let words = [self.actor, self.reason];
        let words = words
            .iter()
            .map(String::as_str)
            .filter(|words| !words.is_empty());
        Self {
            reason: words.collect::<Vec<_>>().join(": "),
            actor: principal.to_string(),
        }
    }

    /// The author.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The current traffic of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// The id of the service.
    pub service: ServiceId,
    /// The uid of the service.
    pub service_uid: Uid,
    /// The split.
    pub split: TrafficSplit,
    /// Changes with every traffic change.
    pub etag: String,
    /// The number of the current traffic revision; 0 before the first.
    pub revision: i32,
    /// Time of the change; the creation of the service before the first.
    pub update_time: Timestamp,
    /// The feed revision of the change.
    pub feed_revision: i64,
}

/// One entry of the traffic history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficRevision {
    /// The id of the service.
    pub service: ServiceId,
    /// Counts 1, 2, 3 per service.
    pub number: i32,
    /// The split.
    pub split: TrafficSplit,
    /// The principal; without authentication as the client gave it, and may be empty.
    pub actor: String,
    /// The reason, as the client gave it; may be empty.
    pub reason: String,
    /// Time of the change.
    pub create_time: Timestamp,
    /// The revision that a rollback copied; 0 for other changes.
    pub rolled_back_from: i32,
    /// The feed revision of the change.
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
    fn valid_splits_are_accepted() {
        assert!(!read(&[]).unwrap().has_weights());
        assert!(!read(&[(1, 0, "a"), (2, 0, "b")]).unwrap().has_weights());
        let both = read(&[(3, 60, ""), (1, 40, "old"), (2, 0, "next")]).unwrap();
        let order: Vec<_> = both.targets().iter().map(|t| t.version.get()).collect();
        assert_eq!(order, [1, 2, 3]);
        assert_eq!(both.tags().count(), 2);
        assert_eq!(both.weights().count(), 2);
    }

    #[test]
    fn all_traffic_to_one_version_keeps_the_tags() {
        let before = read(&[(3, 60, "new"), (1, 40, "old"), (2, 0, "next")]).unwrap();
        let expected = read(&[(3, 100, "new"), (1, 0, "old"), (2, 0, "next")]).unwrap();
        assert_eq!(before.all_to(number(3)), expected);
        let expected = read(&[(4, 100, ""), (3, 0, "new"), (1, 0, "old"), (2, 0, "next")]);
        assert_eq!(before.all_to(number(4)), expected.unwrap());
    }

    #[test]
    fn invalid_splits_are_refused_by_target() {
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
}
