//! The slot table: 100 slots, each of them a version.
//!
//! The control plane computes it and the feed carries it, so every node splits alike without shared
//! state. A version has exactly as many slots as it has percent of the traffic; a choice is one
//! array read.

use std::fmt;

/// Slots of a service: one a percent.
pub const SLOTS: usize = 100;

/// 100 indices into the versions of a [`super::Route`].
#[derive(Clone, PartialEq, Eq)]
pub struct Slots([u16; SLOTS]);

/// Why slots cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither none nor 100.
    #[error("there must be 100 slots, or none; got {0}")]
    Length(usize),
    /// A slot names a version that is not in the route.
    #[error("slot {slot} names version {version}, which is not among the versions")]
    UnknownVersion {
        /// Which slot.
        slot: usize,
        /// The version's number, as received.
        version: i64,
    },
}

impl Slots {
    /// From version numbers, given where each number is among the versions.
    ///
    /// # Errors
    /// If there are not 100, or one is not among the versions.
    pub fn new<N: Copy + Into<i64>>(
        numbers: &[N],
        index_of: impl Fn(N) -> Option<usize>,
    ) -> Result<Self, Error> {
        if numbers.len() != SLOTS {
            return Err(Error::Length(numbers.len()));
        }
        let mut slots = [0; SLOTS];
        for (slot, (place, &number)) in slots.iter_mut().zip(numbers).enumerate() {
            *place = index_of(number)
                .and_then(|at| u16::try_from(at).ok())
                .ok_or_else(|| Error::UnknownVersion {
                    slot,
                    version: number.into(),
                })?;
        }
        Ok(Self(slots))
    }

    /// The index in slot `at % 100`.
    #[inline]
    pub fn get(&self, at: usize) -> usize {
        usize::from(self.0[at % SLOTS])
    }

    /// How many slots hold this index: its percent.
    pub fn share(&self, index: usize) -> u32 {
        self.0
            .iter()
            .map(|&slot| u32::from(usize::from(slot) == index))
            .sum()
    }
}

impl fmt::Debug for Slots {
    /// As runs, because a hundred numbers cannot be read: `Slots(0x90 1x10)`.
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
