//! The head of a response: found, read, and what it says of what follows it. Pure.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use httparse::ParserConfig;

use super::decode::Decoder;
use super::{Error, MOST_READ, fields};
use crate::proxy::framing;

/// Fields of a head, at most.
const MOST_FIELDS: usize = 100;

/// Fields that a response gains on its way to the client: room for them is made at once.
const GAINED: usize = 4;

/// A response's head.
#[derive(Debug)]
pub(super) struct Head {
    /// With what reads its body.
    pub(super) response: Response<Decoder>,
    /// The connection outlasts it (RFC 9112 section 9.3).
    pub(super) keeps: bool,
}

/// Takes a head off the front of `buffer`; `None` if it is not here whole. `is_head`: the request's method was HEAD.
///
/// # Errors
/// If what is here is the beginning of no head (RFC 9112 section 4), or of one that frames its body in no way or
/// in two (section 6.3).
pub(super) fn parse(buffer: &mut BytesMut, is_head: bool) -> Result<Option<Head>, Error> {
    let Some(end) = framing::head_end(buffer) else {
        return match buffer.len() < MOST_READ {
            true => Ok(None),
            false => Err(Error::Malformed("its head does not end")),
        };
    };
    let section = buffer.split_to(end).freeze();
    let mut space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut found = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut found, &section, &mut space);
    match parsed {
        Ok(status) if status.is_complete() => {}
        Ok(_) => return Err(Error::Malformed("its head is empty")),
        Err(httparse::Error::TooManyHeaders) => return Err(Error::Malformed("too many fields")),
        Err(_) => return Err(Error::Malformed("its head")),
    }
    let status = found.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Error::Malformed("its status"))?;
    let old = found.version == Some(0);
    let mut response = Response::new(Decoder::Over);
    *response.status_mut() = status;
    *response.version_mut() = if old {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    let headers = response.headers_mut();
    headers.reserve(found.headers.len() + GAINED);
    fields(&section, found.headers.iter().copied(), headers)?;
    // What the server may say in place of the usual words (RFC 9112 section 4) is passed on.
    if let Some(reason) = found
        .reason
        .filter(|reason| Some(*reason) != status.canonical_reason())
        && let Ok(reason) = hyper::ext::ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let keeps = keeps(response.headers(), old);
    let body = body(response.headers_mut(), status, is_head, old)?;
    let keeps = keeps && body != Decoder::Close;
    *response.body_mut() = body;
    Ok(Some(Head { response, keeps }))
}

/// Whether the connection stays (RFC 9112 section 9.3).
fn keeps(headers: &HeaderMap, old: bool) -> bool {
    let mut keeps = !old;
    for field in headers.get_all(header::CONNECTION) {
        for option in field.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keeps |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keeps
}

/// How the body is framed (RFC 9112 section 6.3).
fn body(
    headers: &mut HeaderMap,
    status: StatusCode,
    is_head: bool,
    old: bool,
) -> Result<Decoder, Error> {
    let coded = headers.contains_key(header::TRANSFER_ENCODING);
    let length = length(headers)?;
    if coded && (length.is_some() || old) {
        return Err(Error::Malformed(
            "both Transfer-Encoding and a length, or HTTP/1.0",
        ));
    }
    if coded {
        // Another coding is used only with those who say that they take it (section 7).
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let (coding, None) = (codings.next(), codings.next()) else {
            return Err(Error::Malformed("Transfer-Encoding twice"));
        };
        if !coding.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Err(Error::Malformed("Transfer-Encoding is not chunked"));
        }
    }
    let none = is_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match length {
        _ if none => Decoder::Over,
        _ if coded => Decoder::chunked(),
        Some(0) => Decoder::Over,
        Some(length) => Decoder::Length(length),
        None => Decoder::Close,
    })
}

/// What `Content-Length` says. One length that is said several times is said once from here on.
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, Error> {
    let mut fields = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = fields.next() else {
        return Ok(None);
    };
    let several = fields.next().is_some() || first.as_bytes().contains(&b',');
    if !several {
        return decimal(first.as_bytes()).map(Some);
    }
    let all = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths = all.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let first = decimal(lengths.next().unwrap_or_default().trim_ascii())?;
    for other in lengths {
        if decimal(other.trim_ascii())? != first {
            return Err(Error::Malformed("Content-Length is several lengths"));
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(first));
    Ok(Some(first))
}

fn decimal(text: &[u8]) -> Result<u64, Error> {
    framing::decimal(text).ok_or(Error::Malformed("Content-Length is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Head>, Error> {
        parse(&mut BytesMut::from(text), false)
    }

    fn head(fields: &str) -> Head {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        read(&text).expect("well formed").expect("whole")
    }

    #[test]
    fn rfc_9112_section_6_3_how_a_body_ends() {
        let body = |fields| head(fields).response.into_body();
        assert_eq!(body("content-length: 5\r\n"), Decoder::Length(5));
        assert_eq!(body("content-length: 0\r\n"), Decoder::Over);
        assert_eq!(
            body("content-length: 5, 5\r\ncontent-length: 5\r\n"),
            Decoder::Length(5)
        );
        assert_eq!(body("transfer-encoding: Chunked\r\n"), Decoder::chunked());
        assert_eq!(body(""), Decoder::Close);
        for (status, is_head) in [
            ("200", true),
            ("204", false),
            ("304", false),
            ("101", false),
        ] {
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\n");
            let head = parse(&mut BytesMut::from(text.as_str()), is_head);
            let head = head.expect("well formed").expect("whole");
            assert_eq!(*head.response.body(), Decoder::Over, "{status}");
            assert!(head.keeps);
        }
    }

    #[test]
    fn rfc_9112_section_6_3_what_frames_in_two_ways_is_refused() {
        for fields in [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 6\r\n",
            "content-length: +5\r\n",
            "content-length: \r\n",
            "content-length: 99999999999999999999\r\n",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "x y: 1\r\n",
            "x: 1\r\n folded\r\n",
            ": 1\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert!(read(&text).is_err(), "{fields}");
        }
        assert!(read("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(read("HTTP/2.0 200 OK\r\n\r\n").is_err());
        assert!(read("\r\n\r\n").is_err());
    }

    #[test]
    fn rfc_9112_section_9_3_whether_the_connection_stays() {
        let length = "content-length: 0\r\n";
        assert!(head(length).keeps);
        assert!(!head(&format!("{length}connection: x, Close\r\n")).keeps);
        assert!(!head("").keeps, "its end is the body's");
        let old = |more: &str| {
            let text = format!("HTTP/1.0 200 OK\r\n{length}{more}\r\n");
            read(&text).expect("well formed").expect("whole")
        };
        assert!(!old("").keeps);
        assert!(old("connection: keep-alive\r\n").keeps);
        assert_eq!(old("").response.version(), Version::HTTP_10);
    }

    #[test]
    fn a_head_is_taken_whole_and_nothing_behind_it() {
        let text = "HTTP/1.1 299 Quite Fine\r\nx: 1\r\nX: 2\r\ncontent-length: 2\r\n\r\nok";
        let end = text.len() - 2;
        for cut in 0..end {
            let mut buffer = BytesMut::from(&text[..cut]);
            assert!(
                parse(&mut buffer, false).expect("so far").is_none(),
                "{cut}"
            );
            assert_eq!(buffer.len(), cut);
        }
        let mut buffer = BytesMut::from(text);
        let head = parse(&mut buffer, false)
            .expect("well formed")
            .expect("whole");
        assert_eq!(buffer, "ok");
        let response = head.response;
        assert_eq!(response.headers().get_all("x").iter().count(), 2);
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
        assert_eq!(reason.expect("its own words").as_bytes(), b"Quite Fine");
    }

    #[test]
    fn a_head_without_end_or_with_too_many_fields_is_refused() {
        let endless = "x".repeat(MOST_READ);
        assert!(read(&endless).is_err());
        let many = "x: 1\r\n".repeat(MOST_FIELDS + 1);
        assert!(read(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
    }
}
