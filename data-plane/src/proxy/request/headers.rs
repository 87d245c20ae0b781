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
#[path = "headers/tests.rs"]
mod tests;
