//! Errors of commands, and their only mapping to messages, hints and exit codes.
//!
//! [`Error::report`] yields lines `error: field: reason`, lines `hint: remedy` and a code of [`exit`].
//! Pure: nothing is printed here.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::text;

/// Exit codes of the process.
pub(crate) mod exit {
    /// Any other error.
    pub(crate) const ERROR: u8 = 1;
    /// Invalid command or value; nothing was changed.
    pub(crate) const USAGE: u8 = 2;
    /// Not authenticated or not authorized.
    pub(crate) const AUTH: u8 = 4;
    /// The resource does not exist.
    pub(crate) const NOT_FOUND: u8 = 5;
    /// The resource exists already, was modified concurrently, or its state forbids the change.
    pub(crate) const CONFLICT: u8 = 6;
    /// The version failed verification or is unverified; traffic is unchanged.
    pub(crate) const VERIFICATION_FAILED: u8 = 7;
    /// No response in time; the change may have been applied.
    pub(crate) const OUTCOME_UNKNOWN: u8 = 8;
    /// Interrupted by SIGINT (128 + 2).
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// The effect of a repeated call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idempotency {
    /// The call changes nothing.
    ReadOnly,
    /// A repetition has no further effect: the call carries a request id or sets a state.
    Idempotent,
    /// A repetition may be rejected because the first call succeeded.
    NotIdempotent,
}

/// The failure of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Invalid command or value.
    #[error("{message}")]
    Usage {
        message: String,
        hint: Option<String>,
    },
    /// Invalid lines of a file, each with its place and remedy.
    #[error("{}", lines.join("; "))]
    File { lines: Vec<String> },
    /// The state of the service forbids the change, as found by the CLI itself.
    #[error("{message}")]
    Conflict { message: String, hint: String },
    /// No connection to a control plane.
    #[error("cannot reach the control plane {}", attempted(attempts))]
    Connect { attempts: Vec<ConnectAttempt> },
    /// The control plane rejected the call or did not respond.
    #[error("{operation}: {}", status.message())]
    Api {
        operation: String,
        idempotency: Idempotency,
        status: Box<Status>,
    },
    /// A version failed verification; `failures` has an entry per node.
    #[error("{version} failed verification; traffic is unchanged")]
    VerificationFailed {
        version: String,
        failures: Vec<String>,
        hints: Vec<String>,
    },
    /// A verification ended without a verdict; `reasons` has an entry per node.
    #[error("{version} is unverified; traffic is unchanged")]
    Unverified {
        version: String,
        reasons: Vec<String>,
        hints: Vec<String>,
    },
    /// The change may have been applied.
    #[error("{message}")]
    OutcomeUnknown { message: String, hint: String },
    /// The user declined the prompt.
    #[error("cancelled: nothing was changed")]
    Declined,
    /// `cless dev` failed to start.
    #[error("{message}")]
    Dev {
        message: String,
        hint: Option<String>,
    },
    /// A file, the terminal or the runtime failed.
    #[error("{operation}: {source}")]
    Io {
        operation: String,
        source: std::io::Error,
    },
    /// SIGINT; `hints` describe unfinished work.
    #[error("interrupted")]
    Interrupted { hints: Vec<String> },
    /// An error with further hints, such as what the command has left.
    #[error("{source}")]
    WithHints {
        #[source]
        source: Box<Self>,
        hints: Vec<String>,
    },
}

/// A server that could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectAttempt {
    pub(crate) server: String,
    pub(crate) reason: String,
    /// It presents another authority than the one that is trusted.
    pub(crate) is_untrusted: bool,
}

/// `at SERVER: REASON`, joined.
fn attempted(attempts: &[ConnectAttempt]) -> String {
    let attempts = attempts.iter();
    let attempts = attempts.map(|one| format!("at {}: {}", one.server, one.reason));
    attempts.collect::<Vec<_>>().join(", ")
}

/// The presentation of an [`Error`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ErrorReport {
    /// Each is printed after `error: ` and may have indented continuation lines.
    pub(crate) errors: Vec<String>,
    /// Each is printed after `hint: `.
    pub(crate) hints: Vec<String>,
    pub(crate) exit: u8,
}

/// An error for programs, the object under `error` on stderr with `-o json`.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorObject {
    /// Name of the gRPC code.
    code: &'static str,
    /// The messages, joined by line breaks.
    message: String,
    /// `ErrorInfo.reason` of the control plane, or a reason of this program. Empty: none.
    reason: String,
    hints: Vec<String>,
    exit_code: u8,
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl Error {
    /// The gRPC code, if the control plane returned a status.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Api { status, .. } => Some(status.code()),
            Self::WithHints { source, .. } => source.code(),
            _ => None,
        }
    }

    /// Whether the answer cannot come from a control plane, or from none that works.
    pub(crate) fn is_unlike_the_api(&self) -> bool {
        let Self::Api { status, .. } = self else {
            return false;
        };
        // A transport error may be the first sign that the server does not speak gRPC.
        let is_transport = std::error::Error::source(&**status).is_some();
        status.get_details_error_info().is_none()
            && (is_transport
                || matches!(
                    status.code(),
                    Code::Unimplemented | Code::Unknown | Code::Internal | Code::Unavailable
                ))
    }

    /// The name of the resource that does not exist.
    pub(crate) fn missing_resource(&self) -> Option<String> {
        match self {
            Self::Api { status, .. } if status.code() == Code::NotFound => {
                let resource = status.get_details_resource_info()?;
                Some(resource.resource_name)
            }
            Self::WithHints { source, .. } => source.missing_resource(),
            _ => None,
        }
    }

    /// The name of the gRPC code that fits the error, and the reason of the control plane or of this
    /// program.
    fn code_and_reason(&self) -> (&'static str, String) {
        match self {
            Self::Usage { .. } | Self::File { .. } => ("INVALID_ARGUMENT", "USAGE".to_owned()),
            Self::Conflict { .. } => ("FAILED_PRECONDITION", String::new()),
            Self::Connect { .. } => ("UNAVAILABLE", "NO_CONNECTION".to_owned()),
            Self::Api { status, .. } => {
                (code_name(status.code()), self.reason().unwrap_or_default())
            }
            Self::VerificationFailed { .. } => ("FAILED_PRECONDITION", "VERSION_FAILED".to_owned()),
            Self::Unverified { .. } => ("FAILED_PRECONDITION", "VERSION_UNVERIFIED".to_owned()),
            Self::OutcomeUnknown { .. } => ("DEADLINE_EXCEEDED", "OUTCOME_UNKNOWN".to_owned()),
            Self::Declined => ("CANCELLED", "DECLINED".to_owned()),
            Self::Interrupted { .. } => ("CANCELLED", "INTERRUPTED".to_owned()),
            Self::Dev { .. } | Self::Io { .. } => ("INTERNAL", String::new()),
            Self::WithHints { source, .. } => source.code_and_reason(),
        }
    }

    /// The fields that the control plane refused, each with the reason.
    pub(crate) fn violations(&self) -> Vec<(String, String)> {
        match self {
            Self::Api { status, .. } => {
                let details = status.get_error_details();
                let bad = details.bad_request().into_iter();
                let fields = bad.flat_map(|bad| bad.field_violations.clone());
                fields.map(|one| (one.field, one.description)).collect()
            }
            Self::WithHints { source, .. } => source.violations(),
            _ => Vec::new(),
        }
    }

    /// Adds hints after those of the error.
    pub(crate) fn with_hints(self, hints: Vec<String>) -> Self {
        if hints.is_empty() {
            return self;
        }
        Self::WithHints {
            source: Box::new(self),
            hints,
        }
    }

    /// The reason of the status's `ErrorInfo` (AIP-193), if it has one.
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Api { status, .. } => status.get_details_error_info().map(|info| info.reason),
            Self::WithHints { source, .. } => source.reason(),
            _ => None,
        }
    }

    /// Whether the reader closed the pipe, as in `cless ... | head`.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The error for programs.
    pub(crate) fn object(&self) -> ErrorObject {
        let (code, reason) = self.code_and_reason();
        let report = self.report();
        ErrorObject {
            code,
            message: report.errors.join("\n"),
            reason,
            hints: report.hints,
            exit_code: report.exit,
        }
    }

    /// Messages, hints and exit code. A message of the API may quote text of a node or of another
    /// client; each is one line, or lines indented by this program.
    pub(crate) fn report(&self) -> ErrorReport {
        let mut report = self.raw_report();
        report.hints = report.hints.iter().map(|hint| text::clean(hint)).collect();
        report
    }

    fn raw_report(&self) -> ErrorReport {
        let one = |exit: u8, hints: Vec<String>| ErrorReport {
            errors: vec![text::clean(&self.to_string())],
            hints,
            exit,
        };
        match self {
            Self::Usage { hint, .. } => one(exit::USAGE, hint.iter().cloned().collect()),
            Self::File { lines } => ErrorReport {
                errors: lines.iter().map(|line| text::clean(line)).collect(),
                hints: Vec::new(),
                exit: exit::USAGE,
            },
            Self::Conflict { hint, .. } => one(exit::CONFLICT, vec![hint.clone()]),
            Self::Connect { attempts } => one(exit::ERROR, connect_hints(attempts)),
            Self::Api {
                operation,
                idempotency,
                status,
            } => status_report(operation, *idempotency, status),
            Self::VerificationFailed {
                failures: reasons,
                hints,
                ..
            }
            | Self::Unverified { reasons, hints, .. } => {
                let mut report = one(exit::VERIFICATION_FAILED, hints.clone());
                report.errors.extend(reasons.iter().cloned());
                report
            }
            Self::WithHints { source, hints } => {
                let mut report = source.raw_report();
                report.hints.extend(hints.iter().cloned());
                report
            }
            Self::OutcomeUnknown { hint, .. } => one(exit::OUTCOME_UNKNOWN, vec![hint.clone()]),
            Self::Dev { hint, .. } => one(exit::ERROR, hint.iter().cloned().collect()),
            Self::Declined | Self::Io { .. } => one(exit::ERROR, Vec::new()),
            Self::Interrupted { hints } => one(exit::INTERRUPTED, hints.clone()),
        }
    }
}

fn connect_hints(attempts: &[ConnectAttempt]) -> Vec<String> {
    let untrusted = attempts.iter().filter(|attempt| attempt.is_untrusted);
    let mut hints: Vec<String> = untrusted
        .map(|attempt| {
            format!(
                "compare the fingerprint with the log of the control plane; if it changed on \
                 purpose: cless login {} --ca-fingerprint FINGERPRINT",
                attempt.server
            )
        })
        .collect();
    if hints.is_empty() {
        hints = vec![
            "is the control plane running? start one with `cless dev`".to_owned(),
            "if it has another address, set --server or --context".to_owned(),
        ];
    }
    hints
}

/// Maps a gRPC status and its google.rpc details.
fn status_report(operation: &str, idempotency: Idempotency, status: &Status) -> ErrorReport {
    let details = status.get_error_details();
    let unknown = idempotency != Idempotency::ReadOnly && has_no_response(status);
    let exit = match status.code() {
        _ if unknown => exit::OUTCOME_UNKNOWN,
        Code::Unauthenticated | Code::PermissionDenied => exit::AUTH,
        Code::NotFound => exit::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => exit::CONFLICT,
        Code::InvalidArgument | Code::OutOfRange => exit::USAGE,
        _ => exit::ERROR,
    };
    let mut hints = field_hints(&details);
    if unknown {
        hints.push("the change may have been applied: check before you retry".to_owned());
    } else {
        hints.extend(code_hint(status.code(), &details));
    }
    ErrorReport {
        errors: messages(operation, status, &details),
        hints,
        exit,
    }
}

/// Whether the call timed out or its connection broke.
fn has_no_response(status: &Status) -> bool {
    let is_transport_error = std::error::Error::source(status).is_some();
    status.code() == Code::DeadlineExceeded
        || (is_transport_error
            && matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled
            ))
}

fn messages(operation: &str, status: &Status, details: &ErrorDetails) -> Vec<String> {
    let fields = details
        .bad_request()
        .into_iter()
        .flat_map(|bad| &bad.field_violations);
    let fields = fields.map(|v| format!("{}: {}", v.field, v.description));
    let states = details
        .precondition_failure()
        .into_iter()
        .flat_map(|bad| &bad.violations);
    let states = states.map(|v| match v.description.contains(&v.subject) {
        true => v.description.clone(),
        false => format!("{}: {}", v.subject, v.description),
    });
    let mut lines: Vec<String> = fields
        .chain(states)
        .map(|line| text::clean(&line))
        .collect();
    if lines.is_empty() {
        let message = match status.message() {
            "" => status.code().description(),
            message => message,
        };
        let named = details
            .resource_info()
            .map(|resource| resource.resource_name.as_str());
        let line = match (status.code(), named) {
            // The message may already name it.
            (Code::NotFound | Code::AlreadyExists | Code::Aborted, Some(name))
                if !name.is_empty() && !message.contains(name) =>
            {
                format!("{name}: {message}")
            }
            (Code::NotFound | Code::AlreadyExists | Code::Aborted, _)
            | (Code::InvalidArgument | Code::FailedPrecondition, _) => message.to_owned(),
            _ => format!("{operation}: {message}"),
        };
        lines.push(text::clean(&line));
    }
    lines
}

/// Names the flags that set the invalid fields.
fn field_hints(details: &ErrorDetails) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for violation in details
        .bad_request()
        .into_iter()
        .flat_map(|bad| &bad.field_violations)
    {
        if let Some(flag) = flag_of(&violation.field) {
            let hint = format!("`{}` is set by {flag}", text::clean(&violation.field));
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
    }
    hints
}

/// Maps `version.spec.env["A B"]` to `--env`; `None` for a field without a flag.
fn flag_of(field: &str) -> Option<String> {
    let path = field.split('[').next().unwrap_or(field);
    let mut names = path.rsplit('.');
    let last = names.next()?;
    let parent = names.next().unwrap_or_default();
    let flag = match (parent, last) {
        ("spec", "image" | "port" | "env" | "command" | "protocol" | "tmpfs" | "user") => last,
        ("spec", "stop_signal") => "stop-signal",
        ("spec", "stop_grace") => "stop-grace",
        ("spec", "args") => "arg",
        ("spec", "cpu_millis") => "cpu",
        ("spec", "memory_bytes") => "memory",
        ("spec", "pids_limit") => "pids",
        ("spec", "read_only_root") => "read-only",
        ("spec", "pull_policy") => "pull",
        ("spec", "no_init" | "cap_add" | "dns" | "egress") => {
            return Some(format!("--{}", last.replace('_', "-")));
        }
        ("spec", "tmpfs_exec") => "tmpfs",
        ("spec", "shm_bytes") => "shm-size",
        ("spec", "ulimits") => "ulimit",
        ("spec", "extra_hosts") => "add-host",
        ("http", "path") => "health-path",
        ("http", "host") => "health-host",
        ("grpc", "service") => "health-grpc",
        ("readiness", "period") => "health-interval",
        ("readiness", "timeout") => "health-timeout",
        ("readiness", "initial_delay") => "health-delay",
        ("http", "status_min" | "status_max") => "health-status",
        ("service", "hosts") => "host",
        ("service", "labels") => "label",
        ("affinity", _) | ("settings", "affinity") => "affinity",
        ("settings", _) => return Some(format!("--{}", last.replace('_', "-"))),
        (_, "reason" | "etag" | "actor" | "timeout") => last,
        _ => return None,
    };
    Some(format!("--{flag}"))
}

fn code_hint(code: Code, details: &ErrorDetails) -> Option<String> {
    let name = details
        .resource_info()
        .map_or("", |resource| resource.resource_name.as_str());
    let parts: Vec<&str> = name.split('/').collect();
    match code {
        Code::Unauthenticated => Some(
            "log in with `cless login https://HOST:PORT`, or set CLESS_TOKEN to a valid token"
                .to_owned(),
        ),
        Code::PermissionDenied => Some(
            "ask an administrator of this control plane for a token that permits it \
             (`cless token create`)"
                .to_owned(),
        ),
        Code::NotFound => match parts.as_slice() {
            ["services", _] => Some("list services with `cless service list`".to_owned()),
            ["services", id, "versions", _] => Some(format!(
                "list versions with `cless version list {}`",
                text::clean(id)
            )),
            ["services", id, "traffic", ..] => Some(format!(
                "list revisions with `cless traffic history {}`",
                text::clean(id)
            )),
            ["nodes", ..] => Some("list nodes with `cless node list`".to_owned()),
            _ => None,
        },
        Code::AlreadyExists => match parts.as_slice() {
            ["services", id] => Some(format!(
                "update it with `cless service update {0}`, or add a version with `cless deploy {0}`",
                text::clean(id)
            )),
            _ => None,
        },
        Code::Aborted => {
            let show = match parts.as_slice() {
                ["services", id] => format!("cless service get {id}"),
                ["services", id, "versions", number] => format!("cless version get {id} {number}"),
                ["services", id, "traffic"] => format!("cless traffic get {id}"),
                _ => return None,
            };
            Some(format!(
                "check the current state with `{}`, then retry",
                text::clean(&show)
            ))
        }
        Code::Unavailable | Code::ResourceExhausted => {
            let delay = details.retry_info().and_then(|retry| retry.retry_delay);
            // A permanent limit: its message has the remedy.
            if delay.is_none() && code == Code::ResourceExhausted {
                return None;
            }
            let when = delay.map_or_else(
                || "in a moment".to_owned(),
                |delay| format!("in {}", text::duration(delay)),
            );
            Some(format!("try again {when}"))
        }
        Code::Internal | Code::DataLoss | Code::Unknown => {
            Some("internal error of the control plane: see its log".to_owned())
        }
        Code::Unimplemented => {
            Some("the control plane runs another release than this `cless`".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
