//! Every answer that cless makes itself: status, `Proxy-Status` (RFC 9209), and a line for a person.
//!
//! No text of an engine or an instance gets into these: what they say is for the operator, in the
//! version's status, not for the caller.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use crate::instance::Refusal;

/// Why a request is answered by cless and not by an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request's head is not one we may pass on.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// CONNECT.
    #[error("CONNECT is not served here")]
    Connect,
    /// No table yet.
    #[error("this node has no route table yet")]
    NoTable,
    /// No service has that host.
    #[error("no service has this host")]
    UnknownHost,
    /// The version header names none.
    #[error("no such version can be reached")]
    UnknownVersion,
    /// The service has no traffic set.
    #[error("the service has no traffic set: deploy a version, or set traffic")]
    NoTraffic,
    /// No instance took it.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// A ready instance does not accept connections.
    #[error("the instance does not accept connections")]
    Unreachable,
    /// The instance closed or broke the connection before its response.
    #[error("the instance ended the connection before it answered")]
    Broken,
    /// No response head within the request's time.
    #[error("the instance did not answer in time")]
    Late,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// How an [`Error`] is told.
struct Answer {
    status: StatusCode,
    /// An error type of RFC 9209 section 2.3.
    proxy_status: &'static str,
    /// Label of the metric.
    reason: &'static str,
    retry_after: Option<Duration>,
    /// A gRPC status code for callers that speak gRPC.
    grpc: u8,
}

const SOON: Option<Duration> = Some(Duration::from_secs(1));
const UNAVAILABLE: u8 = 14;
const DEADLINE_EXCEEDED: u8 = 4;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;

impl Error {
    /// Label of the metric.
    pub fn reason(&self) -> &'static str {
        self.answer().reason
    }

    fn answer(&self) -> Answer {
        let (status, proxy_status, reason, retry_after, grpc) = match self {
            Self::BadRequest(_) => (400, "http_request_error", "bad_request", None, INTERNAL),
            Self::Connect => (405, "http_request_denied", "connect", None, UNIMPLEMENTED),
            Self::NoTable => (
                503,
                "destination_unavailable",
                "no_table",
                SOON,
                UNAVAILABLE,
            ),
            Self::UnknownHost => (
                404,
                "destination_not_found",
                "unknown_host",
                None,
                UNIMPLEMENTED,
            ),
            Self::UnknownVersion => (
                404,
                "destination_not_found",
                "unknown_version",
                None,
                UNIMPLEMENTED,
            ),
            Self::NoTraffic => (
                503,
                "destination_unavailable",
                "no_traffic",
                SOON,
                UNAVAILABLE,
            ),
            Self::Stopping => (
                503,
                "destination_unavailable",
                "stopping",
                SOON,
                UNAVAILABLE,
            ),
            Self::Unreachable => (502, "connection_refused", "unreachable", None, UNAVAILABLE),
            Self::Broken => (502, "connection_terminated", "broken", None, UNAVAILABLE),
            Self::Late => (
                504,
                "http_response_timeout",
                "late",
                None,
                DEADLINE_EXCEEDED,
            ),
            Self::Refused(refusal) => return refused(*refusal),
        };
        Answer {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            proxy_status,
            reason,
            retry_after,
            grpc,
        }
    }

    /// The response. `grpc`: the caller speaks gRPC and reads `grpc-status`.
    pub fn response(&self, request_id: &HeaderValue, grpc: bool) -> Response<Body> {
        let answer = self.answer();
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let told = format!("cless; error={}; details=\"{self}\"", answer.proxy_status);
        if let Ok(told) = HeaderValue::try_from(told) {
            headers.insert("proxy-status", told);
        }
        headers.insert(super::headers::REQUEST_ID, request_id.clone());
        if let Some(after) = answer.retry_after {
            // Whole seconds, at least one (RFC 9110 section 10.2.3).
            let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self == &Self::Connect {
            headers.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        let mut response = if grpc {
            // Trailers-Only: the status is in the head, and HTTP's is 200.
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            headers.insert("grpc-status", HeaderValue::from(u16::from(answer.grpc)));
            if let Ok(message) = HeaderValue::try_from(self.to_string()) {
                headers.insert("grpc-message", message);
            }
            Response::new(Body::empty())
        } else {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            let id = request_id.to_str().unwrap_or_default();
            let mut response =
                Response::new(Body::full(format!("cless: {self}\nrequest id: {id}\n")));
            *response.status_mut() = answer.status;
            response
        };
        *response.headers_mut() = headers;
        response
    }
}

fn refused(refusal: Refusal) -> Answer {
    let (status, reason, retry_after, grpc) = match refusal {
        Refusal::QueueFull => (503, "queue_full", SOON, UNAVAILABLE),
        Refusal::StartFailed { retry_after } => {
            (503, "start_failed", Some(retry_after), UNAVAILABLE)
        }
        Refusal::BackingOff { retry_after } => (503, "backing_off", Some(retry_after), UNAVAILABLE),
        Refusal::EngineAway { retry_after } => (503, "engine_away", Some(retry_after), UNAVAILABLE),
        Refusal::Gone => (503, "version_gone", SOON, UNAVAILABLE),
        Refusal::ShuttingDown => (503, "stopping", SOON, UNAVAILABLE),
        Refusal::TimedOut => (504, "queue_timeout", None, DEADLINE_EXCEEDED),
    };
    let proxy_status = match refusal {
        Refusal::TimedOut => "connection_timeout",
        _ => "destination_unavailable",
    };
    Answer {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        proxy_status,
        reason,
        retry_after,
        grpc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> HeaderValue {
        HeaderValue::from_static("abc")
    }

    #[test]
    fn a_refusal_says_when_to_come_back_and_is_never_cached() {
        let failed = Error::Refused(Refusal::StartFailed {
            retry_after: Duration::from_millis(1500),
        });
        let response = failed.response(&id(), false);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-request-id"], "abc");
        let told = response.headers()["proxy-status"].to_str().unwrap();
        assert!(
            told.starts_with("cless; error=destination_unavailable"),
            "{told}"
        );
    }

    #[test]
    fn a_caller_that_speaks_grpc_reads_its_own_status() {
        let response = Error::Refused(Refusal::TimedOut).response(&id(), true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }

    #[test]
    fn statuses_are_those_of_the_design() {
        for (error, status) in [
            (Error::BadRequest("x".into()), 400),
            (Error::Connect, 405),
            (Error::UnknownHost, 404),
            (Error::NoTraffic, 503),
            (Error::Refused(Refusal::QueueFull), 503),
            (Error::Unreachable, 502),
            (Error::Broken, 502),
            (Error::Late, 504),
            (Error::Refused(Refusal::TimedOut), 504),
        ] {
            assert_eq!(error.response(&id(), false).status(), status, "{error}");
        }
    }
}
