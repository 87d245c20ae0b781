//! The split of a service's requests over its versions.
//!
//! Law: a [`TrafficSplit`] either sends no request by chance (no percent at all), or its percents sum to exactly 100;
//! a version has one target; a tag names one version; a target does something (it has a percent or a tag).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::Violations;
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
}
