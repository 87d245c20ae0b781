//! Decides which images to remove. Pure.
//!
//! Laws, tested below: an image is removed only if
//! - this node pulled it and cless gave it all its names,
//! - no container uses it, no version is pinned to it, and its retention time is over,
//! - the images in use are known, and no existing version needs it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::record::PulledImage;
use crate::runtime::reference;

/// Inputs of the decision for one recorded image.
#[derive(Debug, Clone, Copy)]
pub struct ImageFacts<'a> {
    /// The entry in the record.
    pub entry: &'a PulledImage,
    /// All names of the image in the engine; `None` if the engine has no such image.
    pub names: Option<&'a BTreeSet<String>>,
    /// Whether any container uses the image, running or not.
    pub in_use: bool,
    /// Whether a version of this node is pinned to the image.
    pub pinned: bool,
}

/// The decision for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PruneDecision {
    /// The image is gone; remove its entry.
    Forget,
    /// The image is needed; its retention time restarts.
    Needed,
    /// The image has names that cless did not give it, so it has another user.
    Foreign,
    /// The retention time is not over.
    TooSoon,
    /// The retention time is over; the images in use must be known to decide.
    NeedsVersions,
    /// Remove these names; the image goes with the last one.
    Remove(Vec<String>),
}

/// Decides for one image. `retained` holds the names of images in use (see [`retained_names`]), or
/// `None` if they are unknown; `now` is in seconds since 1970.
pub fn decide(
    facts: &ImageFacts<'_>,
    retained: Option<&BTreeSet<String>>,
    now: u64,
    after: Duration,
) -> PruneDecision {
    let Some(names) = facts.names else {
        return PruneDecision::Forget;
    };
    if facts.in_use || facts.pinned {
        return PruneDecision::Needed;
    }
    // A pulled image has a name; if it has none, another program removed it.
    if names.is_empty() || !names.is_subset(&facts.entry.names) {
        return PruneDecision::Foreign;
    }
    if Duration::from_secs(now.saturating_sub(facts.entry.needed)) < after {
        return PruneDecision::TooSoon;
    }
    let Some(retained) = retained else {
        return PruneDecision::NeedsVersions;
    };
    if !facts.entry.names.is_disjoint(retained) {
        return PruneDecision::Needed;
    }
    // Tags go first: with the last tag, engines remove the digests of the repository too.
    let (digests, tags): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.contains('@'));
    PruneDecision::Remove(tags.into_iter().chain(digests).cloned().collect())
}

/// Names under which an engine may have a version's image: the reference, and the digest if known.
pub fn retained_names(image: &str, digest: Option<&str>) -> impl Iterator<Item = String> {
    let by_digest = digest.map(|digest| reference::by_digest(image, digest));
    [reference::name(image)].into_iter().chain(by_digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AFTER: Duration = Duration::from_secs(60);

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn decision(
        names: &[&str],
        in_use: bool,
        retained: Option<&[&str]>,
        idle: u64,
    ) -> PruneDecision {
        let entry = PulledImage {
            names: set(&["r/app:1", "r/app@sha256:1"]),
            needed: 1000,
        };
        let names = set(names);
        let facts = ImageFacts {
            entry: &entry,
            names: Some(&names),
            in_use,
            pinned: false,
        };
        decide(&facts, retained.map(set).as_ref(), 1000 + idle, AFTER)
    }

    #[test]
    fn an_unneeded_image_is_removed_when_its_time_is_over() {
        let names = ["r/app@sha256:1", "r/app:1"];
        assert_eq!(
            decision(&names, false, Some(&[]), 59),
            PruneDecision::TooSoon
        );
        let gone = vec!["r/app:1".to_owned(), "r/app@sha256:1".to_owned()];
        assert_eq!(
            decision(&names, false, Some(&[]), 60),
            PruneDecision::Remove(gone)
        );
        assert_eq!(
            decision(&names, false, None, 60),
            PruneDecision::NeedsVersions
        );
        assert_eq!(decision(&names, true, Some(&[]), 60), PruneDecision::Needed);
        assert_eq!(
            decision(&names, false, Some(&["r/app:1"]), 60),
            PruneDecision::Needed
        );
        assert_eq!(
            decision(&["r/app:1", "mine:1"], false, Some(&[]), 60),
            PruneDecision::Foreign
        );
        assert_eq!(decision(&[], false, Some(&[]), 60), PruneDecision::Foreign);
    }

    #[test]
    fn a_tag_that_has_moved_on_still_retains() {
        // The engine has the tag on a newer image, and the version has no digest.
        let names = ["r/app@sha256:1"];
        assert_eq!(
            decision(&names, false, Some(&["r/app:1"]), 60),
            PruneDecision::Needed
        );
    }

    #[test]
    fn versions_retain_by_name_and_by_digest_however_they_are_written() {
        let names: Vec<_> = retained_names("docker.io/library/app", Some("sha256:1")).collect();
        assert_eq!(names, ["app:latest", "app@sha256:1"]);
        let names: Vec<_> = retained_names("r:5000/app:2@sha256:1", None).collect();
        assert_eq!(names, ["r:5000/app@sha256:1"]);
    }

    #[test]
    fn a_clock_that_was_set_back_removes_nothing() {
        let entry = PulledImage {
            names: set(&["a:1"]),
            needed: 1000,
        };
        let names = set(&["a:1"]);
        let facts = ImageFacts {
            entry: &entry,
            names: Some(&names),
            in_use: false,
            pinned: false,
        };
        assert_eq!(
            decide(&facts, Some(&set(&[])), 5, AFTER),
            PruneDecision::TooSoon
        );
    }

    fn some_names() -> impl Strategy<Value = BTreeSet<String>> {
        prop::collection::btree_set(
            prop_oneof![
                Just("a:1".to_owned()),
                Just("a:2".to_owned()),
                Just("a@sha256:1".to_owned()),
                Just("b:1".to_owned()),
                Just("b@sha256:2".to_owned()),
            ],
            0..4,
        )
    }

    proptest! {
        #[test]
        fn never_one_that_is_retained_used_foreign_or_fresh(
            known in some_names(),
            names in prop::option::of(some_names()),
            in_use: bool,
            pinned: bool,
            retained in prop::option::of(some_names()),
            needed in 0u64..200,
            now in 0u64..200,
        ) {
            let entry = PulledImage { names: known.clone(), needed };
            let facts = ImageFacts { entry: &entry, names: names.as_ref(), in_use, pinned };
            if let PruneDecision::Remove(off) = decide(&facts, retained.as_ref(), now, AFTER) {
                let names = names.expect("the engine has it");
                prop_assert!(!in_use && !pinned);
                prop_assert!(names.is_subset(&known), "a name not given by cless");
                prop_assert!(now >= needed + AFTER.as_secs());
                let retained = retained.expect("the images in use are known");
                prop_assert!(names.is_disjoint(&retained) && known.is_disjoint(&retained));
                prop_assert_eq!(off.into_iter().collect::<BTreeSet<_>>(), names);
            }
        }
    }
}
