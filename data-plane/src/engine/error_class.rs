//! What an engine's failure means: whether it may have done what was asked after all, and whose fault
//! it is that a start came to nothing. Pure.
//!
//! ```text
//!   call failed ──► told for certain? ── yes ──► that is it
//!                        │ no: no answer, or the engine says that it failed
//!                        ▼
//!                   look at the container ──► done | not done | nobody knows
//! ```
//!
//! Laws (tested below): what a look shows as done is what the call asks for, whatever the call; one
//! that is done and one that is undone are never both concluded from the same look; a version is never
//! blamed for an engine that does not answer.

use crate::runtime::{ContainerState, Error};

/// A call that changes a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Make it.
    Create,
    /// Run its process.
    Start,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Unpause,
    /// End its process.
    Stop,
    /// Take it away.
    Remove,
}

/// What a look at the container after the call found: its state, or that there is none.
pub type Seen = Option<ContainerState>;

/// True if the failure leaves open whether the call was carried out.
pub fn is_doubtful(error: &Error) -> bool {
    matches!(
        error,
        Error::Unavailable(_) | Error::Failed(_) | Error::NameTaken(_)
    )
}

/// True if the engine gave no answer at all, so that nothing more can be asked of it now.
pub fn is_no_answer(error: &Error) -> bool {
    matches!(error, Error::Away(_) | Error::Unavailable(_))
}

/// Whether a container that looks so has had the call done to it.
pub fn is_done(call: Call, seen: Seen) -> bool {
    use ContainerState as C;
    match call {
        Call::Create => seen.is_some(),
        // One that has ended did run: why it ended is found by whoever waits for it to answer.
        Call::Start => matches!(seen, Some(C::Running | C::Paused | C::Exited)),
        Call::Pause => seen == Some(C::Paused),
        Call::Unpause => matches!(seen, Some(C::Running)),
        Call::Stop => !matches!(seen, Some(C::Running | C::Paused)),
        Call::Remove => seen.is_none(),
    }
}

/// Why a start came to nothing: it says how long the version is left alone, and what its callers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The version: its image, its command, its program. Backs off from 1 s to 5 min, callers are
    /// refused.
    Version,
    /// The engine does not answer. Starts go on as soon as it does, and callers wait for that, for a
    /// while.
    Engine,
    /// The node cannot run what it is asked to: its disk is full, say. Backs off to a few seconds at
    /// most, callers are refused.
    Node,
}

/// Whose fault a failed call of a start is. `away`: the engine is known not to answer.
pub fn cause(error: &Error, away: bool) -> Cause {
    match error {
        Error::Away(_) => Cause::Engine,
        Error::Unavailable(_) if away => Cause::Engine,
        // It answers, but not this; or it has lost what it had just made, or the node's network.
        Error::Unavailable(_)
        | Error::NoSpace(_)
        | Error::NotFound(_)
        | Error::NameTaken(_)
        // A file of the node's that cannot be read.
        | Error::Credentials { .. } => Cause::Node,
        Error::ImageMissing { .. }
        | Error::Pull { .. }
        | Error::Denied { .. }
        | Error::Refused(_)
        | Error::Failed(_) => Cause::Version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALLS: [Call; 6] = [
        Call::Create,
        Call::Start,
        Call::Pause,
        Call::Unpause,
        Call::Stop,
        Call::Remove,
    ];
    const SIGHTS: [Seen; 5] = [
        None,
        Some(ContainerState::Created),
        Some(ContainerState::Running),
        Some(ContainerState::Paused),
        Some(ContainerState::Exited),
    ];

    /// What a call makes of a container, as an engine does it; `None` if it refuses.
    fn carried_out(call: Call, before: Seen) -> Option<Seen> {
        use ContainerState as C;
        Some(match (call, before) {
            (Call::Create, None) => Some(C::Created),
            (Call::Start, Some(C::Created | C::Exited | C::Running)) => Some(C::Running),
            (Call::Pause, Some(C::Running)) => Some(C::Paused),
            (Call::Unpause, Some(C::Paused)) => Some(C::Running),
            (Call::Stop, Some(C::Running | C::Paused | C::Exited)) => Some(C::Exited),
            (Call::Stop, other) => other,
            (Call::Remove, _) => None,
            _ => return None,
        })
    }

    proptest! {
        #[test]
        fn what_was_carried_out_looks_done_and_what_was_not_does_not(
            call in proptest::sample::select(&CALLS[..]),
            before in proptest::sample::select(&SIGHTS[..]),
        ) {
            if let Some(after) = carried_out(call, before) {
                prop_assert!(is_done(call, after), "{call:?} of {before:?}");
                // A start is asked only of one that was never started.
                let asked_for = call != Call::Start || before == Some(ContainerState::Created);
                if after != before && asked_for {
                    prop_assert!(!is_done(call, before), "{call:?} of {before:?}");
                }
            }
        }

        #[test]
        fn freezing_and_thawing_are_never_both_done(seen in proptest::sample::select(&SIGHTS[..])) {
            prop_assert!(!(is_done(Call::Pause, seen) && is_done(Call::Unpause, seen)));
            prop_assert!(!(is_done(Call::Create, seen) && is_done(Call::Remove, seen)));
        }

        #[test]
        fn no_version_is_blamed_for_an_engine_that_does_not_answer(
            away in any::<bool>(), message in ".{0,20}"
        ) {
            for error in [Error::Away(message.clone()), Error::Unavailable(message.clone()), Error::NoSpace(message)] {
                prop_assert_ne!(cause(&error, away), Cause::Version);
            }
        }
    }
}
