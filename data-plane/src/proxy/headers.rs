//! What the proxy changes in message heads. Pure: nothing here knows a socket.
//!
//! - Fields of one hop are stripped both ways (RFC 9110 section 7.6.1): those named by `Connection`
//!   and those that always are. `TE: trailers` is said again to the instance, because gRPC needs it.
//! - `X-Forwarded-For`, `-Proto`, `-Host` and `Via` say where the request came from. A client's own
//!   are dropped, unless it is a peer that the operator trusts.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

use super::error::Error;

/// Names a request through all logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The longest request id taken over from a trusted peer.
const MAX_REQUEST_ID: usize = 128;

/// Fields of one hop, whatever `Connection` says.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The one host a request is for (RFC 9112 section 3.2): the authority of an absolute-form target,
/// else the only `Host` field.
///
/// # Errors
/// [`Error::BadRequest`] if there is none, or more than one, or it is no text.
pub fn host<B>(request: &Request<B>) -> Result<&str, Error> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, more) = (hosts.next(), hosts.next());
    let bad = |what: &str| Error::BadRequest(what.to_owned());
    if more.is_some() {
        return Err(bad("more than one Host field"));
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.as_str());
    }
    match first {
        None => Err(bad("no Host field")),
        Some(host) => host.to_str().map_err(|_| bad("the Host field is no text")),
    }
}

/// The protocol that a request asks to switch to (RFC 9110 section 7.8).
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = names(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

/// What `Connection` names.
fn names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// Removes the fields of one hop.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = names(headers)
            .filter_map(|name| name.parse().ok())
            .collect();
        for name in named {
            // A client cannot make the proxy drop what routes and frames the message.
            if name != header::HOST && name != header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// What it may say of those before it is believed.
    pub trusted: bool,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host it asked for, as it wrote it.
    pub host: &'a str,
}

/// Rewrites a request's head for the instance.
pub fn prepare_request(
    headers: &mut HeaderMap,
    origin: Origin<'_>,
    id: &HeaderValue,
    via: Version,
) {
    let upgrade = upgrade(headers);
    let trailers = headers.get_all(header::TE).iter().any(|te| {
        te.to_str().is_ok_and(|te| {
            te.split(',')
                .any(|one| one.trim().eq_ignore_ascii_case("trailers"))
        })
    });
    strip_hop_by_hop(headers);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers.remove(header::FORWARDED);
    forwarded_for(headers, origin);
    if !origin.trusted || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(origin.scheme));
    }
    if (!origin.trusted || !headers.contains_key(FORWARDED_HOST))
        && let Ok(host) = HeaderValue::try_from(origin.host)
    {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.insert(REQUEST_ID, id.clone());
    append_via(headers, via);
}

/// Rewrites a response's head for the client. A switch of protocol keeps its two fields.
pub fn prepare_response(headers: &mut HeaderMap, id: &HeaderValue, switched: bool) {
    let upgrade = headers.get(header::UPGRADE).filter(|_| switched).cloned();
    strip_hop_by_hop(headers);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    headers.insert(REQUEST_ID, id.clone());
    append_via(headers, Version::HTTP_11);
}

fn forwarded_for(headers: &mut HeaderMap, origin: Origin<'_>) {
    let peer = plain(origin.peer.ip()).to_string();
    let known: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter(|_| origin.trusted)
        .filter_map(|value| value.to_str().ok())
        .collect();
    let chain = match known.is_empty() {
        true => peer,
        false => format!("{}, {peer}", known.join(", ")),
    };
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
}

/// An IPv4 client of an IPv6 socket is shown as IPv4.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn append_via(headers: &mut HeaderMap, version: Version) {
    let via = match version {
        Version::HTTP_10 => "1.0 cless",
        Version::HTTP_2 => "2.0 cless",
        _ => "1.1 cless",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// The id a request keeps: that of a trusted peer, if it is one, else a new one from `random`.
pub fn request_id(headers: &HeaderMap, trusted: bool, random: u128) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        trusted && !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.to_str().is_ok()
    });
    given.cloned().unwrap_or_else(|| {
        HeaderValue::try_from(format!("{random:032x}"))
            .unwrap_or_else(|_| HeaderValue::from_static("-"))
    })
}

/// True for a caller that reads `grpc-status` and not the HTTP status.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The value of a cookie (RFC 6265 section 5.4).
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// The `Host` field for the instance: what the client asked for, also if it was in the target.
pub fn host_field(authority: Option<&Authority>) -> Option<HeaderValue> {
    HeaderValue::try_from(authority?.as_str()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn origin(trusted: bool) -> Origin<'static> {
        Origin {
            peer: "203.0.113.9:5000".parse().unwrap(),
            trusted,
            scheme: "http",
            host: "hello.localhost:8080",
        }
    }

    fn prepared(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let mut headers = map(fields);
        let id = HeaderValue::from_static("id");
        prepare_request(&mut headers, origin(trusted), &id, Version::HTTP_11);
        headers
    }

    #[test]
    fn rfc_9110_section_7_6_1_fields_of_one_hop_are_stripped() {
        let headers = prepared(
            &[
                ("connection", "close, X-Secret"),
                ("connection", "keep-alive"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic x"),
                ("te", "gzip, trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "websocket"),
                ("x-kept", "1"),
            ],
            false,
        );
        for gone in [
            "connection",
            "x-secret",
            "keep-alive",
            "proxy-authorization",
            "upgrade",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["x-kept"], "1");
    }

    #[test]
    fn a_client_cannot_have_host_or_length_dropped() {
        let headers = prepared(
            &[
                ("connection", "host, content-length"),
                ("host", "a"),
                ("content-length", "3"),
            ],
            false,
        );
        assert_eq!(
            (&headers["host"], &headers["content-length"]),
            (
                &HeaderValue::from_static("a"),
                &HeaderValue::from_static("3")
            )
        );
    }

    #[test]
    fn an_upgrade_is_said_again_only_if_it_was_asked_for() {
        let headers = prepared(
            &[("connection", "Upgrade"), ("upgrade", "websocket")],
            false,
        );
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let said = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "other"),
            ("forwarded", "for=198.51.100.1"),
        ];
        let headers = prepared(&said, false);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "hello.localhost:8080");
        assert!(!headers.contains_key("forwarded"));
        let headers = prepared(&said, true);
        assert_eq!(headers["x-forwarded-for"], "198.51.100.1, 203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "other");
    }

    #[test]
    fn via_is_appended() {
        let headers = prepared(&[("via", "1.0 fred")], false);
        let all: Vec<_> = headers.get_all("via").iter().collect();
        assert_eq!(all, ["1.0 fred", "1.1 cless"]);
    }

    #[test]
    fn rfc_9112_section_3_2_there_is_exactly_one_host() {
        let request = |uri: &str, hosts: &[&str]| {
            let mut request = Request::get(uri).body(()).unwrap();
            for host in hosts {
                request
                    .headers_mut()
                    .append("host", HeaderValue::from_str(host).unwrap());
            }
            request
        };
        assert_eq!(host(&request("/", &["a.example"])), Ok("a.example"));
        assert_eq!(
            host(&request("http://b.example/", &["a.example"])),
            Ok("b.example")
        );
        assert!(host(&request("/", &[])).is_err());
        assert!(host(&request("/", &["a", "a"])).is_err());
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let headers = map(&[("cookie", "a=1; cless-affinity=k; b=2"), ("cookie", "c=3")]);
        assert_eq!(cookie(&headers, "cless-affinity"), Some("k"));
        assert_eq!(cookie(&headers, "c"), Some("3"));
        assert_eq!(cookie(&headers, "d"), None);
    }

    #[test]
    fn a_request_id_is_taken_over_only_from_a_trusted_peer() {
        let headers = map(&[("x-request-id", "theirs")]);
        assert_eq!(request_id(&headers, true, 1), "theirs");
        assert_eq!(
            request_id(&headers, false, 1),
            format!("{:032x}", 1).as_str()
        );
    }
}
