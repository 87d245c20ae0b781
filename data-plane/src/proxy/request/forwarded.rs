//! The fields that describe the origin of a request. Pure.
//!
//! `X-Forwarded-For`, `-Proto`, `-Host` and `Via` are set. A client's own values and `Forwarded`
//! (RFC 7239) are removed. Those of a peer that the operator trusts are kept and extended.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Version, header};

use super::headers::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, REQUEST_ID, append_via};

#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestOrigin<'a> {
    /// The peer of the connection.
    pub(crate) peer: IpAddr,
    /// The same as text.
    pub(crate) peer_text: &'a HeaderValue,
    /// The operator trusts the peer's own fields.
    pub(crate) is_trusted: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The requested host, as the client wrote it.
    pub(crate) host: &'a HeaderValue,
    pub(crate) version: Version,
}

/// Sets the fields of a request with this id.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, origin: RequestOrigin<'_>, id: &HeaderValue) {
    // Space for all of them and `Host` is reserved once.
    headers.reserve(6);
    if origin.is_trusted {
        append_peer(headers, origin);
    } else {
        headers.remove(header::FORWARDED);
        headers.insert(FORWARDED_FOR, origin.peer_text.clone());
    }
    if !origin.is_trusted || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(origin.scheme));
    }
    if !origin.is_trusted || !headers.contains_key(FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, origin.host.clone());
    }
    headers.insert(REQUEST_ID, id.clone());
    append_via(headers, origin.version);
}

/// Appends the peer to its own fields.
fn append_peer(headers: &mut HeaderMap, origin: RequestOrigin<'_>) {
    let mut chain = Vec::new();
    for known in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(known.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(origin.peer_text.as_bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    if headers.contains_key(header::FORWARDED) {
        // An IPv6 address needs brackets and quotes (RFC 7239 section 6).
        let element = match origin.peer {
            IpAddr::V4(peer) => format!("for={peer};proto={}", origin.scheme),
            IpAddr::V6(peer) => format!("for=\"[{peer}]\";proto={}", origin.scheme),
        };
        if let Ok(element) = HeaderValue::try_from(element) {
            headers.append(header::FORWARDED, element);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn forwarded(fields: &[(&str, &str)], is_trusted: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let origin = RequestOrigin {
            peer: "2001:db8::9".parse().unwrap(),
            peer_text: &HeaderValue::from_static("2001:db8::9"),
            is_trusted,
            scheme: "http",
            host: &HeaderValue::from_static("hello.localhost:8080"),
            version: Version::HTTP_11,
        };
        set_forwarded(&mut headers, origin, &HeaderValue::from_static("id"));
        headers
    }

    const RECEIVED: [(&str, &str); 5] = [
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-for", "198.51.100.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "other"),
        ("forwarded", "for=198.51.100.1"),
    ];

    #[test]
    fn the_fields_of_a_client_are_replaced() {
        let headers = forwarded(&RECEIVED, false);
        let all: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(all, ["2001:db8::9"]);
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "hello.localhost:8080");
        assert!(!headers.contains_key("forwarded"));
    }

    #[test]
    fn rfc_7239_section_4_the_fields_of_a_trusted_peer_are_extended() {
        let headers = forwarded(&RECEIVED, true);
        assert_eq!(
            headers["x-forwarded-for"],
            "198.51.100.1, 198.51.100.2, 2001:db8::9"
        );
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "other");
        let all: Vec<_> = headers.get_all("forwarded").iter().collect();
        assert_eq!(
            all,
            ["for=198.51.100.1", "for=\"[2001:db8::9]\";proto=http"]
        );
    }

    #[test]
    fn rfc_9110_section_7_6_3_via_is_appended() {
        let headers = forwarded(&[("via", "1.0 fred")], false);
        let all: Vec<_> = headers.get_all("via").iter().collect();
        assert_eq!(all, ["1.0 fred", "1.1 cless"]);
    }
}
