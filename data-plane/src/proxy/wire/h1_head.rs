//! Parses the head of an HTTP/1 response and the framing of its body. Pure.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use httparse::ParserConfig;

use super::h1_decode::BodyDecoder;
use super::h1_error::{Error, append_fields};
use super::h1_framing;
use super::malformation;

/// Limit of a head in bytes.
pub(crate) const MAX_HEAD: usize = 128 * 1024;
/// Fields for which there is space on the stack.
const USUAL_FIELDS: usize = 100;
/// Fields that the proxy adds, for which space is reserved.
const ADDED_FIELDS: usize = 4;

#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) response: Response<BodyDecoder>,
    /// The connection persists after the response (RFC 9112 section 9.3).
    pub(crate) keep_alive: bool,
}

/// Takes a head from the front of `buffer`; `None` if it is incomplete. `is_head`: the method of
/// the request was HEAD. `max_fields`: limit of the fields.
///
/// White space before a colon and line folding are removed (RFC 9112 sections 5.1 and 5.2). A minor
/// version above 1 is read as 1 (RFC 9110 section 2.5).
///
/// # Errors
/// If the head is malformed (RFC 9112 section 4), or frames its body ambiguously (section 6.3).
pub(crate) fn parse(
    buffer: &mut BytesMut,
    is_head: bool,
    max_fields: usize,
) -> Result<Option<ResponseHead>, Error> {
    let Some(end) = h1_framing::head_end(buffer) else {
        return match buffer.len() < MAX_HEAD {
            true if may_be_http1(buffer) => Ok(None),
            true => Err(Error::malformed("the response is not HTTP/1")),
            false => Err(Error::malformed("the head is too long")),
        };
    };
    let mut section = buffer.split_to(end);
    if let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor @ b'2'..=b'9',
        ..,
    ] = &mut section[..]
    {
        *minor = b'1';
    }
    let section = section.freeze();
    let mut space = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let mut more_space = Vec::new();
    let mut found = httparse::Response::new(&mut []);
    let mut config = ParserConfig::default();
    config
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true);
    let usual = USUAL_FIELDS.min(max_fields);
    let mut parsed =
        config.parse_response_with_uninit_headers(&mut found, &section, &mut space[..usual]);
    if parsed == Err(httparse::Error::TooManyHeaders) && max_fields > usual {
        more_space.resize_with(max_fields, MaybeUninit::uninit);
        found = httparse::Response::new(&mut []);
        parsed = config.parse_response_with_uninit_headers(&mut found, &section, &mut more_space);
    }
    match parsed {
        Ok(status) if status.is_complete() => {}
        Ok(_) => return Err(Error::malformed("the head is empty")),
        Err(error) => {
            let first = memchr::memchr(b'\n', &section).map_or(0, |end| end + 1);
            let found = malformation::of_parser(error, &section[first..]);
            return Err(Error::Malformed(found));
        }
    }
    let status = found.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| Error::malformed("the status is not valid"))?;
    let is_http10 = found.version == Some(0);
    let mut response = Response::new(BodyDecoder::Over);
    *response.status_mut() = status;
    *response.version_mut() = if is_http10 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    let headers = response.headers_mut();
    headers.reserve(found.headers.len() + ADDED_FIELDS);
    append_fields(&section, found.headers.iter().copied(), headers)?;
    // A custom reason phrase is passed on (RFC 9112 section 4).
    if let Some(reason) = found
        .reason
        .filter(|reason| Some(*reason) != status.canonical_reason())
        && let Ok(reason) = hyper::ext::ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let keep_alive = keep_alive(response.headers(), is_http10);
    let body = body(response.headers_mut(), status, is_head, is_http10)?;
    let keep_alive = keep_alive && body != BodyDecoder::Close;
    *response.body_mut() = body;
    Ok(Some(ResponseHead {
        response,
        keep_alive,
    }))
}

/// Whether an incomplete head may become one of HTTP/1. Empty lines before it are skipped.
fn may_be_http1(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"HTTP/1.";
    let bytes = bytes.trim_ascii_start();
    let known = bytes.len().min(BEGIN.len());
    bytes[..known] == BEGIN[..known]
}

/// Whether the connection persists (RFC 9112 section 9.3).
fn keep_alive(headers: &HeaderMap, is_http10: bool) -> bool {
    let mut keep_alive = !is_http10;
    for field in headers.get_all(header::CONNECTION) {
        for option in field.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep_alive
}

/// The framing of the body (RFC 9112 section 6.3).
fn body(
    headers: &mut HeaderMap,
    status: StatusCode,
    is_head: bool,
    is_http10: bool,
) -> Result<BodyDecoder, Error> {
    let coded = headers.contains_key(header::TRANSFER_ENCODING);
    // No body, whatever the fields are (RFC 9112 section 6.3, points 1 and 2).
    let none = is_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if none {
        // RFC 9110 section 8.6 forbids the field without a body that it could describe.
        let forbidden = status.is_informational() || status == StatusCode::NO_CONTENT;
        if forbidden || coded || length(headers).is_err() {
            headers.remove(header::CONTENT_LENGTH);
        }
        return Ok(BodyDecoder::Over);
    }
    let length = length(headers)?;
    if coded && (length.is_some() || is_http10) {
        let cause = match is_http10 {
            true => "Transfer-Encoding in HTTP/1.0",
            false => "Transfer-Encoding and Content-Length are both present",
        };
        return Err(Error::of_field(cause, "transfer-encoding"));
    }
    if coded {
        // Other codings need a request that accepts them (section 7).
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let (coding, None) = (codings.next(), codings.next()) else {
            let cause = "Transfer-Encoding occurs twice";
            return Err(Error::of_field(cause, "transfer-encoding"));
        };
        if !coding.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            let cause = "Transfer-Encoding is not chunked alone";
            return Err(Error::of_field(cause, "transfer-encoding"));
        }
    }
    Ok(match length {
        _ if coded => BodyDecoder::chunked(),
        Some(0) => BodyDecoder::Over,
        Some(length) => BodyDecoder::Length(length),
        None => BodyDecoder::Close,
    })
}

/// Reduces equal repeated values of `Content-Length` to one.
///
/// # Errors
/// If the values differ, or one is no number.
pub(crate) fn normalize_length(headers: &mut HeaderMap) -> Result<(), Error> {
    length(headers).map(|_| ())
}

/// The `Content-Length`. Equal repeated values are reduced to one.
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, Error> {
    let mut fields = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = fields.next() else {
        return Ok(None);
    };
    let is_repeated = fields.next().is_some() || first.as_bytes().contains(&b',');
    if !is_repeated {
        return decimal(first.as_bytes()).map(Some);
    }
    let all = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths = all.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let first = decimal(lengths.next().unwrap_or_default().trim_ascii())?;
    for other in lengths {
        if decimal(other.trim_ascii())? != first {
            let cause = "Content-Length has different values";
            return Err(Error::of_field(cause, "content-length"));
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(first));
    Ok(Some(first))
}

fn decimal(text: &[u8]) -> Result<u64, Error> {
    let number = h1_framing::decimal(text);
    number.ok_or_else(|| Error::of_field("Content-Length is not a number", "content-length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<ResponseHead>, Error> {
        parse(&mut BytesMut::from(text), false, USUAL_FIELDS)
    }

    fn head(fields: &str) -> ResponseHead {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        read(&text).expect("well formed").expect("complete")
    }

    #[test]
    fn rfc_9112_section_6_3_how_a_body_ends() {
        let body = |fields| head(fields).response.into_body();
        assert_eq!(body("content-length: 5\r\n"), BodyDecoder::Length(5));
        assert_eq!(body("content-length: 0\r\n"), BodyDecoder::Over);
        assert_eq!(
            body("content-length: 5, 5\r\ncontent-length: 5\r\n"),
            BodyDecoder::Length(5)
        );
        assert_eq!(
            body("transfer-encoding: Chunked\r\n"),
            BodyDecoder::chunked()
        );
        assert_eq!(body(""), BodyDecoder::Close);
        for (status, is_head) in [
            ("200", true),
            ("204", false),
            ("304", false),
            ("101", false),
        ] {
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\n");
            let head = parse(&mut BytesMut::from(text.as_str()), is_head, USUAL_FIELDS);
            let head = head.expect("well formed").expect("complete");
            assert_eq!(*head.response.body(), BodyDecoder::Over, "{status}");
            assert!(head.keep_alive);
        }
    }

    #[test]
    fn rfc_9112_section_6_3_ambiguous_framing_is_refused() {
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
    fn rfc_9112_section_9_3_persistence_of_the_connection() {
        let length = "content-length: 0\r\n";
        assert!(head(length).keep_alive);
        assert!(!head(&format!("{length}connection: x, Close\r\n")).keep_alive);
        assert!(!head("").keep_alive, "its end is the end of the body");
        let old = |more: &str| {
            let text = format!("HTTP/1.0 200 OK\r\n{length}{more}\r\n");
            read(&text).expect("well formed").expect("complete")
        };
        assert!(!old("").keep_alive);
        assert!(old("connection: keep-alive\r\n").keep_alive);
        assert_eq!(old("").response.version(), Version::HTTP_10);
    }

    #[test]
    fn exactly_the_head_is_taken() {
        let text = "HTTP/1.1 299 Quite Fine\r\nx: 1\r\nX: 2\r\ncontent-length: 2\r\n\r\nok";
        let end = text.len() - 2;
        for cut in 0..end {
            let mut buffer = BytesMut::from(&text[..cut]);
            assert!(
                parse(&mut buffer, false, USUAL_FIELDS)
                    .expect("so far")
                    .is_none(),
                "{cut}"
            );
            assert_eq!(buffer.len(), cut);
        }
        let mut buffer = BytesMut::from(text);
        let head = parse(&mut buffer, false, USUAL_FIELDS)
            .expect("well formed")
            .expect("complete");
        assert_eq!(buffer, "ok");
        let response = head.response;
        assert_eq!(response.headers().get_all("x").iter().count(), 2);
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
        assert_eq!(reason.expect("its own words").as_bytes(), b"Quite Fine");
    }

    #[test]
    fn a_head_without_end_or_with_too_many_fields_is_refused() {
        let endless = "x".repeat(MAX_HEAD);
        assert!(read(&endless).is_err());
        for (fields, limit, is_taken) in [
            (100, 100, true),
            (101, 100, false),
            (101, 256, true),
            (256, 256, true),
            (257, 256, false),
            (9, 8, false),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: 1\r\n".repeat(fields));
            let parsed = parse(&mut BytesMut::from(&*text), false, limit);
            assert_eq!(parsed.is_ok(), is_taken, "{fields} of {limit}");
            if let Ok(Some(head)) = parsed {
                assert_eq!(head.response.headers().len(), fields);
            }
        }
    }

    #[test]
    fn rfc_9112_section_5_spaces_and_folds_of_a_response_are_removed() {
        let head = head("x : 1\r\ny\t: 2\r\nz: a\r\n b\r\n\t c \r\nContent-Length :\r\n 5\r\n");
        let fields = head.response.headers();
        assert_eq!(
            (&fields["x"], &fields["y"], &fields["z"]),
            (
                &"1".parse().unwrap(),
                &"2".parse().unwrap(),
                &"a b c".parse().unwrap()
            )
        );
        assert_eq!(*head.response.body(), BodyDecoder::Length(5));
        assert!(read("HTTP/1.1 200 OK\r\n x: 1\r\n\r\n").is_err());
    }

    #[test]
    fn rfc_9112_section_6_3_no_body_whatever_the_fields_are() {
        let both = "content-length: 5\r\ntransfer-encoding: chunked\r\n";
        for fields in [
            both,
            "content-length: 5\r\ncontent-length: 6\r\n",
            "transfer-encoding: x\r\n",
        ] {
            for (status, is_head) in [(200, true), (304, false), (204, false)] {
                let text = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
                let head = parse(&mut BytesMut::from(&*text), is_head, USUAL_FIELDS);
                let head = head.expect("well formed").expect("complete");
                assert_eq!(*head.response.body(), BodyDecoder::Over);
                assert!(!head.response.headers().contains_key("content-length"));
            }
        }
        let not_modified = read("HTTP/1.1 304 X\r\ncontent-length: 5\r\n\r\n");
        let head = not_modified.expect("well formed").expect("complete");
        assert_eq!(head.response.headers()["content-length"], "5");
        let empty = read("HTTP/1.1 204 X\r\ncontent-length: 0\r\n\r\n");
        let head = empty.expect("well formed").expect("complete");
        assert!(!head.response.headers().contains_key("content-length"));
    }

    #[test]
    fn rfc_9110_section_2_5_a_higher_minor_version_is_read_as_1() {
        let head = read("HTTP/1.9 200 OK\r\ncontent-length: 0\r\n\r\n");
        let head = head.expect("well formed").expect("complete");
        assert_eq!(head.response.version(), Version::HTTP_11);
        assert!(head.keep_alive);
    }
}
