//! Why a start failed, in words for the operator: what happened, and what to do.

use std::time::SystemTime;

use super::report::{FailureReason, StartFailure};
use super::{oci, signal};
use crate::runtime::{Error, Exit, Runtime};

/// The most lines of output kept of a container that ended.
const LOG_TAIL_LINES: usize = 20;

/// A container that ended `when`; asks the engine for its last words.
pub(super) async fn exited(
    runtime: &dyn Runtime,
    name: &str,
    exit: Exit,
    when: &str,
) -> StartFailure {
    let log_tail = runtime
        .log_tail(name, LOG_TAIL_LINES)
        .await
        .unwrap_or_default();
    let signal = signal::of_exit_code(exit.code);
    let how = match (exit, &signal) {
        (
            Exit {
                oom_killed: true, ..
            },
            _,
        ) => "was ended for want of memory; raise the version's memory".to_owned(),
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

/// The engine's refusal or silence.
pub(super) fn of_engine(error: Error) -> StartFailure {
    let reason = match error {
        Error::ImageMissing { .. } | Error::Pull { .. } => FailureReason::Image,
        Error::NotFound(_) | Error::Refused(_) | Error::Unavailable(_) => FailureReason::Engine,
    };
    let remedy = match reason {
        FailureReason::Image => {
            ": check the reference and that this node reaches the registry, or load the image on the \
             node"
        }
        _ => "",
    };
    StartFailure {
        engine_error: words_of(&error),
        ..new(reason, format!("{error}{remedy}"))
    }
}

/// The engine lacks the runtime that the node was told to use.
pub(super) fn unfit(why: oci::Unfit) -> StartFailure {
    new(FailureReason::Engine, why.to_string())
}

/// What the engine or the registry behind it said, without our own words.
fn words_of(error: &Error) -> Option<String> {
    match error {
        Error::Pull { message, .. }
        | Error::NotFound(message)
        | Error::Refused(message)
        | Error::Unavailable(message) => Some(message.clone()),
        Error::ImageMissing { .. } => None,
    }
}

/// A failure without a container's end.
pub(super) fn new(reason: FailureReason, message: String) -> StartFailure {
    StartFailure {
        reason,
        message,
        exit_code: None,
        oom_killed: false,
        log_tail: Vec::new(),
        at: SystemTime::now(),
        signal: None,
        last_probe: None,
        engine_error: None,
    }
}
