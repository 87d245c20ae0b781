//! What the proxy changes in message heads. Pure: nothing here knows a socket.
//!
//! Fields of one hop are stripped both ways (RFC 9110 section 7.6.1): those named by `Connection` and those
//! that always are. `TE: trailers` is said again to the instance, because gRPC needs it. What is said of
//! where a request came from is in [`forwarded`](super::forwarded). Fields are edited in place.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use super::error::Error;
use crate::route::normalize;

/// Names a request through all logs.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken over from a trusted peer.
const MAX_REQUEST_ID: usize = 128;

/// Whether a field is of one hop, whatever `Connection` says.
fn is_of_one_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// The one host a request is for, as the key of the host table: the authority of its target, else the
/// only `Host` field.
///
/// HTTP/1 must have exactly one `Host` (RFC 9112 section 3.2), which gives way to the target's authority
/// (section 3.2.2); in HTTP/2 the two must agree (RFC 9113 section 8.3.1).
///
/// # Errors
/// [`Error::BadRequest`] if there is none, or more than one, or it is no host.
pub(super) fn host<B>(request: &Request<B>) -> Result<Cow<'_, str>, Error> {
    let bad = |what: &str| Error::BadRequest(what.to_owned());
    let normal = |host| normalize(host).map_err(|error| Error::BadRequest(error.to_string()));
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (_, Some(_)) => return Err(bad("more than one Host field")),
        (None, None) => None,
        (Some(field), None) => {
            let text = field
                .to_str()
                .map_err(|_| bad("the Host field is no text"))?;
            Some(normal(text)?)
        }
    };
    if let Some(scheme) = request.uri().scheme_str()
        && !matches!(scheme, "http" | "https")
    {
        return Err(bad("the target is neither http nor https"));
    }
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    match (authority.map(normal).transpose()?, field) {
        (None, None) => Err(bad("no Host field")),
        (None, Some(field)) => Ok(field),
        (Some(authority), field) if request.version() == Version::HTTP_2 => match field {
            Some(field) if field != authority => Err(bad("Host and :authority differ")),
            _ => Ok(authority),
        },
        (Some(_), None) if request.version() == Version::HTTP_11 => Err(bad("no Host field")),
        (Some(authority), _) => Ok(authority),
    }
}

/// Checks the form of a target (RFC 9112 section 3.2): a path, or an absolute URI, or `*` for `OPTIONS`.
///
/// # Errors
/// [`Error::BadRequest`] for any other, which only looks like a host or a path.
pub(super) fn check_target<B>(request: &Request<B>) -> Result<(), Error> {
    let uri = request.uri();
    let good = match uri.path() {
        "*" => request.method() == Method::OPTIONS,
        "" => uri.scheme().is_some(),
        path => path.starts_with('/') && (uri.scheme().is_some() || uri.authority().is_none()),
    };
    match good {
        true => Ok(()),
        false => Err(Error::BadRequest("the target is of no form".to_owned())),
    }
}

/// The `Host` field for the instance: what the client asked for, also if it was in the target.
pub(super) fn host_field<B>(request: &Request<B>) -> Option<HeaderValue> {
    match request.uri().authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    }
}

/// The protocol that a request asks to switch to (RFC 9110 section 7.8). An HTTP/1.0 client cannot, and
/// HTTP/2 is not switched to (RFC 9113 section 3.1).
pub(super) fn upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let asked = version == Version::HTTP_11
        && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")
        && names(headers).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    asked.then(|| protocol.clone())
}

/// What `Connection` names. Each is read by itself: one that is no name hides no other.
fn names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}

/// Removes the fields of one hop. A head that has none, which over HTTP/2 is every one, is only looked through.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(is_of_one_hop) {
        return;
    }
    // What nearly every client says names nothing more.
    let plain = |value: &HeaderValue| value == "keep-alive" || value == "close";
    if !headers.get_all(header::CONNECTION).iter().all(plain) {
        let named: Vec<HeaderName> = names(headers)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .collect();
        for name in named {
            // A client cannot make the proxy drop what routes and frames the message.
            if name != header::HOST && name != header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
    }
    remove_all(headers, is_of_one_hop);
}

/// Prepares a request's fields for the next hop. `upgrade`: what it asks to switch to.
pub(super) fn prepare_request(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let trailers = headers.contains_key(header::TE)
        && headers.get_all(header::TE).iter().any(|te| {
            te.to_str().is_ok_and(|te| {
                let mut codings = te.split(',');
                codings.any(|one| one.trim().eq_ignore_ascii_case("trailers"))
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
    join_cookies(headers);
}

/// HTTP/2 may send a cookie in pieces; whoever reads `Cookie` expects one field (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else {
        return;
    };
    let mut whole = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(piece.as_bytes());
    }
    if let Ok(whole) = HeaderValue::from_bytes(&whole) {
        headers.insert(header::COOKIE, whole);
    }
}

/// Rewrites a response's head for the client. A switch of protocol keeps its two fields.
pub(super) fn prepare_response(
    headers: &mut HeaderMap,
    id: &HeaderValue,
    switched: bool,
    via: Version,
) {
    let upgrade = match switched {
        true => headers.get(header::UPGRADE).cloned(),
        false => None,
    };
    strip_hop_by_hop(headers);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    headers.insert(REQUEST_ID, id.clone());
    append_via(headers, via);
}

/// Leaves of a trailer section what may be one (RFC 9110 section 6.5.1): nothing that frames, routes or says
/// where the message came from, which was decided by the head.
pub(super) fn prepare_trailers(trailers: &mut HeaderMap) {
    let forbidden = |name: &HeaderName| {
        let name = name.as_str();
        name == REQUEST_ID
            || super::forwarded::FIELDS
                .iter()
                .any(|set| name == set.as_str())
            || matches!(
                name,
                "authorization"
                    | "content-encoding"
                    | "content-length"
                    | "content-type"
                    | "cookie"
                    | "expect"
                    | "forwarded"
                    | "host"
                    | "set-cookie"
                    | "trailer"
                    | "via"
            )
    };
    strip_hop_by_hop(trailers);
    remove_all(trailers, forbidden);
}

/// Removes every field that `which` picks.
fn remove_all(headers: &mut HeaderMap, which: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| which(name)).cloned() {
        headers.remove(name);
    }
}

/// Notes a message that came in by `version` (RFC 9110 section 7.6.3).
pub(super) fn append_via(headers: &mut HeaderMap, version: Version) {
    let via = match version {
        Version::HTTP_10 => "1.0 cless",
        Version::HTTP_2 => "2.0 cless",
        _ => "1.1 cless",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// The id a request keeps: that of a trusted peer, if it is one, else a new one from `random`.
///
/// HTTP/2 is told never to index it (RFC 7541 section 6.2.3): a value that is sent once would only drive useful
/// ones from the table, and be compared with all ids that are in it.
pub(super) fn request_id(headers: &HeaderMap, trusted: bool, random: u128) -> HeaderValue {
    let given = match trusted {
        true => headers.get(REQUEST_ID),
        false => None,
    };
    let given =
        given.filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.to_str().is_ok());
    let mut id = given.cloned().unwrap_or_else(|| {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (at, digit) in text.iter_mut().enumerate() {
            *digit = DIGITS[(random >> (4 * at)) as usize & 15];
        }
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    });
    id.set_sensitive(true);
    id
}

/// True for a caller that reads `grpc-status` and not the HTTP status.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The value of a cookie (RFC 6265 section 5.4).
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
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

    fn prepared(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = map(fields);
        let protocol = upgrade(&headers, Version::HTTP_11);
        prepare_request(&mut headers, protocol);
        headers
    }

    #[test]
    fn rfc_9110_section_7_6_1_fields_of_one_hop_are_stripped() {
        let headers = prepared(&[
            ("connection", "keep-alive"),
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-kept", "1"),
        ]);
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
    fn rfc_9110_section_6_5_1_trailers_frame_and_route_nothing() {
        let mut trailers = map(&[
            ("grpc-status", "0"),
            ("checksum", "x"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-request-id", "a"),
        ]);
        prepare_trailers(&mut trailers);
        let mut names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["checksum", "grpc-status"]);
    }

    #[test]
    fn a_client_cannot_have_host_or_length_dropped() {
        let headers = prepared(&[
            ("connection", "host, content-length"),
            ("host", "a"),
            ("content-length", "3"),
        ]);
        assert_eq!(
            (&headers["host"], &headers["content-length"]),
            (
                &HeaderValue::from_static("a"),
                &HeaderValue::from_static("3")
            )
        );
    }

    #[test]
    fn rfc_9110_section_7_8_an_upgrade_is_said_again_only_if_it_was_asked_for() {
        let websocket = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let headers = prepared(&websocket);
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
        assert_eq!(upgrade(&map(&websocket), Version::HTTP_10), None);
        let h2c = prepared(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
        ]);
        assert!(h2c.is_empty(), "{h2c:?}");
    }

    #[test]
    fn rfc_9113_section_8_2_3_pieces_of_a_cookie_are_joined() {
        let headers = prepared(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }

    #[test]
    fn rfc_9112_section_3_2_there_is_exactly_one_host() {
        let found = |version, uri: &str, hosts: &[&str]| {
            let mut request = Request::get(uri).version(version).body(()).unwrap();
            for host in hosts {
                let host = HeaderValue::from_str(host).unwrap();
                request.headers_mut().append("host", host);
            }
            host(&request).map(Cow::into_owned)
        };
        let http1 = |uri, hosts: &[&str]| found(Version::HTTP_11, uri, hosts);
        assert_eq!(http1("/", &["A.example:80"]), Ok("a.example".to_owned()));
        assert_eq!(
            http1("http://b.example/", &["a.example"]),
            Ok("b.example".to_owned())
        );
        for refused in [
            http1("/", &[]),
            http1("/", &["a", "a"]),
            http1("/", &[""]),
            http1("/", &["a b"]),
            http1("/", &["user@a"]),
            http1("http://b.example/", &[]),
            http1("http://b.example/", &["a b"]),
            http1("http://u@b.example/", &["b.example"]),
            http1("ftp://b.example/", &["b.example"]),
            found(Version::HTTP_10, "/", &[]),
        ] {
            assert!(matches!(refused, Err(Error::BadRequest(_))), "{refused:?}");
        }
    }

    #[test]
    fn rfc_9112_section_3_2_a_target_is_of_one_of_three_forms() {
        let check = |method: &str, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(());
            check_target(&request.unwrap()).is_ok()
        };
        for uri in ["/", "/x?y", "http://a.example", "http://a.example/x"] {
            assert!(check("GET", uri), "{uri}");
        }
        assert!(check("OPTIONS", "*"));
        for uri in ["*", "first", "a.example:80", "a.example"] {
            assert!(!check("GET", uri), "{uri}");
        }
    }

    #[test]
    fn rfc_9113_section_8_3_1_host_and_authority_agree() {
        let found = |field: Option<&str>| {
            let mut request = Request::get("http://a.example/").version(Version::HTTP_2);
            if let Some(field) = field {
                request = request.header("host", field);
            }
            host(&request.body(()).unwrap()).map(Cow::into_owned)
        };
        assert_eq!(found(None), Ok("a.example".to_owned()));
        assert_eq!(found(Some("A.example")), Ok("a.example".to_owned()));
        assert!(found(Some("b.example")).is_err());
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
        let made = request_id(&headers, false, u128::MAX);
        assert_eq!(made, "f".repeat(32).as_str());
    }
}
