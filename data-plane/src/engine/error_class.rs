//! The meaning of a failed engine call: whether it may have taken effect, and what caused a failed
//! start. Pure.
//!
//! ```text
//!   call failed ──► outcome known? ── yes ──► return the error
//!                        │ no: no response, or the engine reports an internal failure
//!                        ▼
//!                   inspect the container ──► done | not done | unknown
//! ```
//!
//! Laws (tested below): an inspection counts as done exactly the state that the call requests.
//! Opposite calls are never both done. A version is never blamed for an unresponsive engine.

use crate::runtime::{ContainerState, Error};

/// A call that changes a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Start,
    Pause,
    Unpause,
    Stop,
    Remove,
}

/// The state of a container after a call; `None` if it does not exist.
pub(crate) type Observed = Option<ContainerState>;

/// Whether the call may have taken effect despite the error.
pub(crate) fn outcome_unknown(error: &Error) -> bool {
    matches!(
        error,
        Error::NoResponse(_) | Error::Failed(_) | Error::NameTaken(_)
    )
}

/// Whether the engine gave no response, so that further calls are pointless now.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    matches!(error, Error::NotSent(_) | Error::NoResponse(_))
}

/// Whether the call has taken effect on a container in this state.
pub(crate) fn is_done(call: Call, observed: Observed) -> bool {
    use ContainerState as C;
    match call {
        Call::Create => observed.is_some(),
        // An exited container did start: the task that probes it finds out why it exited.
        Call::Start => matches!(observed, Some(C::Running | C::Paused | C::Exited)),
        Call::Pause => observed == Some(C::Paused),
        Call::Unpause => matches!(observed, Some(C::Running)),
        Call::Stop => !matches!(observed, Some(C::Running | C::Paused)),
        Call::Remove => observed.is_none(),
    }
}

/// The cause of a failed start. It decides the back-off of the version and the answer to its
/// callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The version: its image, command or program. Back-off from 1 s to 5 min; callers are refused.
    Version,
    /// The engine does not answer. Starts resume when it does; callers wait for the grace period.
    Engine,
    /// The node, for example a full disk. Back-off of a few seconds at most; callers are refused.
    Node,
}

/// The cause of a failed call of a start.
pub(crate) fn cause(error: &Error, engine_available: bool) -> Cause {
    match error {
        Error::NotSent(_) => Cause::Engine,
        Error::NoResponse(_) if !engine_available => Cause::Engine,
        // The engine answers other calls; or it has lost the container or the node's network.
        Error::NoResponse(_)
        | Error::NoSpace(_)
        | Error::NotFound(_)
        | Error::NameTaken(_)
        // An unreadable file of the node, or a registry that it does not reach.
        | Error::RegistryUnavailable { .. }
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
    const STATES: [Observed; 5] = [
        None,
        Some(ContainerState::Created),
        Some(ContainerState::Running),
        Some(ContainerState::Paused),
        Some(ContainerState::Exited),
    ];

    /// The effect of a call on a container; `None` if the engine refuses it.
    fn carried_out(call: Call, before: Observed) -> Option<Observed> {
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
        fn a_call_is_done_exactly_if_it_took_effect(
            call in proptest::sample::select(&CALLS[..]),
            before in proptest::sample::select(&STATES[..]),
        ) {
            if let Some(after) = carried_out(call, before) {
                prop_assert!(is_done(call, after), "{call:?} of {before:?}");
                // Only a container that never ran is started.
                let asked_for = call != Call::Start || before == Some(ContainerState::Created);
                if after != before && asked_for {
                    prop_assert!(!is_done(call, before), "{call:?} of {before:?}");
                }
            }
        }

        #[test]
        fn opposite_calls_are_never_both_done(observed in proptest::sample::select(&STATES[..])) {
            prop_assert!(!(is_done(Call::Pause, observed) && is_done(Call::Unpause, observed)));
            prop_assert!(!(is_done(Call::Create, observed) && is_done(Call::Remove, observed)));
        }

        #[test]
        fn no_version_is_blamed_for_an_engine_that_does_not_answer(
            available in any::<bool>(), message in ".{0,20}"
        ) {
            let registry = Error::RegistryUnavailable { image: "app:1".into(), message: message.clone() };
            for error in [
                Error::NotSent(message.clone()), Error::NoResponse(message.clone()), Error::NoSpace(message), registry,
            ] {
                prop_assert_ne!(cause(&error, available), Cause::Version);
            }
        }
    }
}
