//! Hash map for the lookup of a request's host.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A map with hosts as keys.
pub(in crate::route) type HostMap<V> = HashMap<Arc<str>, V, SeededBuildHasher>;

/// Builds XXH3-64 hashers with a random seed per map: less than half the cost of the standard
/// library's hasher for a host. Clients only look hosts up, and services that add hosts do not know
/// the seed, so no client can provoke collisions.
#[derive(Clone, Debug)]
pub(in crate::route) struct SeededBuildHasher(u64);

impl Default for SeededBuildHasher {
    fn default() -> Self {
        Self(rand::random())
    }
}

impl BuildHasher for SeededBuildHasher {
    type Hasher = StrHasher;

    fn build_hasher(&self) -> StrHasher {
        StrHasher(self.0)
    }
}

/// Hashes a single string.
#[derive(Debug)]
pub(in crate::route) struct StrHasher(u64);

impl Hasher for StrHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// Ignores the terminator that `str` appends: there is only one string.
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
        let hash = || SeededBuildHasher::default().hash_one("a.example");
        assert_ne!(hash(), hash());
    }
}
