//! Admission to an instance: its state and its number of requests in one atomic word.
//!
//! ```text
//!            open                 reap: compare-exchange (OPEN, 0)
//!   CLOSED ───────► OPEN ─────────────────────────────────────────► SHUT
//!                  │ ▲ │ drain                  last guard leaves ▲ ▲
//!   freeze: (OPEN, │ │ └─────────► DRAINING ──────────────────────┘ │ reap, drain
//!   0) ──► FROZEN  ▼ │ thaw                                         │
//!                FROZEN ────────────────────────────────────────────┘
//! ```
//!
//! One word holds both, so checking that no request is inside and refusing new ones is one step. An
//! instance with a request is never reaped or frozen, and no request enters an instance that stops
//! or is paused (laws 3 and 4 of ARCHITECTURE.md). Exactly one caller of [`Admission::reap`],
//! [`Admission::drain`], [`Admission::leave`] or [`Admission::shut`] observes the transition to
//! SHUT; it stops the container.
//!
//! `super::atomic` is the standard library's here. `tests/loom` includes this file with loom's
//! atomics and checks every interleaving of these calls.

use super::atomic::{AtomicU64, Ordering};

const COUNT: u64 = 0xffff_ffff;
const OPEN: u64 = 1 << 32;
const DRAINING: u64 = 1 << 33;
const SHUT: u64 = 1 << 34;
const FROZEN: u64 = 1 << 35;

/// The reason why a request cannot enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// All slots are taken.
    Full,
    /// The instance is not open.
    Closed,
}

/// The word; closed and empty at first.
#[derive(Debug, Default)]
pub struct Admission {
    word: AtomicU64,
}

impl Admission {
    /// Opens a closed instance. Does nothing in any other state.
    pub fn open(&self) {
        let _ = self
            .word
            .compare_exchange(0, OPEN, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes a slot, unless `limit` are taken. Returns the number of taken slots, including this
    /// one.
    ///
    /// # Errors
    /// [`Refused`]; no slot is taken then.
    pub fn enter(&self, limit: u32) -> Result<u32, Refused> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & !COUNT != OPEN {
                return Err(Refused::Closed);
            }
            if word & COUNT >= u64::from(limit) {
                return Err(Refused::Full);
            }
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(slots(word + 1)),
                Err(now) => word = now,
            }
        }
    }

    /// Returns a slot. True if this was the last one of a draining instance, which is now shut.
    pub fn leave(&self) -> bool {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before & COUNT > 0, "a slot was returned twice");
        before & DRAINING != 0 && before & COUNT == 1 && self.replace(DRAINING, SHUT)
    }

    /// Freezes an open instance without requests. True if this call did.
    pub fn freeze(&self) -> bool {
        self.replace(OPEN, FROZEN)
    }

    /// Opens a frozen instance. True if this call did.
    pub fn thaw(&self) -> bool {
        self.replace(FROZEN, OPEN)
    }

    /// Shuts an open or frozen instance without requests. True if this call did.
    pub fn reap(&self) -> bool {
        self.replace(OPEN, SHUT) || self.replace(FROZEN, SHUT)
    }

    /// Refuses new requests for good. True if it had no request and is now shut.
    pub fn drain(&self) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & (DRAINING | SHUT) == 0).then_some((word & COUNT) | DRAINING)
            });
        before.is_ok_and(|word| word & COUNT == 0) && self.replace(DRAINING, SHUT)
    }

    /// Shuts it despite requests inside, because its container is gone. True if this call did.
    pub fn shut(&self) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & SHUT == 0).then_some((word & COUNT) | SHUT)
            });
        before.is_ok()
    }

    /// Whether requests may enter while slots are free.
    pub fn is_open(&self) -> bool {
        self.word.load(Ordering::Relaxed) & !COUNT == OPEN
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        slots(self.word.load(Ordering::Acquire))
    }

    /// A transition that requires no request in flight.
    fn replace(&self, from: u64, to: u64) -> bool {
        self.word
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

fn slots(word: u64) -> u32 {
    u32::try_from(word & COUNT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn open() -> Admission {
        let admission = Admission::default();
        admission.open();
        admission
    }

    #[test]
    fn no_request_enters_before_it_is_open_or_beyond_its_limit() {
        let admission = Admission::default();
        assert_eq!(admission.enter(1), Err(Refused::Closed));
        admission.open();
        assert_eq!(admission.enter(1), Ok(1));
        assert_eq!(admission.enter(1), Err(Refused::Full));
        assert!(!admission.leave());
        assert_eq!(admission.enter(1), Ok(1));
    }

    #[test]
    fn reaping_needs_an_empty_instance_and_happens_once() {
        let admission = open();
        admission.enter(9).unwrap();
        assert!(!admission.reap());
        admission.leave();
        assert!(admission.reap());
        assert!(!admission.reap());
        assert_eq!(admission.enter(9), Err(Refused::Closed));
    }

    #[test]
    fn the_last_request_of_a_draining_instance_shuts_it() {
        let admission = open();
        admission.enter(9).unwrap();
        admission.enter(9).unwrap();
        assert!(!admission.drain());
        assert_eq!(admission.enter(9), Err(Refused::Closed));
        assert!(!admission.leave());
        assert!(admission.leave());
        assert!(!admission.drain(), "shut is the end");
    }

    #[test]
    fn an_instance_that_never_opened_drains_at_once() {
        let admission = Admission::default();
        assert!(admission.drain());
        admission.open();
        assert_eq!(admission.enter(1), Err(Refused::Closed));
    }

    #[test]
    fn only_an_empty_instance_freezes_and_no_request_enters_until_it_thaws() {
        let admission = Admission::default();
        assert!(!admission.freeze(), "it never opened");
        admission.open();
        admission.enter(9).unwrap();
        assert!(!admission.freeze());
        admission.leave();
        assert!(admission.freeze());
        assert_eq!(admission.enter(9), Err(Refused::Closed));
        admission.open();
        assert_eq!(admission.enter(9), Err(Refused::Closed), "only a thaw");
        assert!(admission.thaw());
        assert_eq!(admission.enter(9), Ok(1));
        assert!(!admission.thaw());
    }

    #[test]
    fn a_frozen_instance_is_reaped_or_drained_at_once() {
        for end in [Admission::reap, Admission::drain, Admission::shut] {
            let admission = open();
            assert!(admission.freeze());
            assert!(end(&admission));
            assert!(!admission.thaw(), "shut is the end");
            assert_eq!(admission.enter(9), Err(Refused::Closed));
        }
    }

    #[test]
    fn exactly_one_of_many_threads_shuts_it_and_none_enters_after() {
        for round in 0..200 {
            let admission = open();
            let shuts = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (admission, shuts) = (&admission, &shuts);
                    scope.spawn(move || {
                        for _ in 0..50 {
                            if admission.enter(3).is_ok() && admission.leave() {
                                shuts.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        let did = if (thread + round) % 2 == 0 {
                            admission.drain()
                        } else {
                            admission.reap()
                        };
                        shuts.fetch_add(u32::from(did), Ordering::Relaxed);
                    });
                }
            });
            assert_eq!(shuts.load(Ordering::Relaxed), 1);
            assert_eq!(admission.in_flight(), 0);
        }
    }
}
