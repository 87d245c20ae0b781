//! The slot table: 100 slots, each of which holds a version.
//!
//! The control plane computes the table and the feed distributes it, so all nodes split alike
//! without shared state. A version has as many slots as percent of the traffic; a choice is one
//! array read.

use std::fmt;

/// Number of slots of a service: one per percent.
pub const SLOTS: usize = 100;

/// One hundred indices into the versions of a [`super::Route`].
#[derive(Clone, PartialEq, Eq)]
pub struct Slots([u16; SLOTS]);

/// Reasons why a slot list is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The list has neither 0 nor 100 slots.
    #[error("there must be 100 slots or none, not {0}")]
    Length(usize),
    /// A slot names a version that the route lacks.
    #[error("slot {slot} names version {version}, which is not among the versions")]
    UnknownVersion {
        /// Index of the slot.
        slot: usize,
        /// The version number as received.
        version: i64,
    },
}

impl Slots {
    /// Converts version numbers to indices by `index_of`.
    ///
    /// # Errors
    /// If there are not 100 numbers, or `index_of` rejects one.
    pub fn new<N: Copy + Into<i64>>(
        numbers: &[N],
        index_of: impl Fn(N) -> Option<usize>,
    ) -> Result<Self, Error> {
        if numbers.len() != SLOTS {
            return Err(Error::Length(numbers.len()));
        }
        let mut slots = [0; SLOTS];
        for (slot, (index, &number)) in slots.iter_mut().zip(numbers).enumerate() {
            *index = index_of(number)
                .and_then(|at| u16::try_from(at).ok())
                .ok_or_else(|| Error::UnknownVersion {
                    slot,
                    version: number.into(),
                })?;
        }
        Ok(Self(slots))
    }

    /// The version index in slot `at % 100`.
    #[inline]
    pub fn get(&self, at: usize) -> usize {
        usize::from(self.0[at % SLOTS])
    }

    /// The number of slots with this index, which is its percentage.
    pub fn share(&self, index: usize) -> u32 {
        self.0
            .iter()
            .map(|&slot| u32::from(usize::from(slot) == index))
            .sum()
    }
}

impl fmt::Debug for Slots {
    /// Run-length encoded for readability: `Slots(0x90 1x10)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slots(")?;
        for (at, run) in self.0.chunk_by(|a, b| a == b).enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(f, "{gap}{}x{}", run[0], run.len())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_must_name_a_version() {
        let known = |number: i32| (number == 1).then_some(0);
        assert_eq!(Slots::new(&[1; 99], known), Err(Error::Length(99)));
        let mut numbers = [1; SLOTS];
        numbers[7] = 2;
        assert_eq!(
            Slots::new(&numbers, known),
            Err(Error::UnknownVersion {
                slot: 7,
                version: 2
            })
        );
        numbers[7] = 1;
        let slots = Slots::new(&numbers, known).unwrap();
        assert_eq!((slots.share(0), slots.share(1)), (100, 0));
        assert_eq!(format!("{slots:?}"), "Slots(0x100)");
    }
}
