//! How long an answer of the engine is waited for, and what one that is no success means.
//!
//! Four things must be told apart, because different things follow from them: nothing was asked
//! (`Away`), nothing is known (`Unavailable`), the engine tried and failed (`Failed`, `NoSpace`),
//! and it refused (`Refused`, `NotFound`, `NameTaken`).

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use bollard::errors::Error as BollardError;

use crate::runtime::Error;

/// What only reads: milliseconds where measured, and nothing else may wait for long because of it.
pub(super) const READ: Duration = Duration::from_secs(10);
/// What freezes or thaws: 16 ms where measured.
pub(super) const FREEZE: Duration = Duration::from_secs(10);
/// What makes or starts something. A start on a machine with twenty others starting took 3 s where
/// measured, so this is an order above.
pub(super) const MAKE: Duration = Duration::from_secs(30);
/// What takes something away, which nobody waits for.
pub(super) const TAKE_AWAY: Duration = Duration::from_secs(60);

/// Bounds a call and sorts its failure.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(sort),
        Err(_) => Err(Error::NoResponse(format!(
            "no answer within {} s",
            limit.as_secs()
        ))),
    }
}

/// Never reached: it asked for nothing.
pub(super) fn away(error: impl std::fmt::Display) -> Error {
    Error::NotSent(error.to_string())
}

pub(super) fn sort(error: BollardError) -> Error {
    match error {
        BollardError::DockerResponseServerError {
            status_code,
            message,
        } => by_status(status_code, message),
        BollardError::DockerStreamError { error } => failed(error),
        BollardError::SocketNotFoundError(path) => away(format!("there is no socket {path}")),
        BollardError::HyperLegacyError { err } if err.is_connect() => away(causes(&err)),
        BollardError::HyperLegacyError { err } => Error::NoResponse(causes(&err)),
        BollardError::IOError { err }
            if matches!(
                err.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            away(err)
        }
        other => Error::NoResponse(other.to_string()),
    }
}

/// What an answer says by its status, and by its words where the status does not tell.
fn by_status(status: u16, message: String) -> Error {
    match status {
        404 => Error::NotFound(message),
        409 if message.contains("is already in use by container") => Error::NameTaken(message),
        400..500 => Error::Refused(message),
        // Something in front of the engine speaks for it.
        502..=504 => Error::NoResponse(message),
        // The engine is there, but what runs its containers is not.
        _ if message.contains("containerd.sock") => Error::NoResponse(message),
        _ => failed(message),
    }
}

/// The engine tried and failed.
pub(super) fn failed(message: String) -> Error {
    match is_out_of_space(&message) {
        true => Error::NoSpace(message),
        false => Error::Failed(message),
    }
}

/// Whether a message, of the kernel at its root, is about a full disk.
pub(super) fn is_out_of_space(message: &str) -> bool {
    let message = message.to_lowercase();
    ["no space left on device", "disk quota exceeded"]
        .iter()
        .any(|words| message.contains(words))
}

/// An error with what caused it: the outermost says only that there was one.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(status: u16, message: &str) -> std::mem::Discriminant<Error> {
        std::mem::discriminant(&by_status(status, message.to_owned()))
    }

    fn like(error: fn(String) -> Error) -> std::mem::Discriminant<Error> {
        std::mem::discriminant(&error(String::new()))
    }

    #[test]
    fn answers_are_sorted_by_status_and_where_that_is_not_enough_by_words() {
        for (status, message, wanted) in [
            (404, "No such container: x", like(Error::NotFound)),
            (400, "invalid reference format", like(Error::Refused)),
            (
                409,
                "Conflict. The container name \"/x\" is already in use by container \"ab\".",
                like(Error::NameTaken),
            ),
            (409, "Container x is not running", like(Error::Refused)),
            (500, "OCI runtime create failed", like(Error::Failed)),
            (
                500,
                "mkdir /var/lib/docker/overlay2/x: no space left on device",
                like(Error::NoSpace),
            ),
            (
                500,
                "connection error: desc = \"transport: error while dialing: dial unix \
                 /run/containerd/containerd.sock: connect: connection refused\": unavailable",
                like(Error::NoResponse),
            ),
            (503, "upstream is away", like(Error::NoResponse)),
        ] {
            assert_eq!(kind(status, message), wanted, "{status} {message}");
        }
    }

    #[test]
    fn a_socket_that_is_not_there_or_not_listened_on_was_asked_for_nothing() {
        let missing = BollardError::SocketNotFoundError("/run/none.sock".to_owned());
        let refused = BollardError::IOError {
            err: ErrorKind::ConnectionRefused.into(),
        };
        for error in [missing, refused] {
            assert!(matches!(sort(error), Error::NotSent(_)));
        }
    }

    proptest! {
        #[test]
        fn only_what_a_client_did_wrong_counts_as_refused(status in 100u16..1000, message in ".{0,60}") {
            if matches!(by_status(status, message), Error::Refused(_) | Error::NotFound(_) | Error::NameTaken(_)) {
                prop_assert!((400..500).contains(&status));
            }
        }
    }
}
