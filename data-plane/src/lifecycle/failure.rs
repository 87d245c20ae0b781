//! Failures of containers, in words for the operator: the event and its remedy.

use std::time::SystemTime;

use cless_proto::signal;

use crate::report::{FailureReason, StartFailure};
use crate::runtime::{Error, Exit, Runtime};

/// Lines of output kept of a container that ended.
const LOG_TAIL_LINES: usize = 20;

/// Engines, shells and the container's init add this to the number of the signal that ended a
/// process.
const SIGNAL_EXIT_BASE: i32 = 128;

/// The exit of a container that the engine cannot describe.
pub(crate) const UNKNOWN_EXIT: Exit = Exit {
    code: -1,
    oom_killed: false,
};

/// The failure of a container that ended `when`, with its last lines of output.
pub(crate) async fn exited(
    runtime: &dyn Runtime,
    name: &str,
    exit: Exit,
    when: &str,
) -> StartFailure {
    let log_tail = runtime
        .log_tail(name, LOG_TAIL_LINES)
        .await
        .unwrap_or_default();
    let signal = signal_of(exit.code);
    let how = match (exit, &signal) {
        (
            Exit {
                oom_killed: true, ..
            },
            _,
        ) => "ran out of memory (raise the version's limit)".to_owned(),
        (_, Some(signal)) => format!("was ended by {signal}"),
        (Exit { code: -1, .. }, None) => "ended".to_owned(),
        (Exit { code, .. }, None) => format!("exited with code {code}"),
    };
    StartFailure {
        exit_code: (exit.code >= 0).then_some(exit.code),
        oom_killed: exit.oom_killed,
        signal,
        log_tail,
        ..new(FailureReason::Exited, format!("the container {how} {when}"))
    }
}

/// The failure of an engine call.
pub(crate) fn of_engine(error: Error) -> StartFailure {
    let reason = match error {
        Error::ImageMissing { .. }
        | Error::Pull { .. }
        | Error::RegistryUnavailable { .. }
        | Error::Denied { .. }
        | Error::Credentials { .. } => FailureReason::Image,
        Error::NotFound(_)
        | Error::Refused(_)
        | Error::NoResponse(_)
        | Error::NotSent(_)
        | Error::Failed(_)
        | Error::NoSpace(_)
        | Error::NameTaken(_) => FailureReason::Engine,
    };
    let remedy = match &error {
        Error::NoSpace(_) => {
            ": free some on this node, for example by removing unused images; starts are retried \
             meanwhile"
        }
        Error::NotSent(_) | Error::NoResponse(_) => "; it is retried when the engine answers",
        Error::RegistryUnavailable { .. } => {
            ": check that this node reaches it; starts are retried meanwhile"
        }
        Error::ImageMissing { .. } | Error::Pull { .. } => {
            ": check the reference and that this node reaches the registry, or load the image on the \
             node"
        }
        Error::Denied { remedy, .. } => &format!(": {remedy}"),
        _ => "",
    };
    StartFailure {
        engine_error: engine_message(&error),
        ..new(reason, format!("{error}{remedy}"))
    }
}

/// The message of the engine or its registry, verbatim.
fn engine_message(error: &Error) -> Option<String> {
    match error {
        Error::Pull { message, .. }
        | Error::RegistryUnavailable { message, .. }
        | Error::Denied { message, .. }
        | Error::NotFound(message)
        | Error::Refused(message)
        | Error::NoResponse(message)
        | Error::NotSent(message)
        | Error::Failed(message)
        | Error::NoSpace(message)
        | Error::NameTaken(message) => Some(message.clone()),
        Error::ImageMissing { .. } | Error::Credentials { .. } => None,
    }
}

/// The failure of a container whose pause container ended.
pub(crate) fn network_lost(when: &str) -> StartFailure {
    new(
        FailureReason::Engine,
        format!(
            "the pause container that held its network ended {when}; leave containers with the label \
             cless.role=sandbox to cless"
        ),
    )
}

/// A failure without an exit.
pub(crate) fn new(reason: FailureReason, message: String) -> StartFailure {
    StartFailure::new(reason, message, SystemTime::now())
}

/// The signal that an exit code encodes, if any. A program may also exit with such a code by
/// itself; engines do not distinguish the two.
fn signal_of(exit_code: i32) -> Option<String> {
    let number = u8::try_from(exit_code.checked_sub(SIGNAL_EXIT_BASE)?).ok()?;
    (1..=signal::LAST)
        .contains(&number)
        .then(|| signal::name(number).map_or_else(|| format!("signal {number}"), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_over_128_stand_for_signals() {
        for (code, named) in [
            (137, Some("SIGKILL")),
            (139, Some("SIGSEGV")),
            (143, Some("SIGTERM")),
            (159, Some("SIGSYS")),
            (162, Some("signal 34")),
            (128, None),
            (193, None),
            (255, None),
            (1, None),
            (0, None),
            (-1, None),
            (i32::MIN, None),
        ] {
            assert_eq!(signal_of(code).as_deref(), named, "{code}");
        }
    }
}
