//! The fields that describe the origin of a request. Pure.
//!
//! `X-Forwarded-For`, `-Proto`, `-Host` and `Via` are set. A client's own values and `Forwarded`
//! (RFC 7239) are removed. Those of a peer that the operator trusts are kept and extended.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, Version, header};

use super::headers::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, REQUEST_ID, append_via};

/// The most trusted proxies between a client and this node.
const MAX_HOPS: usize = 16;

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

/// The client behind a trusted peer: the last address in `X-Forwarded-For` that is not trusted.
/// `None` if there is none, so that nobody is taken for somebody else.
pub(crate) fn client_address(
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let fields = headers.get_all(FORWARDED_FOR).iter().rev();
    let texts = fields.filter_map(|field| field.to_str().ok());
    let hops = texts.flat_map(|text| text.rsplit(',')).take(MAX_HOPS);
    let mut addresses = hops.map_while(|hop| address(hop.trim()));
    addresses.find(|address| !is_trusted(*address))
}

/// An address with or without a port; an IPv6 address with a port has brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let with_port = || hop.parse::<SocketAddr>().ok().map(|hop| hop.ip());
    let address = bare.parse::<IpAddr>().ok().or_else(with_port)?;
    Some(address.to_canonical())
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
    fn the_client_of_a_trusted_peer_is_the_last_untrusted_address() {
        let client = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(FORWARDED_FOR, HeaderValue::from_str(field).unwrap());
            }
            let is_trusted = |address: IpAddr| address.to_string().starts_with("10.");
            client_address(&headers, is_trusted).map(|address| address.to_string())
        };
        for (fields, expected) in [
            (&["198.51.100.1"][..], Some("198.51.100.1")),
            (&["203.0.113.9, 198.51.100.1"], Some("198.51.100.1")),
            (
                &["203.0.113.9", "198.51.100.1, 10.0.0.2"],
                Some("198.51.100.1"),
            ),
            (&["198.51.100.1:5000"], Some("198.51.100.1")),
            (&["[2001:db8::1]:5000"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["::ffff:198.51.100.1"], Some("198.51.100.1")),
            (&["10.0.0.2"], None),
            (&["198.51.100.1, unknown"], None),
            (&[], None),
        ] {
            assert_eq!(client(fields).as_deref(), expected, "{fields:?}");
        }
    }

    #[test]
    fn rfc_9110_section_7_6_3_via_is_appended() {
        let headers = forwarded(&[("via", "1.0 fred")], false);
        let all: Vec<_> = headers.get_all("via").iter().collect();
        assert_eq!(all, ["1.0 fred", "1.1 cless"]);
    }
}
