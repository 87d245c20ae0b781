//! The errors for which cless generates the response itself, with their status and metric label.
//!
//! They contain no text of the engine or the instance: that is for the operator, in the version's
//! status, and not for the caller.

use std::time::Duration;

use http::StatusCode;

use crate::pool::Refusal;
use crate::proxy::wire::h1_framing::FramingError;
use crate::proxy::wire::incoming;
use crate::proxy::wire::malformation::Malformation;

/// The reason why cless responds to a request itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The request head must not be passed on.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// Two parsers could read the request in two ways.
    #[error("bad request: {0}")]
    Ambiguous(#[from] FramingError),
    #[error("bad request: the body is incomplete or malformed")]
    BrokenBody,
    /// The head exceeds `--max-headers`.
    #[error("the request head has too many fields")]
    TooManyFields,
    /// The head exceeds `--max-header-bytes`, or `--max-headers` in the parser.
    #[error("the request head is too large or has too many fields")]
    HeadTooLarge,
    /// The parser refuses targets of this length.
    #[error("the target is too long")]
    TargetTooLong,
    /// CONNECT or TRACE.
    #[error("the method {0} is not supported")]
    Method(&'static str),
    /// An extended CONNECT for another protocol than WebSocket.
    #[error("this protocol is not supported over HTTP/2")]
    Protocol,
    #[error("the request head was not complete in time")]
    SlowHead,
    #[error("the expectation is not supported")]
    Expectation,
    /// The certificate of the connection does not cover the host.
    #[error("this connection is not for this host")]
    Misdirected,
    #[error("this node has no route table yet")]
    NoTable,
    #[error("no service has this host")]
    UnknownHost,
    #[error("the service has no such version")]
    UnknownVersion,
    #[error("the service has no traffic set: deploy a version, or set traffic")]
    NoTraffic,
    /// The pool admitted the request to no instance.
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the instance does not accept connections")]
    Unreachable,
    #[error("the instance ended the connection before it responded")]
    Broken,
    /// The response violates HTTP.
    #[error("the instance sent a malformed response: {}", .0.cause())]
    MalformedResponse(Box<Malformation>),
    /// The instance did not switch to the protocol that an HTTP/2 stream needs.
    #[error("the instance did not switch to the requested protocol")]
    UpgradeFailed,
    /// The deadline passed without a response head.
    #[error("the instance did not respond in time")]
    Late,
}

pub(super) struct ResponseInfo {
    pub(super) status: StatusCode,
    /// An error type of RFC 9209 section 2.3.
    pub(super) proxy_status: &'static str,
    pub(super) reason: &'static str,
    /// `None`: a retry does not help.
    pub(super) retry_after: Option<Duration>,
    /// The status code for gRPC callers.
    pub(super) grpc: u8,
}

// Error types of RFC 9209 section 2.3.
const INVALID: &str = "http_request_error";
const DENIED: &str = "http_request_denied";
const NOT_FOUND: &str = "destination_not_found";
const NO_DESTINATION: &str = "destination_unavailable";
// Status codes of gRPC.
const UNAVAILABLE: u8 = 14;
const DEADLINE_EXCEEDED: u8 = 4;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const RESOURCE_EXHAUSTED: u8 = 8;

pub(crate) const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Error {
    /// The error of a request whose response failed.
    pub(crate) fn of_response(error: &incoming::Error) -> Self {
        let malformed = error.malformation().map(Self::MalformedResponse);
        malformed.unwrap_or(Self::Broken)
    }

    /// The HTTP status for callers that do not use gRPC.
    pub(crate) fn status(&self) -> StatusCode {
        self.info().status
    }

    /// Whether the connection must end, because the end of the request is unknown.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::Ambiguous(_)
                | Self::BadRequest(_)
                | Self::BrokenBody
                | Self::Method(_)
                | Self::SlowHead
                | Self::TooManyFields
                | Self::HeadTooLarge
                | Self::TargetTooLong
        )
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.info().reason
    }

    pub(super) fn info(&self) -> ResponseInfo {
        let (status, proxy_status, reason, grpc) = match self {
            Self::BadRequest(_) => (400, INVALID, "bad_request", INTERNAL),
            Self::Ambiguous(_) => (400, INVALID, "ambiguous", INTERNAL),
            Self::BrokenBody => (400, INVALID, "broken_body", INTERNAL),
            Self::TooManyFields => (431, INVALID, "too_many_fields", RESOURCE_EXHAUSTED),
            Self::HeadTooLarge => (431, INVALID, "head_too_large", RESOURCE_EXHAUSTED),
            Self::TargetTooLong => (414, INVALID, "target_too_long", RESOURCE_EXHAUSTED),
            Self::Method(_) => (405, DENIED, "method", UNIMPLEMENTED),
            // As in RFC 9220 section 3, which is RFC 8441 for HTTP/3.
            Self::Protocol => (501, DENIED, "protocol", UNIMPLEMENTED),
            Self::SlowHead => (408, INVALID, "slow_head", DEADLINE_EXCEEDED),
            Self::Expectation => (417, DENIED, "expectation", INTERNAL),
            Self::Misdirected => (421, DENIED, "misdirected", UNAVAILABLE),
            Self::NoTable => (503, NO_DESTINATION, "no_table", UNAVAILABLE),
            Self::UnknownHost => (404, NOT_FOUND, "unknown_host", UNIMPLEMENTED),
            Self::UnknownVersion => (404, NOT_FOUND, "unknown_version", UNIMPLEMENTED),
            Self::NoTraffic => (503, NO_DESTINATION, "no_traffic", UNAVAILABLE),
            Self::Refused(Refusal::TimedOut) => (
                504,
                "connection_timeout",
                "queue_timeout",
                DEADLINE_EXCEEDED,
            ),
            Self::Refused(refusal) => (503, NO_DESTINATION, refusal_reason(*refusal), UNAVAILABLE),
            Self::Unreachable => (502, "connection_refused", "unreachable", UNAVAILABLE),
            Self::Broken => (502, "connection_terminated", "broken", UNAVAILABLE),
            Self::MalformedResponse(_) => {
                (502, "http_protocol_error", "malformed_response", INTERNAL)
            }
            Self::UpgradeFailed => (502, "http_upgrade_failed", "upgrade_failed", INTERNAL),
            Self::Late => (504, "http_response_timeout", "late", DEADLINE_EXCEEDED),
        };
        let retry_after = match self {
            Self::Refused(
                Refusal::StartFailed { retry_after }
                | Refusal::BackingOff { retry_after }
                | Refusal::EngineUnavailable { retry_after },
            ) => Some(*retry_after),
            _ if status == 503 => Some(Duration::from_secs(1)),
            _ => None,
        };
        ResponseInfo {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            proxy_status,
            reason,
            retry_after,
            grpc,
        }
    }
}

fn refusal_reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::QueueFull => "queue_full",
        Refusal::TooManyWakes => "max_wakes_per_ip",
        Refusal::StartFailed { .. } => "start_failed",
        Refusal::BackingOff { .. } => "backing_off",
        Refusal::EngineUnavailable { .. } => "engine_away",
        Refusal::Gone => "version_gone",
        Refusal::ShuttingDown => "stopping",
        Refusal::TimedOut => "queue_timeout",
    }
}
