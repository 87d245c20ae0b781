//! Which images may be removed. Pure.
//!
//! Laws (tested below): an image is removed only if this node pulled it for cless, it has no name
//! that cless did not give it, no container uses it, no version that exists needs it, and its time is
//! over; as long as it is not known what versions need, none is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::record::Entry;
use crate::runtime::reference;

/// What is known of an image that is in the record.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// From the record.
    pub entry: &'a Entry,
    /// All names that the engine has for it; `None` if the engine has no such image.
    pub names: Option<&'a BTreeSet<String>>,
    /// A container uses it, running or not, of cless or not.
    pub in_use: bool,
}

/// What is to become of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is gone already: the record may forget it.
    Forget,
    /// It is needed now, so its time begins anew.
    Needed,
    /// It has names that cless did not give it: it has become somebody else's too.
    Foreign,
    /// Its time is not over.
    TooSoon,
    /// Its time is over; what versions need decides.
    Ask,
    /// It may go: take these names off it, and it goes with the last.
    Remove(Vec<String>),
}

/// Judges one image. `retained` are the names of what versions need (see [`retained_names`]), `None` if
/// that is not known; `now` is in seconds since 1970.
pub fn judge(
    facts: &Facts<'_>,
    retained: Option<&BTreeSet<String>>,
    now: u64,
    after: Duration,
) -> Verdict {
    let Some(names) = facts.names else {
        return Verdict::Forget;
    };
    if facts.in_use {
        return Verdict::Needed;
    }
    // One without any name cannot have come by a pull as it is: somebody took its names off.
    if names.is_empty() || !names.is_subset(&facts.entry.names) {
        return Verdict::Foreign;
    }
    if Duration::from_secs(now.saturating_sub(facts.entry.needed)) < after {
        return Verdict::TooSoon;
    }
    let Some(retained) = retained else {
        return Verdict::Ask;
    };
    if !facts.entry.names.is_disjoint(retained) {
        return Verdict::Needed;
    }
    // Tags first: an engine takes the digests of a repository off with its last tag.
    let (digests, tags): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.contains('@'));
    Verdict::Remove(tags.into_iter().chain(digests).cloned().collect())
}

/// The names under which an engine may have the image of a version: as the version names it, and by
/// its digest if one is known.
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

    fn verdict(names: &[&str], in_use: bool, retained: Option<&[&str]>, idle: u64) -> Verdict {
        let entry = Entry {
            names: set(&["r/app:1", "r/app@sha256:1"]),
            needed: 1000,
        };
        let names = set(names);
        let facts = Facts {
            entry: &entry,
            names: Some(&names),
            in_use,
        };
        judge(&facts, retained.map(set).as_ref(), 1000 + idle, AFTER)
    }

    #[test]
    fn one_that_nothing_needs_goes_when_its_time_is_over() {
        let names = ["r/app@sha256:1", "r/app:1"];
        assert_eq!(verdict(&names, false, Some(&[]), 59), Verdict::TooSoon);
        let gone = vec!["r/app:1".to_owned(), "r/app@sha256:1".to_owned()];
        assert_eq!(verdict(&names, false, Some(&[]), 60), Verdict::Remove(gone));
        assert_eq!(verdict(&names, false, None, 60), Verdict::Ask);
        assert_eq!(verdict(&names, true, Some(&[]), 60), Verdict::Needed);
        assert_eq!(
            verdict(&names, false, Some(&["r/app:1"]), 60),
            Verdict::Needed
        );
        assert_eq!(
            verdict(&["r/app:1", "mine:1"], false, Some(&[]), 60),
            Verdict::Foreign
        );
        assert_eq!(verdict(&[], false, Some(&[]), 60), Verdict::Foreign);
    }

    #[test]
    fn a_tag_that_has_moved_on_still_retains() {
        // The engine has the tag for a newer image; the version was never told a digest.
        let names = ["r/app@sha256:1"];
        assert_eq!(
            verdict(&names, false, Some(&["r/app:1"]), 60),
            Verdict::Needed
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
        let entry = Entry {
            names: set(&["a:1"]),
            needed: 1000,
        };
        let names = set(&["a:1"]);
        let facts = Facts {
            entry: &entry,
            names: Some(&names),
            in_use: false,
        };
        assert_eq!(judge(&facts, Some(&set(&[])), 5, AFTER), Verdict::TooSoon);
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
            retained in prop::option::of(some_names()),
            needed in 0u64..200,
            now in 0u64..200,
        ) {
            let entry = Entry { names: known.clone(), needed };
            let facts = Facts { entry: &entry, names: names.as_ref(), in_use };
            if let Verdict::Remove(off) = judge(&facts, retained.as_ref(), now, AFTER) {
                let names = names.expect("the engine has it");
                prop_assert!(!in_use);
                prop_assert!(names.is_subset(&known), "a name of somebody else");
                prop_assert!(now >= needed + AFTER.as_secs());
                let retained = retained.expect("what versions need is known");
                prop_assert!(names.is_disjoint(&retained) && known.is_disjoint(&retained));
                prop_assert_eq!(off.into_iter().collect::<BTreeSet<_>>(), names);
            }
        }
    }
}
