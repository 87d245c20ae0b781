//! The digest of the route table: the sum modulo 2^256 of SHA-256 over the bytes of each route.
//!
//! Invariant: the digest depends only on the set of routes. A change is one subtraction and one
//! addition, and a sequence of changes gives the digest of a rebuild.

use sha2::{Digest as _, Sha256};

/// A 256-bit number, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TableDigest([u8; 32]);

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl TableDigest {
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Adds a route, given by its SHA-256.
    #[must_use]
    pub(super) fn plus(self, route: &[u8; 32]) -> Self {
        let mut sum = [0; 32];
        let mut carry = false;
        for at in (0..32).rev() {
            let (with, first) = self.0[at].overflowing_add(route[at]);
            let (with, second) = with.overflowing_add(u8::from(carry));
            sum[at] = with;
            carry = first || second;
        }
        Self(sum)
    }

    /// Removes a route, given by its SHA-256.
    #[must_use]
    pub(super) fn minus(self, route: &[u8; 32]) -> Self {
        let mut rest = [0; 32];
        let mut borrow = false;
        for at in (0..32).rev() {
            let (without, first) = self.0[at].overflowing_sub(route[at]);
            let (without, second) = without.overflowing_sub(u8::from(borrow));
            rest[at] = without;
            borrow = first || second;
        }
        Self(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn carries_and_borrows_propagate() {
        let mut one = [0; 32];
        one[31] = 1;
        let all = TableDigest([0xff; 32]);
        assert_eq!(all.plus(&one), TableDigest::default());
        assert_eq!(TableDigest::default().minus(&one), all);
        let mut big = [0; 32];
        big[30] = 1;
        let mut small = [0; 32];
        small[31] = 0xff;
        assert_eq!(TableDigest(big).minus(&one), TableDigest(small));
    }

    proptest! {
        #[test]
        fn the_digest_depends_only_on_the_set_of_routes(
            routes in proptest::collection::vec(any::<[u8; 32]>(), 0..12),
            detours in proptest::collection::vec(any::<[u8; 32]>(), 0..4),
        ) {
            let ahead = routes.iter().fold(TableDigest::default(), |d, r| d.plus(r));
            let mut back = detours.iter().fold(TableDigest::default(), |d, r| d.plus(r));
            back = routes.iter().rev().fold(back, |d, r| d.plus(r));
            back = detours.iter().fold(back, |d, r| d.minus(r));
            prop_assert_eq!(ahead, back);
        }
    }
}
