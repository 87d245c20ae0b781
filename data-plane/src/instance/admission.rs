//! Who may enter an instance: its state and its requests in flight in one atomic word.
//!
//! ```text
//!            open                 reap: compare-exchange (OPEN, 0)
//!   CLOSED ───────► OPEN ─────────────────────────────────────────► SHUT
//!                    │  drain                   last guard leaves ▲
//!                    └──────────► DRAINING ───────────────────────┘
//! ```
//!
//! Because both live in one word, "no request is in it" and "none may enter any more" are one
//! step: an instance with a request in flight is never reaped, and a request never enters one that
//! is being stopped (laws 3 and 4 of ARCHITECTURE.md). Exactly one caller of [`Admission::reap`],
//! [`Admission::drain`], [`Admission::leave`] or [`Admission::shut`] is told that it shut the word;
//! that one sees to the stop.

use std::sync::atomic::{AtomicU64, Ordering};

const COUNT: u64 = 0xffff_ffff;
const OPEN: u64 = 1 << 32;
const DRAINING: u64 = 1 << 33;
const SHUT: u64 = 1 << 34;

/// Why a request may not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It has as many requests as it may.
    Full,
    /// It is not ready yet, or not any more.
    Closed,
}

/// The word. Starts closed, with no request.
#[derive(Debug, Default)]
pub struct Admission {
    word: AtomicU64,
}

impl Admission {
    /// Lets requests in. Does nothing once it drains or is shut.
    pub fn open(&self) {
        let _ = self
            .word
            .compare_exchange(0, OPEN, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes a place, unless `limit` are taken.
    ///
    /// # Errors
    /// [`Refused`]; nothing was taken then.
    pub fn enter(&self, limit: u32) -> Result<(), Refused> {
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
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }

    /// Gives a place back. True if this was the last one of a draining instance, which is now shut.
    pub fn leave(&self) -> bool {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before & COUNT > 0, "a place was given back twice");
        before & DRAINING != 0 && before & COUNT == 1 && self.shut_if(DRAINING)
    }

    /// Shuts it if it is open and no request is in it. True if this call did.
    pub fn reap(&self) -> bool {
        self.shut_if(OPEN)
    }

    /// Lets nobody in any more. True if no request was in it, so that it is now shut.
    pub fn drain(&self) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & (DRAINING | SHUT) == 0).then_some((word & COUNT) | DRAINING)
            });
        before.is_ok_and(|word| word & COUNT == 0) && self.shut_if(DRAINING)
    }

    /// Shuts it whatever is in it: its container is gone. True if it was not shut before.
    pub fn shut(&self) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & SHUT == 0).then_some((word & COUNT) | SHUT)
            });
        before.is_ok()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.word.load(Ordering::Acquire) & COUNT).unwrap_or(u32::MAX)
    }

    fn shut_if(&self, state: u64) -> bool {
        self.word
            .compare_exchange(state, SHUT, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
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
    fn nobody_enters_before_it_is_open_or_past_its_limit() {
        let admission = Admission::default();
        assert_eq!(admission.enter(1), Err(Refused::Closed));
        admission.open();
        assert_eq!(admission.enter(1), Ok(()));
        assert_eq!(admission.enter(1), Err(Refused::Full));
        assert!(!admission.leave());
        assert_eq!(admission.enter(1), Ok(()));
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
    fn the_last_guard_of_a_draining_instance_shuts_it() {
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
