//! A map keyed by small integers that nobody outside chooses: serial numbers and addresses in memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Keyed by what this process numbers itself, so that no hash must withstand an attacker.
pub(super) type IntMap<K, V> = HashMap<K, V, BuildHasherDefault<IntHasher>>;

/// Spreads an integer by one multiplication (Fibonacci hashing).
#[derive(Debug, Default)]
pub(super) struct IntHasher(u64);

impl Hasher for IntHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 over the golden ratio; the high half is folded in, because tables look at both ends.
        let spread = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}
