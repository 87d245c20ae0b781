//! Digest of a route table: the sum modulo 2^256 of SHA-256 over the bytes of each route.
//!
//! A sum is independent of order and is updated by a delta without reading unchanged routes. Bytes
//! are hashed as received, so a field that this release does not know keeps its part of the digest.
//! Law: digests form a commutative group under [`Digest::plus`], with inverse [`Digest::minus`].

use sha2::{Digest as _, Sha256};
use std::fmt;

/// A 256-bit number in big-endian order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of an empty table.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of one route.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Constructs a digest from 32 big-endian bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes in big-endian order.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The sum modulo 2^256.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let ((a_high, a_low), (b_high, b_low)) = (self.halves(), other.halves());
        let (low, carry) = a_low.overflowing_add(b_low);
        let high = a_high.wrapping_add(b_high).wrapping_add(u128::from(carry));
        Self::from_halves(high, low)
    }

    /// The difference modulo 2^256.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let ((a_high, a_low), (b_high, b_low)) = (self.halves(), other.halves());
        let (low, borrow) = a_low.overflowing_sub(b_low);
        let high = a_high.wrapping_sub(b_high).wrapping_sub(u128::from(borrow));
        Self::from_halves(high, low)
    }

    fn halves(self) -> (u128, u128) {
        let (mut high, mut low) = ([0; 16], [0; 16]);
        high.copy_from_slice(&self.0[..16]);
        low.copy_from_slice(&self.0[16..]);
        (u128::from_be_bytes(high), u128::from_be_bytes(low))
    }

    fn from_halves(high: u128, low: u128) -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&high.to_be_bytes());
        bytes[16..].copy_from_slice(&low.to_be_bytes());
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest() -> impl Strategy<Value = Digest> {
        // The ends of the range cause carries.
        prop_oneof![
            any::<[u8; 32]>().prop_map(Digest),
            Just(Digest::ZERO),
            Just(Digest([0xff; 32])),
            Just(Digest::from_halves(0, u128::MAX)),
        ]
    }

    proptest! {
        #[test]
        fn is_a_commutative_group(a in digest(), b in digest(), c in digest()) {
            prop_assert_eq!(a.plus(b), b.plus(a));
            prop_assert_eq!(a.plus(b).plus(c), a.plus(b.plus(c)));
            prop_assert_eq!(a.plus(Digest::ZERO), a);
            prop_assert_eq!(a.plus(b).minus(b), a);
            prop_assert_eq!(a.minus(b).plus(b), a);
        }
    }

    #[test]
    fn carries_through_the_whole_width() {
        let one = Digest::from_halves(0, 1);
        assert_eq!(Digest([0xff; 32]).plus(one), Digest::ZERO);
        assert_eq!(Digest::ZERO.minus(one), Digest([0xff; 32]));
        assert_eq!(
            Digest::from_halves(0, u128::MAX).plus(one),
            Digest::from_halves(1, 0)
        );
    }

    #[test]
    fn of_nothing_is_the_published_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
    }
}
