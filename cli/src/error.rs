//! Why a command failed, and the one place that turns it into messages and an exit code.
//!
//! [`Error`] is what commands return; [`Error::report`] is what a person and a script see: lines
//! `error: field: reason`, lines `hint:` that say what to do next, and one of the exit codes of
//! [`exit`]. Pure: nothing is printed here.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::text;

/// What the process ends with.
pub(crate) mod exit {
    /// Anything not listed below.
    pub(crate) const ERROR: u8 = 1;
    /// The command or what was typed makes no sense; nothing was changed.
    pub(crate) const USAGE: u8 = 2;
    /// Not signed in, or not allowed.
    pub(crate) const AUTH: u8 = 4;
    /// What was named does not exist.
    pub(crate) const NOT_FOUND: u8 = 5;
    /// It exists already, was changed in between, or is in a state that forbids this.
    pub(crate) const CONFLICT: u8 = 6;
    /// The new version did not prove itself; traffic is as it was.
    pub(crate) const NOT_PROVED: u8 = 7;
    /// No answer in time: it may or may not have happened.
    pub(crate) const UNKNOWN: u8 = 8;
    /// Ended by a signal from the terminal (128 + SIGINT).
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Whether a call that got no answer may have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only reads.
    Read,
    /// It writes, and repeating it does no harm: it carries a request id, or asks for a state.
    Repeatable,
    /// It writes, and a repeat could be refused because the first one was done.
    Once,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command cannot be understood.
    #[error("{message}")]
    Usage {
        message: String,
        hint: Option<String>,
    },
    /// The state of the service forbids it; found here, before asking the control plane.
    #[error("{message}")]
    Conflict { message: String, hint: String },
    /// Nothing answers at the server's address.
    #[error("no answer from the control plane at {server}: {reason}")]
    Connect { server: String, reason: String },
    /// The control plane refused, or did not answer.
    #[error("{doing}: {}", status.message())]
    Api {
        doing: String,
        effect: Effect,
        status: Box<Status>,
    },
    /// A version did not prove itself; `failures` says why, node by node.
    #[error("{version} did not prove itself")]
    NotProved {
        version: String,
        failures: Vec<String>,
        hints: Vec<String>,
    },
    /// It may or may not have happened.
    #[error("{message}")]
    Unknown { message: String, hint: String },
    /// The person said no.
    #[error("nothing was changed")]
    Declined,
    /// `cless dev` could not start, or did not stop cleanly.
    #[error("{message}")]
    Dev {
        message: String,
        hint: Option<String>,
    },
    /// A file, the terminal or the runtime failed.
    #[error("{doing}: {source}")]
    Io {
        doing: String,
        source: std::io::Error,
    },
    /// A signal from the terminal; `left` says what is half done.
    #[error("interrupted")]
    Interrupted { left: Option<String> },
}

/// What is shown of an [`Error`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Each is shown after `error: `; a line break starts an indented continuation.
    pub(crate) errors: Vec<String>,
    /// Each is shown after `hint: `.
    pub(crate) hints: Vec<String>,
    pub(crate) exit: u8,
}

impl Error {
    /// The gRPC code, if the control plane gave one.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Api { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// The reason in the status's `ErrorInfo`, which names the cause more closely than the code (AIP-193).
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Api { status, .. } => status.get_details_error_info().map(|info| info.reason),
            _ => None,
        }
    }

    /// Whether the reader went away: `cless ... | head` is no failure.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Messages, hints and exit code.
    pub(crate) fn report(&self) -> Report {
        let one = |exit: u8, hints: Vec<String>| Report {
            errors: vec![text::clean(&self.to_string())],
            hints,
            exit,
        };
        match self {
            Self::Usage { hint, .. } => one(exit::USAGE, hint.iter().cloned().collect()),
            Self::Conflict { hint, .. } => one(exit::CONFLICT, vec![hint.clone()]),
            Self::Connect { .. } => one(
                exit::ERROR,
                vec![
                    "is the control plane running? start one with `cless dev`".to_owned(),
                    "if it listens elsewhere, say where with --server or CLESS_SERVER".to_owned(),
                ],
            ),
            Self::Api {
                doing,
                effect,
                status,
            } => refused(doing, *effect, status),
            Self::NotProved {
                version,
                failures,
                hints,
            } => Report {
                errors: std::iter::once(format!(
                    "{version} did not prove itself, so traffic is unchanged"
                ))
                .chain(failures.iter().cloned())
                .collect(),
                hints: hints.clone(),
                exit: exit::NOT_PROVED,
            },
            Self::Unknown { hint, .. } => one(exit::UNKNOWN, vec![hint.clone()]),
            Self::Dev { hint, .. } => one(exit::ERROR, hint.iter().cloned().collect()),
            Self::Declined | Self::Io { .. } => one(exit::ERROR, Vec::new()),
            Self::Interrupted { left } => one(exit::INTERRUPTED, left.iter().cloned().collect()),
        }
    }
}

/// A gRPC status and its details (google.rpc) as messages and an exit code.
fn refused(doing: &str, effect: Effect, status: &Status) -> Report {
    let details = status.get_error_details();
    let lost = effect != Effect::Read && is_unanswered(status);
    let exit = match status.code() {
        _ if lost => exit::UNKNOWN,
        Code::Unauthenticated | Code::PermissionDenied => exit::AUTH,
        Code::NotFound => exit::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => exit::CONFLICT,
        // The control plane found a fault in what was typed.
        Code::InvalidArgument | Code::OutOfRange => exit::USAGE,
        _ => exit::ERROR,
    };
    let mut hints = field_hints(&details);
    if lost {
        hints.push("it may or may not have happened: look before you repeat it".to_owned());
    } else {
        hints.extend(code_hint(status.code(), &details));
    }
    Report {
        errors: messages(doing, status, &details),
        hints,
        exit,
    }
}

/// No answer came: either the time was up, or the connection broke under the call.
fn is_unanswered(status: &Status) -> bool {
    let broke = std::error::Error::source(status).is_some();
    status.code() == Code::DeadlineExceeded
        || (broke
            && matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled
            ))
}

fn messages(doing: &str, status: &Status, details: &ErrorDetails) -> Vec<String> {
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
            _ => format!("{doing}: {message}"),
        };
        lines.push(text::clean(&line));
    }
    lines
}

/// The flags that set the fields complained of.
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

/// `version.spec.env["A B"]` -> `--env`. Only names that exist as flags.
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
        ("http", "path") => "health-path",
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
        Code::Unauthenticated | Code::PermissionDenied => {
            Some("ask whoever runs this control plane for access".to_owned())
        }
        Code::NotFound => match parts.as_slice() {
            ["services", _] => Some("see what there is with `cless service list`".to_owned()),
            ["services", id, "versions", _] => Some(format!(
                "see what there is with `cless version list {}`",
                text::clean(id)
            )),
            ["services", id, "traffic", ..] => Some(format!(
                "see what there is with `cless traffic history {}`",
                text::clean(id)
            )),
            ["nodes", ..] => Some("see what there is with `cless node list`".to_owned()),
            _ => None,
        },
        Code::AlreadyExists => match parts.as_slice() {
            ["services", id] => Some(format!(
                "change it with `cless service update {0}`, or add a version with `cless deploy {0}`",
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
                "see how it is now with `{}`, then repeat the command",
                text::clean(&show)
            ))
        }
        Code::Unavailable | Code::ResourceExhausted => {
            let delay = details.retry_info().and_then(|retry| retry.retry_delay);
            // A limit that waiting does not lift says what to do in its message.
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
            Some("this is a fault of the control plane: its log says more".to_owned())
        }
        Code::Unimplemented => {
            Some("the control plane is of another release than this `cless`".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
