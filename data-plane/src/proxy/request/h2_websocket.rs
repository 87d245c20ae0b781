//! WebSockets over HTTP/2 (RFC 8441): a client's extended CONNECT is to the instance, which speaks
//! HTTP/1.1, the upgrade of RFC 6455. Pure but for what the caller draws at random.
//!
//! ```text
//!  client                                proxy                         instance
//!  CONNECT, :protocol = websocket  ──►   GET, Upgrade: websocket, key  ──►
//!                            200   ◄──   101, accept fits the key      ◄──
//!               DATA of the stream  ◄─►  bytes of the connection
//! ```
//!
//! Key and accept are of HTTP/1.1 alone (RFC 8441 section 5.1): they are made and checked here.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use h2::ext::Protocol;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use sha1::{Digest as _, Sha1};

use super::error::Error;

const WEBSOCKET: &str = "websocket";
/// What is hashed behind the key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request is an extended CONNECT.
pub(super) fn is_extended<B>(request: &Request<B>) -> bool {
    *request.method() == Method::CONNECT
        && request.version() == Version::HTTP_2
        && request.extensions().get::<Protocol>().is_some()
}

/// The protocol that an extended CONNECT asks to switch to, as `Upgrade` names it.
///
/// # Errors
/// [`Error::Protocol`] for any but `websocket`, in any case of letters.
pub(super) fn protocol<B>(request: &Request<B>) -> Result<Option<HeaderValue>, Error> {
    if !is_extended(request) {
        return Ok(None);
    }
    let asked = request.extensions().get::<Protocol>();
    match asked.is_some_and(|asked| asked.as_str().eq_ignore_ascii_case(WEBSOCKET)) {
        true => Ok(Some(HeaderValue::from_static(WEBSOCKET))),
        false => Err(Error::Protocol),
    }
}

/// What the instance must answer to the request that [`ask`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accept(String);

/// Makes of the CONNECT the GET of an upgrade; `random` is what its key is made of.
pub(super) fn ask(head: &mut Parts, random: u128) -> Accept {
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

/// Whether the instance has switched. Its `Sec-WebSocket-Accept` goes no further.
///
/// # Errors
/// [`Error::Broken`] if it switched to something else, or answered with a success that to a client of
/// CONNECT would be a tunnel (RFC 9110 section 9.3.6).
pub(super) fn settle(
    status: StatusCode,
    fields: &mut HeaderMap,
    accept: &Accept,
) -> Result<(), Error> {
    let told = fields.remove(header::SEC_WEBSOCKET_ACCEPT);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return match told.is_some_and(|told| told.as_bytes() == accept.0.as_bytes()) {
            true => Ok(()),
            false => Err(Error::Broken),
        };
    }
    match status.is_success() {
        true => Err(Error::Broken),
        false => Ok(()),
    }
}

/// RFC 6455 section 4.2.2, point 5.4.
fn accept_of(key: &str) -> Accept {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    Accept(BASE64_STANDARD.encode(hash.finalize()))
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
    fn rfc_8441_section_5_only_websockets_are_asked_for() {
        assert_eq!(protocol(&connect("websocket")).unwrap().unwrap(), WEBSOCKET);
        assert_eq!(protocol(&connect("WebSocket")).unwrap().unwrap(), WEBSOCKET);
        assert_eq!(protocol(&connect("connect-udp")), Err(Error::Protocol));
        let plain = Request::builder().method(Method::CONNECT).body(()).unwrap();
        assert_eq!(protocol(&plain), Ok(None));
    }

    #[test]
    fn rfc_8441_section_5_1_the_key_is_made_and_the_accept_is_checked() {
        let (mut head, ()) = connect("websocket").into_parts();
        let accept = ask(&mut head, 7);
        assert_eq!(head.method, Method::GET);
        let key = head.headers[header::SEC_WEBSOCKET_KEY].to_str().unwrap();
        assert_eq!(accept, accept_of(key));
        let told = |status, told: &str| {
            let mut fields = HeaderMap::new();
            fields.insert(
                header::SEC_WEBSOCKET_ACCEPT,
                HeaderValue::from_str(told).unwrap(),
            );
            let settled = settle(status, &mut fields, &accept);
            assert!(fields.is_empty());
            settled
        };
        let switched = StatusCode::SWITCHING_PROTOCOLS;
        assert_eq!(told(switched, &accept.0), Ok(()));
        assert_eq!(told(switched, "another"), Err(Error::Broken));
        assert_eq!(told(StatusCode::OK, &accept.0), Err(Error::Broken));
        assert_eq!(told(StatusCode::FORBIDDEN, ""), Ok(()));
    }
}
