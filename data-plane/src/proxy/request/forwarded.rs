//! The fields that describe the origin of a request. Pure.
//!
//! `X-Forwarded-For`, `-Proto`, `-Host` and `Via` are set. Every other field that claims to
//! describe the connection is removed ([`origin_claims`](super::origin_claims)). Those of a peer that the operator
//! trusts are kept and extended.
//!
//! Servers of CGI and WSGI fold `_` and `-` into one variable, so a spelling with an underscore is
//! the same field. No proxy writes one, so it is removed from all peers.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::headers::{
    FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, REQUEST_ID, append_via, is_hop_by_hop,
    remove_all,
};
use super::origin_claims::is_origin_claim;

/// Whether a field is another spelling of one that cless sets, removes or frames a message by.
fn is_misspelt(name: &HeaderName, more: &[Box<str>]) -> bool {
    if !name.as_str().contains('_') {
        return false;
    }
    let plain = name.as_str().replace('_', "-");
    is_origin_claim(name, more)
        || matches!(&*plain, "content-length" | "content-type")
        || plain == REQUEST_ID.as_str()
        || HeaderName::try_from(plain).is_ok_and(|plain| is_hop_by_hop(&plain))
}

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
    /// Names of further fields that an untrusted peer must not set, in lower case with `-`.
    pub(crate) more_claims: &'a [Box<str>],
}

/// Sets the fields of a request with this id.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, origin: RequestOrigin<'_>, id: &HeaderValue) {
    // Space for all of them and `Host` is reserved once.
    headers.reserve(6);
    let more = origin.more_claims;
    remove_all(headers, |name| {
        is_misspelt(name, more) || (!origin.is_trusted && is_origin_claim(name, more))
    });
    if origin.is_trusted {
        append_peer(headers, origin);
    } else {
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

/// Whether a trusted peer received the request over HTTPS. The first value of a chain is that of
/// the client.
pub(crate) fn is_https_at_trusted_peer(headers: &HeaderMap, is_trusted: bool) -> bool {
    is_trusted
        && headers.get(FORWARDED_PROTO).is_some_and(|proto| {
            let first = proto.as_bytes().split(|byte| *byte == b',').next();
            first.is_some_and(|first| first.trim_ascii().eq_ignore_ascii_case(b"https"))
        })
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
    use super::super::origin_claims::ORIGIN_CLAIMS;
    use super::*;

    fn forwarded(fields: &[(&str, &str)], is_trusted: bool) -> HeaderMap {
        let more_claims = &["x-tenant-ip".into()];
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
            more_claims,
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

    /// The fields at the instance of a request with `name: evil`, that are not those of a request
    /// without it.
    fn kept(name: &str, is_trusted: bool) -> bool {
        let headers = forwarded(&[(name, "evil")], is_trusted);
        headers
            .values()
            .any(|value| value.as_bytes().starts_with(b"evil"))
    }

    /// All spellings of `name` in which any of its dashes is an underscore.
    fn spellings(name: &str) -> Vec<String> {
        let mut all = vec![String::new()];
        for letter in name.chars() {
            let ends: &[char] = if letter == '-' {
                &['-', '_']
            } else {
                &[letter]
            };
            all = all
                .iter()
                .flat_map(|begin| ends.iter().map(move |end| format!("{begin}{end}")))
                .collect();
        }
        all
    }

    #[test]
    fn no_spelling_of_a_field_about_the_connection_passes_from_an_untrusted_peer() {
        let named = [
            "x-forwarded",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-ssl",
            "x-forwarded-scheme",
            "x-forwarded-server",
            "x-forwarded-client-cert",
            "x-tenant-ip",
            "x-request-id",
        ];
        for name in named.iter().chain(&ORIGIN_CLAIMS) {
            for spelling in spellings(name) {
                assert!(!kept(&spelling, false), "{spelling}");
                assert!(!kept(&spelling.to_uppercase(), false), "{spelling}");
                // A trusted peer's own pass, but never a spelling that the app may mix up. The
                // request id was read before.
                let is_plain = spelling == *name && *name != "x-request-id";
                assert_eq!(kept(&spelling, true), is_plain, "{spelling}");
            }
        }
        for framing in [
            "content_length",
            "transfer_encoding",
            "Content_Type",
            "proxy_authorization",
        ] {
            assert!(!kept(framing, false) && !kept(framing, true), "{framing}");
        }
        for other in [
            "x-for",
            "x_custom",
            "cookie",
            "true-client",
            "x-api-key",
            "forward",
            "proxyx",
        ] {
            assert!(kept(other, false) && kept(other, true), "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn only_what_equals_a_known_name_is_removed(name in "[a-z_-]{1,20}") {
            let plain = name.replace('_', "-");
            let is_known = plain.starts_with("x-forwarded")
                || ORIGIN_CLAIMS.contains(&&*plain)
                || plain == "x-tenant-ip"
                || plain == "x-request-id"
                || (name.contains('_') && (matches!(&*plain, "content-length" | "content-type")
                    || is_hop_by_hop(&HeaderName::try_from(plain.as_str()).unwrap())));
            proptest::prop_assert_eq!(kept(&name, false), !is_known);
        }
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
