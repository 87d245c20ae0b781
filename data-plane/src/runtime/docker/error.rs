//! Timeouts of engine calls and classification of their failures.
//!
//! Callers distinguish four cases: the request was not sent, the outcome is unknown, the engine
//! failed (`Failed`, `NoSpace`), and the engine refused (`Refused`, `NotFound`, `NameTaken`).

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use bollard::errors::Error as BollardError;

use crate::runtime::Error;

/// Timeout of reads, measured at milliseconds.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of pause and unpause, measured at 16 ms.
pub(super) const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of creating or starting, an order of magnitude above the 3 s measured for a start beside
/// twenty others.
pub(super) const CREATE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of removals, which run in the background.
pub(super) const REMOVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Applies a timeout to a call and classifies its failure.
pub(super) async fn with_timeout<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(classify),
        Err(_) => Err(Error::NoResponse(format!(
            "no response within {} s",
            limit.as_secs()
        ))),
    }
}

/// The engine was not reached and has received no request.
pub(super) fn not_sent(error: impl std::fmt::Display) -> Error {
    Error::NotSent(error.to_string())
}

pub(super) fn classify(error: BollardError) -> Error {
    match error {
        BollardError::DockerResponseServerError {
            status_code,
            message,
        } => classify_status(status_code, message),
        BollardError::DockerStreamError { error } => failed(error),
        BollardError::SocketNotFoundError(path) => {
            not_sent(format!("socket {path} does not exist"))
        }
        BollardError::HyperLegacyError { err } if err.is_connect() => not_sent(causes(&err)),
        BollardError::HyperLegacyError { err } => Error::NoResponse(causes(&err)),
        BollardError::IOError { err }
            if matches!(
                err.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            not_sent(err)
        }
        other => Error::NoResponse(other.to_string()),
    }
}

/// Classifies a response by its status, and by its message where the status is ambiguous.
fn classify_status(status: u16, message: String) -> Error {
    match status {
        404 => Error::NotFound(message),
        409 if message.contains("is already in use by container") => Error::NameTaken(message),
        400..500 => Error::Refused(message),
        // A proxy in front of the engine responded.
        502..=504 => Error::NoResponse(message),
        // The engine responds, but its container runtime does not.
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

/// Whether the kernel reported a full disk.
pub(super) fn is_out_of_space(message: &str) -> bool {
    let message = message.to_lowercase();
    ["no space left on device", "disk quota exceeded"]
        .iter()
        .any(|words| message.contains(words))
}

/// An error with its causes; the outermost error lacks the details.
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
        std::mem::discriminant(&classify_status(status, message.to_owned()))
    }

    fn like(error: fn(String) -> Error) -> std::mem::Discriminant<Error> {
        std::mem::discriminant(&error(String::new()))
    }

    #[test]
    fn responses_are_classified_by_status_and_then_by_message() {
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
            (503, "upstream is unavailable", like(Error::NoResponse)),
        ] {
            assert_eq!(kind(status, message), wanted, "{status} {message}");
        }
    }

    #[test]
    fn a_missing_or_unattended_socket_received_no_request() {
        let missing = BollardError::SocketNotFoundError("/run/none.sock".to_owned());
        let refused = BollardError::IOError {
            err: ErrorKind::ConnectionRefused.into(),
        };
        for error in [missing, refused] {
            assert!(matches!(classify(error), Error::NotSent(_)));
        }
    }

    proptest! {
        #[test]
        fn only_client_errors_count_as_refused(status in 100u16..1000, message in ".{0,60}") {
            if matches!(classify_status(status, message), Error::Refused(_) | Error::NotFound(_) | Error::NameTaken(_)) {
                prop_assert!((400..500).contains(&status));
            }
        }
    }
}
