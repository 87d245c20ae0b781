//! Renders an [`Error`] as a response: status, `Proxy-Status` (RFC 9209), and a text line.

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Response, header};

use super::body::ResponseBody;
use super::error::{ALLOW, Error};
use super::headers::REQUEST_ID;

impl Error {
    /// The response. `grpc`: the caller reads `grpc-status`.
    pub(crate) fn response(&self, request_id: &HeaderValue, grpc: bool) -> Response<ResponseBody> {
        let info = self.info();
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let proxy_status = format!("cless; error={}; details=\"{self}\"", info.proxy_status);
        if let Ok(proxy_status) = HeaderValue::try_from(proxy_status) {
            headers.insert("proxy-status", proxy_status);
        }
        headers.insert(REQUEST_ID, request_id.clone());
        if let Some(after) = info.retry_after {
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
            // Trailers-Only: the gRPC status is in the head, and the HTTP status is 200.
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            headers.insert("grpc-status", HeaderValue::from(u16::from(info.grpc)));
            if let Ok(message) = HeaderValue::try_from(percent_encoded(&self.to_string())) {
                headers.insert("grpc-message", message);
            }
            Response::new(ResponseBody::empty())
        } else {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            let mut response = Response::new(ResponseBody::full(self.text(request_id)));
            *response.status_mut() = info.status;
            response
        };
        *response.headers_mut() = headers;
        response
    }

    fn text(&self, request_id: &HeaderValue) -> String {
        let id = request_id.to_str().unwrap_or_default();
        format!("cless: {self}\nrequest id: {id}\n")
    }

    /// The response as HTTP/1.1 bytes, for a request without a parsed head; and the length of its
    /// body.
    pub(crate) fn to_http1_bytes(
        &self,
        request_id: &HeaderValue,
        now: SystemTime,
    ) -> (Vec<u8>, usize) {
        let response = self.response(request_id, false);
        let (status, text) = (response.status(), self.text(request_id));
        let reason = status.canonical_reason().unwrap_or_default();
        let date = httpdate::fmt_http_date(now);
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\ndate: {date}\r\ncontent-length: {}\r\n",
            status.as_u16(),
            text.len()
        )
        .into_bytes();
        for (name, value) in response.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(text.as_bytes());
        (bytes, text.len())
    }
}

/// The encoding of `grpc-message` (gRPC over HTTP/2, Percent-Encoded).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::reasons;
    use crate::pool::Refusal;
    use crate::proxy::wire::h1_framing::FramingError;
    use crate::proxy::wire::malformation::Malformation;
    use std::time::Duration;

    fn id() -> HeaderValue {
        HeaderValue::from_static("abc")
    }

    #[test]
    fn a_refusal_has_retry_after_and_is_never_cached() {
        let failed = Error::Refused(Refusal::StartFailed {
            retry_after: Duration::from_millis(1500),
        });
        let response = failed.response(&id(), false);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-request-id"], "abc");
        let proxy_status = response.headers()["proxy-status"].to_str().unwrap();
        assert!(
            proxy_status.starts_with("cless; error=destination_unavailable"),
            "{proxy_status}"
        );
    }

    #[test]
    fn a_grpc_caller_gets_a_grpc_status() {
        let response = Error::Refused(Refusal::TimedOut).response(&id(), true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }

    #[test]
    fn after_an_ambiguous_request_the_connection_ends() {
        let response = Error::Ambiguous(FramingError::BothLengths).response(&id(), false);
        assert_eq!(response.headers()["connection"], "close");
        let response = Error::UnknownHost.response(&id(), false);
        assert!(!response.headers().contains_key("connection"));
    }

    #[test]
    fn rfc_9110_section_15_5_9_an_incomplete_request_gets_408_and_the_connection_ends() {
        let (bytes, _) = Error::SlowHead.to_http1_bytes(&id(), SystemTime::UNIX_EPOCH);
        let written = String::from_utf8(bytes).unwrap();
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
    fn each_reason_is_counted_from_0() {
        let retry_after = Duration::ZERO;
        let refusals = [
            Refusal::QueueFull,
            Refusal::TooManyWakes,
            Refusal::StartFailed { retry_after },
            Refusal::BackingOff { retry_after },
            Refusal::EngineUnavailable { retry_after },
            Refusal::TimedOut,
            Refusal::Gone,
            Refusal::ShuttingDown,
        ];
        let errors = [
            Error::BadRequest(String::new()),
            Error::Ambiguous(FramingError::BothLengths),
            Error::BrokenBody,
            Error::TooManyFields,
            Error::HeadTooLarge,
            Error::TargetTooLong,
            Error::Method("TRACE"),
            Error::Protocol,
            Error::SlowHead,
            Error::Expectation,
            Error::Misdirected,
            Error::NoTable,
            Error::UnknownHost,
            Error::UnknownVersion,
            Error::NoTraffic,
            Error::Unreachable,
            Error::Broken,
            Error::MalformedResponse(Malformation::new("x")),
            Error::UpgradeFailed,
            Error::Late,
        ];
        for error in refusals.map(Error::Refused).into_iter().chain(errors) {
            assert!(reasons::is_known(error.reason()), "{error:?}");
        }
    }

    #[test]
    fn statuses_are_those_of_the_design() {
        for (error, status) in [
            (Error::BadRequest("x".into()), 400),
            (Error::Ambiguous(FramingError::BothLengths), 400),
            (Error::BrokenBody, 400),
            (Error::TooManyFields, 431),
            (Error::HeadTooLarge, 431),
            (Error::TargetTooLong, 414),
            (Error::Method("CONNECT"), 405),
            (Error::Method("TRACE"), 405),
            (Error::Protocol, 501),
            (Error::SlowHead, 408),
            (Error::Expectation, 417),
            (Error::Misdirected, 421),
            (Error::UnknownHost, 404),
            (Error::NoTraffic, 503),
            (Error::Refused(Refusal::QueueFull), 503),
            (Error::Refused(Refusal::TooManyWakes), 503),
            (Error::Unreachable, 502),
            (Error::Broken, 502),
            (Error::MalformedResponse(Malformation::new("x")), 502),
            (Error::UpgradeFailed, 502),
            (Error::Late, 504),
            (Error::Refused(Refusal::TimedOut), 504),
        ] {
            assert_eq!(error.response(&id(), false).status(), status, "{error}");
        }
    }
}
