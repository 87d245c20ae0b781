//! Chooses the version that serves a request.
//!
//! Precedence: the host's tag, the version header (if the service enables it), the affinity key, a
//! random draw. The last two read one slot table, so shares are exact and all nodes agree.
//!
//! Law 1: each version is chosen by exactly `percent` of the 100 slots; a version of weight zero is
//! never chosen; equal keys yield equal versions on every node.

use super::{HostEntry, SLOTS, Version};
use rand::RngExt as _;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The parts of a request that select a version.
#[derive(Clone, Copy, Debug, Default)]
pub struct VersionSelector<'a> {
    /// Value of the version header; `None` if the request has none.
    pub version_header: Option<&'a str>,
    /// Affinity key; `None` if the service has no affinity or the request no key.
    pub affinity_key: Option<&'a [u8]>,
}

/// Result of [`choose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'t> {
    /// The version that serves the request.
    Version(&'t Arc<Version>),
    /// The service has no traffic split: 503.
    NoTraffic,
    /// The version header names no reachable version: 404.
    UnknownVersion,
}

/// Chooses the version that serves a request to this host.
///
/// The version header holds a version number or a tag; for a tag made of digits only, the number
/// takes precedence. The header is ignored unless the service enables it.
pub fn choose<'t>(
    entry: &'t HostEntry,
    selector: &VersionSelector<'_>,
    rng: &mut impl rand::Rng,
) -> Choice<'t> {
    if let Some(version) = &entry.tag {
        return Choice::Version(version);
    }
    let route = &*entry.route;
    if let (true, Some(name)) = (route.settings.version_header, selector.version_header) {
        let numbered = name.parse().ok().and_then(|number| route.version(number));
        return match numbered.or_else(|| route.tagged(name)) {
            Some(version) => Choice::Version(version),
            None => Choice::UnknownVersion,
        };
    }
    let Some(slots) = &route.slots else {
        return Choice::NoTraffic;
    };
    let slot = match selector.affinity_key {
        Some(key) => affinity_slot(key),
        None => rng.random_range(0..SLOTS),
    };
    // Slots index `versions` by construction; `get` avoids a panic if a bug breaks that.
    route
        .versions
        .get(slots.get(slot))
        .map_or(Choice::NoTraffic, Choice::Version)
}

/// The slot of an affinity key; equal on all nodes.
fn affinity_slot(key: &[u8]) -> usize {
    // The remainder is below 100, so the cast is lossless.
    (xxh3_64(key) % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::testing::{route, with_percents};
    use crate::route::{Route, Settings, TagRoute};
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng as _, rngs::SmallRng};

    /// Draws every slot once, in order: the words are evenly spread over the range.
    struct EachSlot(u64);

    impl rand::rand_core::TryRng for EachSlot {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            self.try_next_u64().map(|word| (word >> 32) as u32)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            let word = (u64::MAX / 100) * self.0 + u64::MAX / 200;
            self.0 = (self.0 + 1) % 100;
            Ok(word)
        }
        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            bytes.fill(0);
            Ok(())
        }
    }

    fn entry(route: Route) -> HostEntry {
        HostEntry {
            route: Arc::new(route),
            tag: None,
        }
    }

    fn number(choice: Choice<'_>) -> Option<u32> {
        match choice {
            Choice::Version(version) => Some(version.key.number),
            Choice::NoTraffic | Choice::UnknownVersion => None,
        }
    }

    fn count(entry: &HostEntry, rng: &mut impl Rng, draws: usize) -> Vec<u32> {
        let mut counts = vec![0; entry.route.versions.len() + 1];
        for _ in 0..draws {
            counts
                [number(choose(entry, &VersionSelector::default(), rng)).unwrap_or(0) as usize] +=
                1;
        }
        counts
    }

    /// Percents that sum to 100, zeros included.
    fn percents() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec(0u32..=100, 0..8).prop_map(|mut cuts| {
            cuts.push(100);
            cuts.sort_unstable();
            let mut before = 0;
            cuts.iter()
                .map(|&cut| cut - std::mem::replace(&mut before, cut))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn shares_are_exact(percents in percents()) {
            let entry = entry(with_percents(&percents));
            let counts = count(&entry, &mut EachSlot(0), SLOTS);
            prop_assert_eq!(counts[0], 0);
            prop_assert_eq!(&counts[1..], &percents[..]);
            for (at, &percent) in percents.iter().enumerate() {
                prop_assert_eq!(entry.route.percent(at as u32 + 1), percent);
            }
        }

        #[test]
        fn zero_weight_is_never_chosen(percents in percents(), seed: u64) {
            let entry = entry(with_percents(&percents));
            let counts = count(&entry, &mut SmallRng::seed_from_u64(seed), 1000);
            for (at, &percent) in percents.iter().enumerate() {
                prop_assert!(percent > 0 || counts[at + 1] == 0);
            }
        }

        #[test]
        fn equal_keys_give_equal_versions(percents in percents(), key: Vec<u8>, seeds: (u64, u64)) {
            let ask = VersionSelector { affinity_key: Some(&key), ..VersionSelector::default() };
            let (here, there) = (entry(with_percents(&percents)), entry(with_percents(&percents)));
            let one = number(choose(&here, &ask, &mut SmallRng::seed_from_u64(seeds.0)));
            let two = number(choose(&there, &ask, &mut SmallRng::seed_from_u64(seeds.1)));
            prop_assert!(one.is_some());
            prop_assert_eq!(one, two);
        }
    }

    #[test]
    fn affinity_takes_xxh3_modulo_100() {
        // The published XXH3-64 of the empty input with seed 0.
        assert_eq!(
            affinity_slot(b""),
            (0x2D06_8005_38D3_94C2_u64 % 100) as usize
        );
    }

    #[test]
    fn the_order_is_tag_header_key_chance() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut split = with_percents(&[100, 0]);
        split.settings = Arc::new(Settings {
            version_header: true,
            ..Settings::default()
        });
        let two = split.versions[1].clone();
        split.tags = [TagRoute {
            tag: "beta".into(),
            host: "beta--a.test".into(),
            version: two.clone(),
        }]
        .into();
        let plain = entry(split);
        let tagged = HostEntry {
            route: plain.route.clone(),
            tag: Some(two),
        };
        let ask = |header| VersionSelector {
            version_header: header,
            affinity_key: None,
        };

        assert_eq!(number(choose(&tagged, &ask(Some("1")), &mut rng)), Some(2));
        assert_eq!(number(choose(&plain, &ask(Some("2")), &mut rng)), Some(2));
        assert_eq!(
            number(choose(&plain, &ask(Some("beta")), &mut rng)),
            Some(2)
        );
        assert_eq!(
            choose(&plain, &ask(Some("3")), &mut rng),
            Choice::UnknownVersion
        );
        assert_eq!(
            choose(&plain, &ask(Some("")), &mut rng),
            Choice::UnknownVersion
        );
        assert_eq!(number(choose(&plain, &ask(None), &mut rng)), Some(1));
    }

    #[test]
    fn a_disabled_header_is_ignored() {
        let entry = entry(with_percents(&[100, 0]));
        let ask = VersionSelector {
            version_header: Some("2"),
            ..VersionSelector::default()
        };
        assert_eq!(number(choose(&entry, &ask, &mut EachSlot(0))), Some(1));
    }

    #[test]
    fn no_traffic_is_reported() {
        let entry = entry(route("a", "uid-a", &["a.test"]));
        assert_eq!(
            choose(&entry, &VersionSelector::default(), &mut EachSlot(0)),
            Choice::NoTraffic
        );
        let ask = VersionSelector {
            affinity_key: Some(b"key"),
            ..VersionSelector::default()
        };
        assert_eq!(choose(&entry, &ask, &mut EachSlot(0)), Choice::NoTraffic);
    }
}
