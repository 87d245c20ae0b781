//! Changes of message heads. Pure, and in place.
//!
//! Hop-by-hop fields are removed in both directions (RFC 9110 section 7.6.1): the fixed ones and
//! those that `Connection` names. `TE: trailers` is restored for the instance, because gRPC needs
//! it. [`forwarded`](super::forwarded) sets the fields about the origin of a request.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};

use super::error::Error;
use super::origin_claims::is_origin_claim;
use crate::proxy::wire::h1_framing::FramingError;
use crate::route::normalize;

/// The request id, which all logs contain.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The fields about the origin of a request, which only cless sets.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Limit of a trusted peer's request id in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Whether a field is hop-by-hop even if `Connection` does not name it.
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
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

/// The host of a request, normalized as in the route table: the authority of its target, or the
/// `Host` field.
///
/// HTTP/1 requires exactly one `Host` (RFC 9112 section 3.2), over which the target's authority has
/// priority (section 3.2.2). In HTTP/2 the two must be equal (RFC 9113 section 8.3.1).
///
/// # Errors
/// [`Error::BadRequest`] if the host is missing, repeated, or invalid.
pub(crate) fn host<B>(request: &Request<B>) -> Result<Cow<'_, str>, Error> {
    let bad = |what: &str| Error::BadRequest(what.to_owned());
    let normal = |host| normalize(host).map_err(|error| Error::BadRequest(error.to_string()));
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (_, Some(_)) => return Err(bad("more than one Host field")),
        (None, None) => None,
        (Some(field), None) => {
            let text = field
                .to_str()
                .map_err(|_| bad("the Host field is not ASCII"))?;
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

/// Checks the form of a target (RFC 9112 section 3.2): a path, an absolute URI, or `*` for
/// `OPTIONS`.
///
/// # Errors
/// [`Error::BadRequest`] for any other form.
pub(crate) fn check_target<B>(request: &Request<B>) -> Result<(), Error> {
    let uri = request.uri();
    let is_valid = match uri.path() {
        "*" => request.method() == Method::OPTIONS,
        "" => uri.scheme().is_some(),
        path => path.starts_with('/') && (uri.scheme().is_some() || uri.authority().is_none()),
    };
    match is_valid {
        true => Ok(()),
        false => Err(Error::BadRequest(
            "the target is neither a path nor a URI".to_owned(),
        )),
    }
}

/// Checks fields that `h2` accepts and HTTP/1 does not: a name that is no token (RFC 9110 section
/// 5.6.2), more than one length, and a head of more than `max_bytes` (RFC 9113 section 6.5.2).
///
/// # Errors
/// [`Error::BadRequest`], [`Error::Ambiguous`] or [`Error::HeadTooLarge`].
pub(crate) fn check_http2_head<B>(request: &Request<B>, max_bytes: usize) -> Result<(), Error> {
    const OVERHEAD: usize = 32;
    let (uri, headers) = (request.uri(), request.headers());
    let authority = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let mut bytes = authority + path;
    for (name, value) in headers {
        if is_no_token(name) {
            return Err(Error::BadRequest("a field name is no token".to_owned()));
        }
        bytes += name.as_str().len() + value.len() + OVERHEAD;
    }
    if bytes > max_bytes {
        return Err(Error::HeadTooLarge);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (_, None) => Ok(()),
        _ => Err(FramingError::ContentLength.into()),
    }
}

/// A quote is the only byte beyond tokens that `http` accepts in a name over HTTP/2.
fn is_no_token(name: &HeaderName) -> bool {
    memchr::memchr(b'"', name.as_str().as_bytes()).is_some()
}

/// The number of fields, with the pieces of `Cookie` as one (RFC 9113 section 8.2.3).
pub(crate) fn count(headers: &HeaderMap) -> usize {
    let cookies = headers.get_all(header::COOKIE).iter().count();
    headers.len() - cookies.saturating_sub(1)
}

/// The `Host` field for the instance: the host as the client wrote it, in the target or the field.
pub(crate) fn host_field<B>(request: &Request<B>) -> Option<HeaderValue> {
    match request.uri().authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    }
}

/// The protocol that a request asks to upgrade to (RFC 9110 section 7.8). `None` for HTTP/1.0,
/// which cannot, and for h2c, which is obsolete (RFC 9113 section 3.1).
pub(crate) fn upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let is_upgrade = version == Version::HTTP_11
        && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")
        && connection_options(headers).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    is_upgrade.then(|| protocol.clone())
}

/// The options of `Connection`. An invalid one does not hide the others.
fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}

/// Removes hop-by-hop fields. A head without any, as always over HTTP/2, is only scanned.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    // The usual values name no further field.
    let plain = |value: &HeaderValue| value == "keep-alive" || value == "close";
    if !headers.get_all(header::CONNECTION).iter().all(plain) {
        let named: Vec<HeaderName> = connection_options(headers)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .collect();
        for name in named {
            // A client must not remove fields that route and frame the message.
            if name != header::HOST && name != header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
    }
    remove_all(headers, is_hop_by_hop);
}

/// Prepares the fields of a request for the instance. `upgrade`: the protocol to upgrade to.
pub(crate) fn prepare_request(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let takes_trailers = headers.contains_key(header::TE)
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
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
}

/// Joins the `Cookie` fields, which HTTP/2 may split (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Prepares the fields of a response for the client. `switched`: keep the fields of an upgrade.
pub(crate) fn prepare_response(
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
    if via == Version::HTTP_2 {
        remove_all(headers, is_no_token);
    }
    headers.insert(REQUEST_ID, id.clone());
    append_via(headers, via);
}

/// The head of an interim response over HTTP/1.1.
pub(crate) fn http1_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or("Interim");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Removes trailers that frame or route a message, or describe its origin: the head has decided
/// that (RFC 9110 section 6.5.1).
pub(crate) fn prepare_trailers(trailers: &mut HeaderMap) {
    let forbidden = |name: &HeaderName| {
        is_origin_claim(name, &[])
            || *name == REQUEST_ID
            || matches!(
                name.as_str(),
                "authorization"
                    | "content-encoding"
                    | "content-length"
                    | "content-type"
                    | "cookie"
                    | "expect"
                    | "host"
                    | "set-cookie"
                    | "trailer"
                    | "via"
            )
    };
    strip_hop_by_hop(trailers);
    remove_all(trailers, |name| forbidden(name) || is_no_token(name));
}

pub(super) fn remove_all(headers: &mut HeaderMap, which: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| which(name)).cloned() {
        headers.remove(name);
    }
}

/// Appends `Via` for a message received over `version` (RFC 9110 section 7.6.3).
pub(crate) fn append_via(headers: &mut HeaderMap, version: Version) {
    let via = match version {
        Version::HTTP_10 => "1.0 cless",
        Version::HTTP_2 => "2.0 cless",
        _ => "1.1 cless",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// The id of a request: that of a trusted peer if it is valid, or a new one from `random`.
///
/// It is marked as never indexed for HTTP/2 (RFC 7541 section 6.2.3): a value that is sent once
/// would only displace useful ones.
pub(crate) fn request_id(headers: &HeaderMap, trusted: bool, random: u128) -> HeaderValue {
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

/// Whether a field that lists names has this one, or `*`.
pub(crate) fn names(headers: &HeaderMap, list: &HeaderName, name: &HeaderName) -> bool {
    headers
        .get_all(list)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|found| found == b"*" || found.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// Forbids shared caches to store a response (RFC 9111 section 5.2.2.7).
pub(crate) fn make_private(headers: &mut HeaderMap) {
    let mut kept = Vec::new();
    for field in headers.get_all(header::CACHE_CONTROL) {
        for directive in field.as_bytes().split(|byte| *byte == b',') {
            let directive = directive.trim_ascii();
            let name = directive.split(|byte| *byte == b'=').next();
            let name = name.unwrap_or_default().trim_ascii().to_ascii_lowercase();
            // A list of fields behind `private` limits it to them.
            if !matches!(&*name, b"" | b"public" | b"s-maxage" | b"private") {
                kept.extend_from_slice(directive);
                kept.extend_from_slice(b", ");
            }
        }
    }
    kept.extend_from_slice(b"private");
    if let Ok(value) = HeaderValue::from_bytes(&kept) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

const GRPC: &[u8] = b"application/grpc";

/// Whether the caller uses gRPC (and not grpc-web), so that it reads `grpc-status` and not the HTTP status.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().split_at_checked(GRPC.len()))
        .is_some_and(|(kind, rest)| {
            kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';'))
        })
}

/// The value of a cookie (RFC 6265 section 5.4).
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

#[cfg(test)]
mod tests;
