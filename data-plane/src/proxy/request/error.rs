//! Every answer that cless makes itself: status, `Proxy-Status` (RFC 9209), and a line for a person.
//!
//! No text of an engine or an instance gets into these: what they say is for the operator, in the
//! version's status, not for the caller.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use super::framing::Fault;
use crate::instance::Refusal;

/// Why a request is answered by cless and not by an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The request's head is not one we may pass on.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// Two parsers may read the request in two ways.
    #[error("bad request: {0}")]
    Ambiguous(#[from] Fault),
    /// The client broke off or garbled its body.
    #[error("bad request: the body ended before its end, or is malformed")]
    BrokenBody,
    /// More fields than are taken.
    #[error("the request's head has too many fields")]
    TooManyFields,
    /// CONNECT or TRACE.
    #[error("{0} is not served here")]
    Method(&'static str),
    /// An extended CONNECT for what cannot be carried on a stream of HTTP/2.
    #[error("this protocol is not spoken over a stream of HTTP/2 here")]
    Protocol,
    /// The request's head was not whole in time.
    #[error("the request's head was not whole in time")]
    SlowHead,
    /// `Expect` names something else than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
    /// The connection's certificate does not cover the host.
    #[error("this connection is not for this host")]
    Misdirected,
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
const RESOURCE_EXHAUSTED: u8 = 8;

/// The methods that are served.
pub(super) const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Error {
    /// The status of the answer, but for gRPC.
    pub(super) fn status(&self) -> StatusCode {
        self.answer().status
    }

    /// What follows on the connection cannot be told from the request any more, so it ends.
    fn ends_connection(&self) -> bool {
        use Error::{Ambiguous, BadRequest, BrokenBody, Method, SlowHead, TooManyFields};
        matches!(
            self,
            Ambiguous(_) | BadRequest(_) | BrokenBody | Method(_) | SlowHead | TooManyFields
        )
    }

    /// Label of the metric.
    pub(super) fn reason(&self) -> &'static str {
        self.answer().reason
    }

    fn answer(&self) -> Answer {
        let (status, proxy_status, reason, retry_after, grpc) = match self {
            Self::BadRequest(_) => (400, "http_request_error", "bad_request", None, INTERNAL),
            Self::Ambiguous(_) => (400, "http_request_error", "ambiguous", None, INTERNAL),
            Self::BrokenBody => (400, "http_request_error", "broken_body", None, INTERNAL),
            Self::TooManyFields => (
                431,
                "http_request_error",
                "too_many_fields",
                None,
                RESOURCE_EXHAUSTED,
            ),
            Self::Method(_) => (405, "http_request_denied", "method", None, UNIMPLEMENTED),
            // As RFC 9220 section 3 has it, the RFC 8441 of HTTP/3.
            Self::Protocol => (501, "http_request_denied", "protocol", None, UNIMPLEMENTED),
            Self::SlowHead => (
                408,
                "http_request_error",
                "slow_head",
                None,
                DEADLINE_EXCEEDED,
            ),
            Self::Expectation => (417, "http_request_denied", "expectation", None, INTERNAL),
            Self::Misdirected => (421, "http_request_denied", "misdirected", None, UNAVAILABLE),
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
    pub(super) fn response(&self, request_id: &HeaderValue, grpc: bool) -> Response<Body> {
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
        if matches!(self, Self::Method(_)) {
            headers.insert(header::ALLOW, HeaderValue::from_static(ALLOW));
        }
        if self.ends_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = if grpc {
            // Trailers-Only: the status is in the head, and HTTP's is 200.
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            headers.insert("grpc-status", HeaderValue::from(u16::from(answer.grpc)));
            if let Ok(message) = HeaderValue::try_from(percent_encoded(&self.to_string())) {
                headers.insert("grpc-message", message);
            }
            Response::new(Body::empty())
        } else {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            let mut response = Response::new(Body::full(self.text(request_id)));
            *response.status_mut() = answer.status;
            response
        };
        *response.headers_mut() = headers;
        response
    }
}

impl Error {
    /// What a person reads.
    fn text(&self, request_id: &HeaderValue) -> String {
        let id = request_id.to_str().unwrap_or_default();
        format!("cless: {self}\nrequest id: {id}\n")
    }

    /// The response in the bytes of HTTP/1.1, for a client whose request never was one.
    pub(super) fn written(&self, request_id: &HeaderValue, now: SystemTime) -> Vec<u8> {
        let response = self.response(request_id, false);
        let (status, text) = (response.status(), self.text(request_id));
        let reason = status.canonical_reason().unwrap_or_default();
        let date = httpdate::fmt_http_date(now);
        let mut written = format!(
            "HTTP/1.1 {} {reason}\r\ndate: {date}\r\ncontent-length: {}\r\n",
            status.as_u16(),
            text.len()
        )
        .into_bytes();
        for (name, value) in response.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                written.extend_from_slice(part);
            }
        }
        written.extend_from_slice(b"\r\n");
        written.extend_from_slice(text.as_bytes());
        written
    }
}

/// As gRPC wants messages in its head (gRPC over HTTP/2, Percent-Encoded).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
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
    fn after_an_ambiguous_request_the_connection_ends() {
        let response = Error::Ambiguous(Fault::BothLengths).response(&id(), false);
        assert_eq!(response.headers()["connection"], "close");
        let response = Error::UnknownHost.response(&id(), false);
        assert!(!response.headers().contains_key("connection"));
    }

    #[test]
    fn rfc_9110_section_15_5_9_a_request_that_is_not_whole_is_answered_and_the_connection_ends() {
        let written = Error::SlowHead.written(&id(), SystemTime::UNIX_EPOCH);
        let written = String::from_utf8(written).unwrap();
        let (head, body) = written.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{head}"
        );
        for field in [
            "date: Thu, 01 Jan 1970 00:00:00 GMT",
            "connection: close",
            "cache-control: no-store",
            "x-request-id: abc",
        ] {
            assert!(head.lines().any(|line| line == field), "{field} in {head}");
        }
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{head}"
        );
    }

    #[test]
    fn statuses_are_those_of_the_design() {
        for (error, status) in [
            (Error::BadRequest("x".into()), 400),
            (Error::Ambiguous(Fault::BothLengths), 400),
            (Error::BrokenBody, 400),
            (Error::TooManyFields, 431),
            (Error::Method("CONNECT"), 405),
            (Error::Method("TRACE"), 405),
            (Error::Protocol, 501),
            (Error::SlowHead, 408),
            (Error::Expectation, 417),
            (Error::Misdirected, 421),
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
