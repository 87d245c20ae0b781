//! Cursors: points in the history of the route table.

use std::fmt;
use std::sync::Arc;

/// The sum modulo 2^256 of the SHA-256 of each route's bytes. A sum lets a delta update it without
/// the unchanged routes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u64; 4]);

impl Digest {
    /// The digest of an empty table.
    pub(crate) const ZERO: Self = Self([0; 4]);

    /// The digest after a route is added.
    pub(crate) fn plus(self, sha256: &[u8; 32]) -> Self {
        let mut sum = [0; 4];
        let mut carry = false;
        for (into, (a, b)) in sum
            .iter_mut()
            .zip(self.0.into_iter().zip(Self::from(*sha256).0))
        {
            let (once, over) = a.overflowing_add(b);
            let (twice, again) = once.overflowing_add(u64::from(carry));
            (*into, carry) = (twice, over || again);
        }
        Self(sum)
    }

    /// The digest after a route is removed.
    pub(crate) fn minus(self, sha256: &[u8; 32]) -> Self {
        let mut rest = [0; 4];
        let mut borrow = false;
        for (into, (a, b)) in rest
            .iter_mut()
            .zip(self.0.into_iter().zip(Self::from(*sha256).0))
        {
            let (once, under) = a.overflowing_sub(b);
            let (twice, again) = once.overflowing_sub(u64::from(borrow));
            (*into, borrow) = (twice, under || again);
        }
        Self(rest)
    }

    /// Big-endian, as on the wire and in the database.
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (limb, into) in self.0.iter().zip(bytes.rchunks_exact_mut(8)) {
            into.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        let mut limbs = [0; 4];
        for (limb, from) in limbs.iter_mut().zip(bytes.rchunks_exact(8)) {
            *limb = from.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        }
        Self(limbs)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [d, c, b, a] = self.0;
        write!(f, "{a:016x}{b:016x}{c:016x}{d:016x}")
    }
}

/// A point in the history of the route table. Equal cursors mean equal tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Revisions of two epochs do not compare.
    pub(crate) epoch: Arc<str>,
    /// The number of the write that made the table.
    pub(crate) revision: i64,
    /// The digest of the table at that revision.
    pub(crate) digest: Digest,
}

impl Cursor {
    pub(crate) fn new(
        epoch: impl Into<Arc<str>>,
        revision: i64,
        digest: impl Into<Digest>,
    ) -> Self {
        Self {
            epoch: epoch.into(),
            revision,
            digest: digest.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_carry_through_all_limbs_and_wrap() {
        let mut one = [0; 32];
        one[31] = 1;
        let most = Digest::from([0xff; 32]);
        assert_eq!(most.plus(&one), Digest::ZERO);
        assert_eq!(Digest::ZERO.minus(&one), most);
        let mut carried = [0; 32];
        carried[23] = 1;
        let mut low = [0; 32];
        low[24..].fill(0xff);
        assert_eq!(Digest::from(low).plus(&one).to_bytes(), carried);
    }

    proptest! {
        /// Addition is commutative, and subtraction undoes it.
        #[test]
        fn a_digest_is_a_sum(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
            let start = Digest::from(c);
            prop_assert_eq!(start.plus(&a).plus(&b), start.plus(&b).plus(&a));
            prop_assert_eq!(start.plus(&a).minus(&a), start);
            prop_assert_eq!(Digest::from(start.to_bytes()), start);
        }
    }
}
