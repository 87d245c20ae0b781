//! Bodies, trailers, and misplaced frames.

use super::super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PUSH_PROMISE, block, frame,
};
use super::Expected::{Either, Passed, Refused};
use super::{AUTHORITY, METHOD, PATH, SCHEME, fields, hold, is_first, with};
use crate::front::origin::RecordedRequest;
use crate::raw::{row, rows};

const POST: (&str, &str) = (":method", "POST");

fn body(length: &str, data: &[&str]) -> Vec<u8> {
    let fields = [POST, SCHEME, AUTHORITY, PATH, ("content-length", length)];
    let mut frames = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    for data in data {
        frames.extend(frame(DATA, 0, 1, data.as_bytes()));
    }
    frames.extend(frame(DATA, END_STREAM, 1, b""));
    frames
}

fn ended_by(flags: u8, trailers: &str) -> Vec<u8> {
    let first = block(&[POST, SCHEME, AUTHORITY, PATH]);
    let mut frames = frame(HEADERS, END_HEADERS, 1, &first);
    frames.extend(frame(DATA, 0, 1, b"hello"));
    let last = block(&fields(trailers));
    frames.extend(frame(HEADERS, END_HEADERS | flags, 1, &last));
    frames
}

fn is_hello(seen: &RecordedRequest) -> bool {
    is_first(seen) && seen.body == b"hello"
}

#[tokio::test]
async fn content_length_is_the_length_of_the_data() {
    let hello = |length: &str| body(length, &["hello"]);
    hold([
        rows(Passed(is_hello), hello)(&["8.1.1 as said | 5"]),
        rows(Refused, hello)(&[
            "8.1.1 less than said | 6",
            "8.1.1 more than said | 4",
            "8.1.1 zero said | 0",
            "8.6 no number | x",
            "8.6 negative | -5",
            "8.6 plus | +5",
            "8.6 a list | 5, 5",
            "8.6 empty | ",
            "8.6 2^64 + 5 | 18446744073709551621",
        ]),
        rows(Refused, with)(&[
            "8.1.1 said and the stream ends with the head | content-length=5",
            "8.6 twice, different | content-length=0 & content-length=5",
        ]),
        vec![
            row(
                "8.1.1 as said, in two frames",
                body("5", &["he", "llo"]),
                Passed(is_hello),
            ),
            row(
                "8.1.1 more than said, in a frame of its own",
                body("5", &["hello", "GET /smuggled HTTP/1.1\r\n\r\n"]),
                Refused,
            ),
            row("8.1.1 none of what was said", body("5", &[]), Refused),
        ],
    ])
    .await;
}

/// A library may drop these fields from trailers instead of refusing the request; the origin's
/// parser would refuse their names.
#[tokio::test]
async fn trailers_hold_no_pseudo_header_fields() {
    let trailers = |fields: &str| ended_by(END_STREAM, fields);
    hold([
        rows(Passed(is_hello), trailers)(&["8.1 trailers | x-sum=1"]),
        rows(Either(is_hello), trailers)(&[
            "8.1 :path among them | :path=/second",
            "8.1 :authority among them | :authority=b.localhost",
            "8.1 :status among them | :status=200",
            "8.2.2 Transfer-Encoding among them | transfer-encoding=chunked",
            "RFC 9110 6.5.1 Content-Length among them | content-length=7",
        ]),
        rows(Refused, trailers)(&[
            "8.2.1 a name in capitals | X-Sum=1",
            "8.2.1 CR LF in a value | x-sum=1\r\nx: y",
        ]),
        rows(Refused, |fields| ended_by(0, fields))(&["8.1 that do not end the stream | x-sum=1"]),
    ])
    .await;
}

#[tokio::test]
async fn frames_out_of_place_end_stream_or_connection() {
    let request = block(&[METHOD, SCHEME, AUTHORITY, PATH]);
    let ends = END_HEADERS | END_STREAM;
    let [one, even] = [1, 2].map(|stream| frame(HEADERS, ends, stream, &request));
    let unfinished = frame(HEADERS, END_STREAM, 1, &request);
    let data = |flags, stream| frame(DATA, flags, stream, b"hello");
    let row = |(name, frames)| row(name, frames, Refused);
    let rows = [
        ("5.1 DATA on an idle stream", data(END_STREAM, 1)),
        ("5.1.1 an even stream", [even, one].concat()),
        ("6.2 HEADERS on stream 0", frame(HEADERS, ends, 0, &request)),
        ("6.1 DATA on stream 0", data(0, 0)),
        (
            "6.10 CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &request),
        ),
        (
            "6.2 a frame within a field block",
            [unfinished, frame(DATA, 0, 3, b"x")].concat(),
        ),
        (
            "8.4 PUSH_PROMISE from a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &request),
        ),
        (
            "4.3 a field block that does not decode",
            frame(HEADERS, ends, 1, b"\xff\xff\xff\xff\xff"),
        ),
        (
            "RFC 7541 2.3.3 an index of nothing",
            frame(HEADERS, ends, 1, b"\xbf"),
        ),
        (
            "6.2 padding longer than the frame",
            frame(HEADERS, ends | 8, 1, b"\xff\x82"),
        ),
        (
            "4.2 a frame larger than allowed",
            frame(HEADERS, ends, 1, &vec![0; 20_000]),
        ),
    ];
    hold([rows.map(row).into()]).await;
}
