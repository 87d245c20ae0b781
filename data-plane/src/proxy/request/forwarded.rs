//! What an instance is told of where a request came from. Pure.
//!
//! `X-Forwarded-For`, `-Proto`, `-Host` and `Via` are set; a client's own are dropped, and so is `Forwarded`
//! (RFC 7239), unless it is a peer that the operator trusts: then its word is kept and added to.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::headers::{REQUEST_ID, append_via};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What cless sets, so that nobody else does.
pub(super) const FIELDS: [HeaderName; 3] = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST];

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The other end of the connection.
    pub(super) peer: IpAddr,
    /// The same as text.
    pub(super) peer_text: &'a HeaderValue,
    /// What it may say of those before it is believed.
    pub(super) trusted: bool,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// The host it asked for, as it wrote it.
    pub(super) host: &'a HeaderValue,
    /// What it spoke.
    pub(super) version: Version,
}

/// Says where a request with this id came from.
pub(super) fn tell(headers: &mut HeaderMap, origin: Origin<'_>, id: &HeaderValue) {
    // All of them, and the host: room is made once.
    headers.reserve(FIELDS.len() + 3);
    if origin.trusted {
        add_to_chain(headers, origin);
    } else {
        headers.remove(header::FORWARDED);
        headers.insert(FORWARDED_FOR, origin.peer_text.clone());
    }
    if !origin.trusted || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(origin.scheme));
    }
    if !origin.trusted || !headers.contains_key(FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, origin.host.clone());
    }
    headers.insert(REQUEST_ID, id.clone());
    append_via(headers, origin.version);
}

/// Adds the peer to what it says of those before it.
fn add_to_chain(headers: &mut HeaderMap, origin: Origin<'_>) {
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
        // An IPv6 address stands in brackets and quotes (RFC 7239 section 6).
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

    fn told(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let origin = Origin {
            peer: "2001:db8::9".parse().unwrap(),
            peer_text: &HeaderValue::from_static("2001:db8::9"),
            trusted,
            scheme: "http",
            host: &HeaderValue::from_static("hello.localhost:8080"),
            version: Version::HTTP_11,
        };
        tell(&mut headers, origin, &HeaderValue::from_static("id"));
        headers
    }

    const SAID: [(&str, &str); 5] = [
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-for", "198.51.100.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "other"),
        ("forwarded", "for=198.51.100.1"),
    ];

    #[test]
    fn a_client_is_not_believed() {
        let headers = told(&SAID, false);
        let all: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(all, ["2001:db8::9"]);
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "hello.localhost:8080");
        assert!(!headers.contains_key("forwarded"));
    }

    #[test]
    fn rfc_7239_section_4_a_trusted_peer_is_believed_and_added() {
        let headers = told(&SAID, true);
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
        let headers = told(&[("via", "1.0 fred")], false);
        let all: Vec<_> = headers.get_all("via").iter().collect();
        assert_eq!(all, ["1.0 fred", "1.1 cless"]);
    }
}
