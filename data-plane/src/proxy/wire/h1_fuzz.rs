//! Fuzzing of responses: heads and the bodies that they announce.

use bytes::BytesMut;
use http::StatusCode;

use super::h1_decode::Decoded;
use super::h1_head;
use crate::fuzz::Target;

/// One decoded response.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    status: StatusCode,
    data: Vec<u8>,
    trailers: usize,
}

/// The responses in some bytes, read in pieces of this size, and whether the last is complete.
fn responses(bytes: &[u8], piece: usize) -> (Vec<Read>, bool) {
    let mut pieces = bytes.chunks(piece);
    let (mut all, mut buffer) = (Vec::new(), BytesMut::new());
    loop {
        let head = match h1_head::parse(&mut buffer, false, 100) {
            Ok(Some(head)) => head,
            Ok(None) => match pieces.next() {
                Some(more) => {
                    buffer.extend_from_slice(more);
                    continue;
                }
                None => return (all, buffer.is_empty()),
            },
            Err(_) => return (all, false),
        };
        let (head, mut body) = head.response.into_parts();
        let mut read = Read {
            status: head.status,
            data: Vec::new(),
            trailers: 0,
        };
        loop {
            let next = match body.next(&mut buffer) {
                Ok(Decoded::NeedMore) => match pieces.next() {
                    Some(more) => {
                        buffer.extend_from_slice(more);
                        continue;
                    }
                    None => body.end().map(|()| Decoded::End),
                },
                next => next,
            };
            match next {
                Ok(Decoded::Frame(frame)) => match frame.into_data() {
                    Ok(data) => read.data.extend_from_slice(&data),
                    Err(frame) => read.trailers = frame.into_trailers().expect("trailers").len(),
                },
                Ok(Decoded::NeedMore | Decoded::End) => break,
                Err(_) => {
                    all.push(read);
                    return (all, false);
                }
            }
        }
        all.push(read);
    }
}

#[test]
fn fuzz_responses() {
    let corpus = [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest",
    ];
    let target = Target {
        corpus: corpus.map(|text| text.as_bytes().to_vec()).to_vec(),
        words: &[
            b"\r\n",
            b"\r\n\r\n",
            b"\n\n",
            b"\r\n ",
            b"content-length: 5\r\n",
            b"content-length: 5, 5\r\n",
            b"transfer-encoding: chunked\r\n",
            b"transfer-encoding: gzip, chunked\r\n",
            b"connection: close\r\n",
            b"0\r\n\r\n",
            b"5\r\nhello\r\n",
            b"ffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\n",
        ],
    };
    target.hold(|input| {
        let whole = responses(input, usize::MAX);
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(responses(input, piece), whole, "in pieces of {piece}");
        }
        let data: usize = whole.0.iter().map(|read| read.data.len()).sum();
        assert!(data <= input.len());
    });
}
