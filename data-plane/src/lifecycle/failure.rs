//! Why a start failed, in words for the operator: what happened, and what to do.

use std::time::SystemTime;

use super::report::{FailureReason, StartFailure};
use super::signal;
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
        Error::ImageMissing { .. }
        | Error::Pull { .. }
        | Error::Denied { .. }
        | Error::Credentials { .. } => FailureReason::Image,
        Error::NotFound(_)
        | Error::Refused(_)
        | Error::Unavailable(_)
        | Error::Away(_)
        | Error::Failed(_)
        | Error::NoSpace(_)
        | Error::NameTaken(_) => FailureReason::Engine,
    };
    let remedy = match &error {
        Error::NoSpace(_) => {
            ": free some on this node, by removing images that are not needed for example; it is \
             tried again meanwhile"
        }
        Error::Away(_) | Error::Unavailable(_) => "; it is tried again when the engine answers",
        Error::ImageMissing { .. } | Error::Pull { .. } => {
            ": check the reference and that this node reaches the registry, or load the image on the \
             node"
        }
        Error::Denied { remedy, .. } => &format!(": {remedy}"),
        _ => "",
    };
    StartFailure {
        engine_error: words_of(&error),
        ..new(reason, format!("{error}{remedy}"))
    }
}

/// What the engine or the registry behind it said, without our own words.
fn words_of(error: &Error) -> Option<String> {
    match error {
        Error::Pull { message, .. }
        | Error::Denied { message, .. }
        | Error::NotFound(message)
        | Error::Refused(message)
        | Error::Unavailable(message)
        | Error::Away(message)
        | Error::Failed(message)
        | Error::NoSpace(message)
        | Error::NameTaken(message) => Some(message.clone()),
        Error::ImageMissing { .. } | Error::Credentials { .. } => None,
    }
}

/// Its network went away under it: the pause container that held it has ended.
pub(super) fn network_lost(when: &str) -> StartFailure {
    new(
        FailureReason::Engine,
        format!(
            "the pause container that held its network ended {when}; leave containers with the label \
             cless.role=sandbox to cless"
        ),
    )
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
