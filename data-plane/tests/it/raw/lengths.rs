//! Content-Length and Transfer-Encoding.

use super::Expected::{Either, Passed, Refused};
use super::{BAD, get, hold, is_empty, is_hello, post, row, rows};

#[tokio::test]
async fn content_length_is_one_number_or_400() {
    let with = |value: &str| post(&format!("Content-Length:{value}\r\n"), "hello");
    let hello = |fields: &str| post(fields, "hello");
    let nothing = |fields: &str| post(fields, "");
    hold([
        rows(Passed(is_hello), with)(&[
            "6.2 a number |  5",
            "5 no space, tab and trailing space | \t5 \t",
        ]),
        rows(Either(&[400], is_hello), with)(&[
            "6.2 leading zeros |  005",
            "6.3 twice the same |  5\r\nContent-Length: 5",
            "RFC 9110 7.6.1 named by Connection |  5\r\nConnection: content-length",
            "6.3 a list of the same |  5, 5",
        ]),
        rows(BAD, with)(&[
            "6.3 twice, different |  5\r\nContent-Length: 6",
            "6.3 twice, one empty |  5\r\nContent-Length: ",
            "6.3 twice, zero first |  0\r\nContent-Length: 5",
            "6.3 a list of different |  5, 6",
            "RFC 9110 8.6 negative |  -5",
            "RFC 9110 8.6 plus |  +5",
            "RFC 9110 8.6 hexadecimal |  0x5",
            "RFC 9110 8.6 a fraction |  5.0",
            "RFC 9110 8.6 an exponent |  5e0",
            "RFC 9110 8.6 an underscore |  0_5",
            "RFC 9110 8.6 space within |  5 5",
            "RFC 9110 8.6 quoted |  \"5\"",
            "RFC 9110 8.6 a semicolon |  5;5",
            "RFC 9110 8.6 a letter |  5a",
            "RFC 9110 8.6 empty | ",
            "RFC 9110 8.6 white space alone |   ",
            "RFC 9110 8.6 a comma alone |  ,",
            "RFC 9110 8.6 2^64 |  18446744073709551616",
            "RFC 9110 8.6 2^64 + 5 |  18446744073709551621",
            "5.5 vertical tab before it |  \u{b}5",
            "5.5 form feed behind it |  5\u{c}",
            "5.5 NUL behind it |  5\0",
            "5.5 another alphabet's digit |  \u{ff15}",
        ]),
        rows(Passed(is_hello), hello)(&["6.2 the name in capitals | CONTENT-LENGTH: 5\r\n"]),
        rows(BAD, hello)(&["5.1 space before its colon | Content-Length : 5\r\n"]),
        rows(Passed(is_empty), nothing)(&["6.2 zero | Content-Length: 0\r\n"]),
        rows(BAD, nothing)(&["RFC 9110 8.6 minus zero | Content-Length: -0\r\n"]),
        rows(Either(&[400], is_empty), nothing)(&[
            "5.1 an underscore for its hyphen | Content_Length: 5\r\n",
        ]),
        vec![
            row(
                "RFC 9110 8.6 a hundred digits",
                with(&format!(" {}", "9".repeat(100))),
                BAD,
            ),
            row(
                "RFC 9110 9.3.1 a GET with a body",
                format!("{}hello", get("Content-Length: 5\r\n")),
                Either(&[400], is_hello),
            ),
        ],
    ])
    .await;
}

#[tokio::test]
async fn transfer_encoding_is_chunked_alone_or_400() {
    const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
    let with = |value: &str| post(&format!("Transfer-Encoding:{value}\r\n"), CHUNKS);
    let chunks = |fields: &str| post(fields, CHUNKS);
    let old = |fields: &str| chunks(fields).replace("HTTP/1.1", "HTTP/1.0");
    hold([
        rows(Passed(is_hello), with)(&[
            "7.1 chunked |  chunked",
            "7 names are case-insensitive |  CHUNKED",
            "5 white space around it | \tchunked \t",
        ]),
        rows(BAD, chunks)(&[
            "6.3 beside Content-Length | Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "6.3 before Content-Length | Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "6.3 beside Content-Length 0 | Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "5.1 space before its colon | Transfer-Encoding : chunked\r\n",
            "5.1 tab before its colon | Transfer-Encoding\t: chunked\r\n",
            "5.2 space before its name | X: y\r\n Transfer-Encoding: chunked\r\n",
            "2.2 behind a bare CR | X: y\rTransfer-Encoding: chunked\r\n",
            "2.2 behind a bare LF | X: y\nTransfer-Encoding: chunked\r\n",
        ]),
        rows(Refused(&[400, 501]), with)(&[
            "6.1 an unknown coding |  x-none",
            "6.1 identity |  identity",
            "6.1 gzip |  gzip",
            "6.3 gzip, chunked |  gzip, chunked",
            "6.1 an unknown one, then chunked in a field |  x\r\nTransfer-Encoding: chunked",
            "7 with a parameter |  chunked;a=b",
            "6.1 quoted |  \"chunked\"",
            "6.1 a longer word |  xchunked",
            "6.1 a shorter word |  chunke",
            "6.1 a letter that looks alike |  chun\u{212a}ed",
        ]),
        rows(BAD, with)(&[
            "6.3 chunked not last |  chunked, gzip",
            "6.1 chunked twice in a list |  chunked, chunked",
            "6.1 empty | ",
            "6.1 chunked in two fields |  chunked\r\nTransfer-Encoding: chunked",
            "6.1 chunked, then identity in a field |  chunked\r\nTransfer-Encoding: identity",
            "RFC 9110 5.6.1 an empty element |  chunked,",
            "RFC 9110 5.6.1 an empty element first |  ,chunked",
            "5.5 vertical tab before it |  \u{b}chunked",
            "5.5 vertical tab behind it |  chunked\u{b}",
            "5.5 form feed before it | \u{c}chunked",
            "5.5 NUL behind it |  chunked\0",
            "5.2 folded | \r\n chunked",
        ]),
        rows(BAD, old)(&[
            "6.1 in HTTP/1.0 | Transfer-Encoding: chunked\r\n",
            "6.1 beside keep-alive | Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
        ]),
        rows(Either(&[400], is_hello), with)(&[
            "RFC 9110 7.6.1 named by Connection |  chunked\r\nConnection: transfer-encoding",
        ]),
        vec![
            row(
                "6.3 identity beside Content-Length",
                post(
                    "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
                    "hello",
                ),
                BAD,
            ),
            row(
                "6.1 on a GET",
                chunks("Transfer-Encoding: chunked\r\n").replace("POST", "GET"),
                Either(&[400], is_hello),
            ),
        ],
    ])
    .await;
}
