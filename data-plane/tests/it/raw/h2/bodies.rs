//! Bodies, trailers, and misplaced frames.

use super::super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PUSH_PROMISE, block, frame,
};
use super::{AUTHORITY, Expected, METHOD, PATH, Row, SCHEME, head, hold, is_first, with};
use crate::front::origin::RecordedRequest;

fn body(name: &'static str, length: &str, data: &[&str], expected: Expected) -> Row {
    let post = (":method", "POST");
    let fields = [post, SCHEME, AUTHORITY, PATH, ("content-length", length)];
    let mut frames = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    for data in data {
        frames.extend(frame(DATA, 0, 1, data.as_bytes()));
    }
    frames.extend(frame(DATA, END_STREAM, 1, b""));
    Row {
        name,
        frames,
        expected,
    }
}

fn trailers(name: &'static str, fields: &[(&str, &str)], flags: u8, expected: Expected) -> Row {
    let post = (":method", "POST");
    let first = [post, SCHEME, AUTHORITY, PATH];
    let mut frames = frame(HEADERS, END_HEADERS, 1, &block(&first));
    frames.extend(frame(DATA, 0, 1, b"hello"));
    frames.extend(frame(HEADERS, END_HEADERS | flags, 1, &block(fields)));
    Row {
        name,
        frames,
        expected,
    }
}

fn is_hello(seen: &RecordedRequest) -> bool {
    is_first(seen) && seen.body == b"hello"
}

#[tokio::test]
async fn content_length_is_the_length_of_the_data() {
    let refused = || Expected::Refused;
    hold(vec![
        body("8.1.1 as said", "5", &["hello"], Expected::Passed(is_hello)),
        body(
            "8.1.1 as said, in two frames",
            "5",
            &["he", "llo"],
            Expected::Passed(is_hello),
        ),
        body("8.1.1 less than said", "6", &["hello"], refused()),
        body("8.1.1 more than said", "4", &["hello"], refused()),
        body(
            "8.1.1 more than said, in a frame of its own",
            "5",
            &["hello", "GET /smuggled HTTP/1.1\r\n\r\n"],
            refused(),
        ),
        body("8.1.1 zero said", "0", &["hello"], refused()),
        body("8.1.1 none of what was said", "5", &[], refused()),
        body("8.6 no number", "x", &["hello"], refused()),
        body("8.6 negative", "-5", &["hello"], refused()),
        body("8.6 plus", "+5", &["hello"], refused()),
        body("8.6 a list", "5, 5", &["hello"], refused()),
        body("8.6 empty", "", &["hello"], refused()),
        body(
            "8.6 2^64 + 5",
            "18446744073709551621",
            &["hello"],
            refused(),
        ),
        with(
            "8.1.1 said and the stream ends with the head",
            ("content-length", "5"),
            refused(),
        ),
        head(
            "8.6 twice, different",
            &[
                METHOD,
                SCHEME,
                AUTHORITY,
                PATH,
                ("content-length", "0"),
                ("content-length", "5"),
            ],
            refused(),
        ),
    ])
    .await;
}

/// A library may drop these fields from trailers instead of refusing the request; the origin's
/// parser would refuse their names.
#[tokio::test]
async fn trailers_hold_no_pseudo_header_fields() {
    let refused = || Expected::Refused;
    hold(vec![
        trailers(
            "8.1 trailers",
            &[("x-sum", "1")],
            END_STREAM,
            Expected::Passed(is_hello),
        ),
        trailers(
            "8.1 :path among them",
            &[(":path", "/second")],
            END_STREAM,
            Expected::Either(is_hello),
        ),
        trailers(
            "8.1 :authority among them",
            &[(":authority", "b.localhost")],
            END_STREAM,
            Expected::Either(is_hello),
        ),
        trailers(
            "8.1 :status among them",
            &[(":status", "200")],
            END_STREAM,
            Expected::Either(is_hello),
        ),
        trailers(
            "8.1 that do not end the stream",
            &[("x-sum", "1")],
            0,
            refused(),
        ),
        trailers(
            "8.2.1 a name in capitals",
            &[("X-Sum", "1")],
            END_STREAM,
            refused(),
        ),
        trailers(
            "8.2.2 Transfer-Encoding among them",
            &[("transfer-encoding", "chunked")],
            END_STREAM,
            Expected::Either(is_hello),
        ),
        trailers(
            "RFC 9110 6.5.1 Content-Length among them",
            &[("content-length", "7")],
            END_STREAM,
            Expected::Either(is_hello),
        ),
        trailers(
            "8.2.1 CR LF in a value",
            &[("x-sum", "1\r\nx: y")],
            END_STREAM,
            refused(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn frames_out_of_place_end_stream_or_connection() {
    let request = block(&[METHOD, SCHEME, AUTHORITY, PATH]);
    let ends = END_HEADERS | END_STREAM;
    let row = |name, frames: Vec<Vec<u8>>| Row {
        name,
        frames: frames.concat(),
        expected: Expected::Refused,
    };
    hold(vec![
        row(
            "5.1 DATA on an idle stream",
            vec![frame(DATA, END_STREAM, 1, b"hello")],
        ),
        row(
            "5.1.1 an even stream",
            vec![
                frame(HEADERS, ends, 2, &request),
                frame(HEADERS, ends, 1, &request),
            ],
        ),
        row(
            "6.2 HEADERS on stream 0",
            vec![frame(HEADERS, ends, 0, &request)],
        ),
        row("6.1 DATA on stream 0", vec![frame(DATA, 0, 0, b"hello")]),
        row(
            "6.10 CONTINUATION of nothing",
            vec![frame(CONTINUATION, END_HEADERS, 1, &request)],
        ),
        row(
            "6.2 a frame within a field block",
            vec![
                frame(HEADERS, END_STREAM, 1, &request),
                frame(DATA, 0, 3, b"x"),
            ],
        ),
        row(
            "8.4 PUSH_PROMISE from a client",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, &request)],
        ),
        row(
            "4.3 a field block that does not decode",
            vec![frame(HEADERS, ends, 1, b"\xff\xff\xff\xff\xff")],
        ),
        row(
            "RFC 7541 2.3.3 an index of nothing",
            vec![frame(HEADERS, ends, 1, b"\xbf")],
        ),
        row(
            "6.2 padding longer than the frame",
            vec![frame(HEADERS, ends | 8, 1, b"\xff\x82")],
        ),
        row(
            "4.2 a frame larger than allowed",
            vec![frame(HEADERS, ends, 1, &vec![0; 20_000])],
        ),
    ])
    .await;
}
