//! WebSockets over HTTP/2 (RFC 8441): translates a client's extended CONNECT into the HTTP/1.1
//! upgrade of RFC 6455 for the instance. Pure; the caller supplies the randomness.
//!
//! ```text
//!  client                                proxy                         instance
//!  CONNECT, :protocol = websocket  ──►   GET, Upgrade: websocket, key  ──►
//!                            200   ◄──   101, accept matches the key      ◄──
//!               DATA of the stream  ◄─►  bytes of the connection
//! ```
//!
//! Key and accept exist only in HTTP/1.1 (RFC 8441 section 5.1), so they are made and checked here.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use h2::ext::Protocol;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use sha1::{Digest as _, Sha1};

use super::error::Error;
use crate::proxy::wire::malformation::Malformation;

const WEBSOCKET: &str = "websocket";
/// The suffix of the key when it is hashed (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(crate) fn is_extended_connect<B>(request: &Request<B>) -> bool {
    *request.method() == Method::CONNECT
        && request.version() == Version::HTTP_2
        && request.extensions().get::<Protocol>().is_some()
}

/// The protocol of an extended CONNECT as a value of `Upgrade`. `None` for other requests.
///
/// # Errors
/// [`Error::Protocol`] unless it is `websocket`, in any case.
pub(crate) fn protocol<B>(request: &Request<B>) -> Result<Option<HeaderValue>, Error> {
    if !is_extended_connect(request) {
        return Ok(None);
    }
    let protocol = request.extensions().get::<Protocol>();
    match protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case(WEBSOCKET)) {
        true => Ok(Some(HeaderValue::from_static(WEBSOCKET))),
        false => Err(Error::Protocol),
    }
}

/// The `Sec-WebSocket-Accept` that the instance must return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedAccept(String);

/// Turns the CONNECT into the GET of an upgrade, with a key made from `random`.
pub(crate) fn to_http1_upgrade(head: &mut Parts, random: u128) -> ExpectedAccept {
    head.method = Method::GET;
    head.extensions.remove::<Protocol>();
    let key = BASE64_STANDARD.encode(random.to_be_bytes());
    let accept = accept_of(&key);
    head.headers.remove(header::CONTENT_LENGTH);
    if let Ok(key) = HeaderValue::try_from(key) {
        head.headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
    accept
}

/// Checks the response to an upgrade, and removes its `Sec-WebSocket-Accept`.
///
/// # Errors
/// [`Error::MalformedResponse`] if the accept does not match, and [`Error::UpgradeFailed`] for
/// another success, which would be a tunnel to a CONNECT client (RFC 9110 section 9.3.6).
pub(crate) fn validate_upgrade(
    status: StatusCode,
    fields: &mut HeaderMap,
    expected: &ExpectedAccept,
) -> Result<(), Error> {
    let accept = fields.remove(header::SEC_WEBSOCKET_ACCEPT);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return match accept.is_some_and(|accept| accept.as_bytes() == expected.0.as_bytes()) {
            true => Ok(()),
            false => {
                let cause = "the accept does not match the key";
                let found = Malformation::of_field(cause, b"sec-websocket-accept");
                Err(Error::MalformedResponse(found))
            }
        };
    }
    match status.is_success() {
        true => Err(Error::UpgradeFailed),
        false => Ok(()),
    }
}

/// RFC 6455 section 4.2.2, point 5.4.
fn accept_of(key: &str) -> ExpectedAccept {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    ExpectedAccept(BASE64_STANDARD.encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(protocol: &'static str) -> Request<()> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .version(Version::HTTP_2)
            .uri("http://a.example/chat")
            .body(())
            .unwrap();
        let protocol = Protocol::from_static(protocol);
        request.extensions_mut().insert(protocol);
        request
    }

    #[test]
    fn rfc_6455_section_1_3_the_accept_of_a_key() {
        let accept = accept_of("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept.0, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn rfc_8441_section_5_only_websockets_are_supported() {
        assert_eq!(protocol(&connect("websocket")).unwrap().unwrap(), WEBSOCKET);
        assert_eq!(protocol(&connect("WebSocket")).unwrap().unwrap(), WEBSOCKET);
        assert_eq!(protocol(&connect("connect-udp")), Err(Error::Protocol));
        let plain = Request::builder().method(Method::CONNECT).body(()).unwrap();
        assert_eq!(protocol(&plain), Ok(None));
    }

    #[test]
    fn rfc_8441_section_5_1_the_key_is_made_and_the_accept_is_checked() {
        let (mut head, ()) = connect("websocket").into_parts();
        let accept = to_http1_upgrade(&mut head, 7);
        assert_eq!(head.method, Method::GET);
        let key = head.headers[header::SEC_WEBSOCKET_KEY].to_str().unwrap();
        assert_eq!(accept, accept_of(key));
        let check = |status, value: &str| {
            let mut fields = HeaderMap::new();
            fields.insert(
                header::SEC_WEBSOCKET_ACCEPT,
                HeaderValue::from_str(value).unwrap(),
            );
            let checked = validate_upgrade(status, &mut fields, &accept);
            assert!(fields.is_empty());
            checked
        };
        let switched = StatusCode::SWITCHING_PROTOCOLS;
        assert_eq!(check(switched, &accept.0), Ok(()));
        let malformed = check(switched, "another");
        assert!(matches!(malformed, Err(Error::MalformedResponse(_))));
        assert_eq!(check(StatusCode::OK, &accept.0), Err(Error::UpgradeFailed));
        assert_eq!(check(StatusCode::FORBIDDEN, ""), Ok(()));
    }
}
