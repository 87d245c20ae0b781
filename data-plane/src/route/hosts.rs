//! The map that a request's host is looked up in.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Keyed by host.
pub(in crate::route) type HostMap<V> = HashMap<Arc<str>, V, Seeded>;

/// XXH3-64 with a seed of each map's own, in one go: less than half of what the standard library's hash takes for a
/// host. Strangers look hosts up and add none, so they cannot make them collide; whoever adds them does not know
/// the seed.
#[derive(Clone, Debug)]
pub(in crate::route) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(rand::random())
    }
}

impl BuildHasher for Seeded {
    type Hasher = Text;

    fn build_hasher(&self) -> Text {
        Text(self.0)
    }
}

/// Hashes one piece of text.
#[derive(Debug)]
pub(in crate::route) struct Text(u64);

impl Hasher for Text {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// What ends a piece of text tells nothing where there is but one.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_by_its_text_and_maps_hash_each_in_its_own_way() {
        let hosts = (0..1000).map(|number| Arc::<str>::from(format!("a{number}.example")));
        let map: HostMap<usize> = hosts.zip(0..).collect();
        for number in 0..1000 {
            assert_eq!(map.get(&*format!("a{number}.example")), Some(&number));
        }
        assert_eq!(map.get("a.example"), None);
        let hash = || Seeded::default().hash_one("a.example");
        assert_ne!(hash(), hash());
    }
}
