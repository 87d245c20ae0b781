//! Why a start failed, in words for the operator: what happened, and what to do.

use std::time::SystemTime;

use super::report::{FailureReason, StartFailure};
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
    let how = match exit {
        Exit {
            oom_killed: true, ..
        } => "was ended for want of memory; raise the version's memory".to_owned(),
        Exit {
            code: code @ 129..=192,
            ..
        } => format!("was ended by signal {}", code - 128),
        Exit { code: -1, .. } => "ended".to_owned(),
        Exit { code, .. } => format!("exited with code {code}"),
    };
    StartFailure {
        exit_code: (exit.code >= 0).then_some(exit.code),
        oom_killed: exit.oom_killed,
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
    new(reason, format!("{error}{remedy}"))
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
    }
}
