//! Syntax of chunked bodies.

use super::Expected::{Either, NeverWhole, Passed};
use super::{BAD, hold, is_empty, is_hello, post, row, rows};

/// Forwarded trailers must not affect routing, framing or authentication (RFC 9110 section 6.5.1);
/// the origin's parser checks most of that.
fn is_hello_without_harm(seen: &crate::front::origin::RecordedRequest) -> bool {
    is_hello(seen)
        && seen.all("host") == ["a.localhost"]
        && seen.all("x-forwarded-for") == ["127.0.0.1"]
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

#[tokio::test]
async fn chunks_are_well_formed_or_400() {
    let flood = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(100_000));
    let drops = format!("{}0\r\n\r\n", "1;aaaaaaaaaaaaaaaa\r\nx\r\n".repeat(10_000));
    let zeros = format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(100));
    hold([
        rows(Passed(is_hello), chunked)(&[
            "7.1 in two chunks | 2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "7.1 sizes in capitals and with zeros | 005\r\nhello\r\n000\r\n\r\n",
            "7.1.1 an extension | 5;a=b\r\nhello\r\n0;c\r\n\r\n",
            "7.1.1 a quoted extension | 5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
        ]),
        rows(Passed(is_empty), chunked)(&["7.1 none | 0\r\n\r\n"]),
        rows(Either(&[400], is_hello), chunked)(&[
            "7.1.1 white space before an extension | 5 ;a\r\nhello\r\n0\r\n\r\n",
            "7.1 space behind a size | 5 \r\nhello\r\n0\r\n\r\n",
        ]),
        rows(BAD, chunked)(&[
            "7.1.1 a bare LF in an extension | 5;a\nb\r\nhello\r\n0\r\n\r\n",
            "7.1.1 a bare CR in an extension | 5;a\rb\r\nhello\r\n0\r\n\r\n",
            "2.2 a bare LF behind a size | 5\nhello\r\n0\r\n\r\n",
            "2.2 a bare LF behind data | 5\r\nhello\n0\r\n\r\n",
            "2.2 a bare LF behind the last | 5\r\nhello\r\n0\n\r\n",
            "2.2 a bare CR behind a size | 5\rhello\r\n0\r\n\r\n",
            "7.1 no CR LF behind data | 5\r\nhello0\r\n\r\n",
            "7.1 data is longer than its size | 5\r\nhello!\r\n0\r\n\r\n",
            "7.1 data is shorter than its size | 6\r\nhello\r\n0\r\n\r\n",
            "7.1 an empty size | \r\nhello\r\n0\r\n\r\n",
            "7.1 an extension and no size | ;a\r\nhello\r\n0\r\n\r\n",
            "7.1 a negative size | -5\r\nhello\r\n0\r\n\r\n",
            "7.1 a size with plus | +5\r\nhello\r\n0\r\n\r\n",
            "7.1 a size with 0x | 0x5\r\nhello\r\n0\r\n\r\n",
            "7.1 a size with h | 5h\r\nhello\r\n0\r\n\r\n",
            "7.1 an underscore in a size | 0_5\r\nhello\r\n0\r\n\r\n",
            "7.1 space before a size |  5\r\nhello\r\n0\r\n\r\n",
            "7.1 two sizes | 5 5\r\nhello\r\n0\r\n\r\n",
            "7.1 a size of 2^64 + 5 | 10000000000000005\r\nhello\r\n0\r\n\r\n",
            "7.1 NUL in a size | 5\0\r\nhello\r\n0\r\n\r\n",
            "7.1 behind an empty line | \r\n5\r\nhello\r\n0\r\n\r\n",
        ]),
        rows(NeverWhole, chunked)(&[
            "7.1 a size of 2^64 - 1 | ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            "7.1 a size of 2^63 | 8000000000000000\r\nhello\r\n0\r\n\r\n",
        ]),
        vec![
            row("7.1.1 a long extension", chunked(&flood), BAD),
            row(
                "7.1.1 many extensions",
                chunked(&drops),
                Either(&[400], |seen| seen.body.len() == 10_000),
            ),
            row(
                "7.1 a hundred zeros in a size",
                chunked(&zeros),
                Either(&[400], is_hello),
            ),
        ],
    ])
    .await;
}

#[tokio::test]
async fn trailers_affect_neither_framing_nor_routing() {
    let trailer = |line: &str| chunked(&format!("5\r\nhello\r\n0\r\n{line}\r\n\r\n"));
    hold([
        rows(Passed(is_hello_without_harm), trailer)(&["7.1.2 a trailer | X-Sum: 1"]),
        rows(Either(&[400], is_hello_without_harm), trailer)(&[
            "RFC 9110 6.5.1 Content-Length | Content-Length: 5",
            "RFC 9110 6.5.1 Transfer-Encoding | Transfer-Encoding: chunked",
            "RFC 9110 6.5.1 Host | Host: other",
            "RFC 9110 6.5.1 X-Forwarded-For | X-Forwarded-For: 9.9.9.9",
            "RFC 9110 6.5.1 Connection | Connection: close",
        ]),
        rows(BAD, trailer)(&[
            "5.1 a trailer without colon | smuggled",
            "5.1 a request in place of a trailer | GET /smuggled HTTP/1.1",
            "5.1 space before the colon | X-Sum : 1",
            "5.2 a folded trailer | X-Sum: 1\r\n 2",
            "5.2 the first one folded |  X-Sum: 1",
            "5.5 NUL in a trailer | X-Sum: \0",
            "5.1 a trailer without name | : 1",
        ]),
        rows(BAD, chunked)(&[
            "2.2 a bare LF behind a trailer | 5\r\nhello\r\n0\r\nX-Sum: 1\n\r\n",
            "2.2 a bare LF at the end | 5\r\nhello\r\n0\r\n\n",
        ]),
    ])
    .await;
}
