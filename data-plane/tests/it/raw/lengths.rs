//! Content-Length and Transfer-Encoding.

use super::{BAD, Expected, get, hold, is_empty, is_hello, post, row};

#[tokio::test]
async fn content_length_is_one_number_or_400() {
    let with = |value: &str, body: &str| post(&format!("Content-Length:{value}\r\n"), body);
    let twice = |a: &str, b: &str| {
        post(
            &format!("Content-Length: {a}\r\nContent-Length: {b}\r\n"),
            "hello",
        )
    };
    hold(vec![
        row(
            "6.2 a number",
            with(" 5", "hello"),
            Expected::Passed(is_hello),
        ),
        row("6.2 zero", with(" 0", ""), Expected::Passed(is_empty)),
        row(
            "6.2 leading zeros",
            with(" 005", "hello"),
            Expected::Either(&[400], is_hello),
        ),
        row(
            "5 no space, tab and trailing space",
            with("\t5 \t", "hello"),
            Expected::Passed(is_hello),
        ),
        row(
            "6.3 twice the same",
            twice("5", "5"),
            Expected::Either(&[400], is_hello),
        ),
        row("6.3 twice, different", twice("5", "6"), BAD),
        row("6.3 twice, one empty", twice("5", ""), BAD),
        row("6.3 twice, zero first", twice("0", "5"), BAD),
        row(
            "6.3 a list of the same",
            with(" 5, 5", "hello"),
            Expected::Either(&[400], is_hello),
        ),
        row("6.3 a list of different", with(" 5, 6", "hello"), BAD),
        row("RFC 9110 8.6 negative", with(" -5", "hello"), BAD),
        row("RFC 9110 8.6 minus zero", with(" -0", ""), BAD),
        row("RFC 9110 8.6 plus", with(" +5", "hello"), BAD),
        row("RFC 9110 8.6 hexadecimal", with(" 0x5", "hello"), BAD),
        row("RFC 9110 8.6 a fraction", with(" 5.0", "hello"), BAD),
        row("RFC 9110 8.6 an exponent", with(" 5e0", "hello"), BAD),
        row("RFC 9110 8.6 an underscore", with(" 0_5", "hello"), BAD),
        row("RFC 9110 8.6 space within", with(" 5 5", "hello"), BAD),
        row("RFC 9110 8.6 quoted", with(" \"5\"", "hello"), BAD),
        row("RFC 9110 8.6 a semicolon", with(" 5;5", "hello"), BAD),
        row("RFC 9110 8.6 a letter", with(" 5a", "hello"), BAD),
        row("RFC 9110 8.6 empty", with("", "hello"), BAD),
        row("RFC 9110 8.6 white space alone", with("  ", "hello"), BAD),
        row("RFC 9110 8.6 a comma alone", with(" ,", "hello"), BAD),
        row(
            "RFC 9110 8.6 2^64",
            with(" 18446744073709551616", "hello"),
            BAD,
        ),
        row(
            "RFC 9110 8.6 2^64 + 5",
            with(" 18446744073709551621", "hello"),
            BAD,
        ),
        row(
            "RFC 9110 8.6 a hundred digits",
            with(&format!(" {}", "9".repeat(100)), "hello"),
            BAD,
        ),
        row("5.5 vertical tab before it", with(" \u{b}5", "hello"), BAD),
        row("5.5 form feed behind it", with(" 5\u{c}", "hello"), BAD),
        row("5.5 NUL behind it", with(" 5\0", "hello"), BAD),
        row(
            "5.5 another alphabet's digit",
            with(" \u{ff15}", "hello"),
            BAD,
        ),
        row(
            "6.2 the name in capitals",
            post("CONTENT-LENGTH: 5\r\n", "hello"),
            Expected::Passed(is_hello),
        ),
        row(
            "5.1 space before its colon",
            post("Content-Length : 5\r\n", "hello"),
            BAD,
        ),
        row(
            "5.1 an underscore for its hyphen",
            post("Content_Length: 5\r\n", ""),
            Expected::Either(&[400], is_empty),
        ),
        row(
            "RFC 9110 7.6.1 named by Connection",
            post(
                "Content-Length: 5\r\nConnection: content-length\r\n",
                "hello",
            ),
            Expected::Either(&[400], is_hello),
        ),
        row(
            "RFC 9110 9.3.1 a GET with a body",
            format!("{}hello", get("Content-Length: 5\r\n")),
            Expected::Either(&[400], is_hello),
        ),
    ])
    .await;
}

#[tokio::test]
async fn transfer_encoding_is_chunked_alone_or_400() {
    const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
    let with = |value: &str| post(&format!("Transfer-Encoding:{value}\r\n"), CHUNKS);
    hold(vec![
        row("7.1 chunked", with(" chunked"), Expected::Passed(is_hello)),
        row("7 names are case-insensitive", with(" CHUNKED"), Expected::Passed(is_hello)),
        row("5 white space around it", with("\tchunked \t"), Expected::Passed(is_hello)),
        row("6.3 beside Content-Length", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", CHUNKS), BAD),
        row("6.3 before Content-Length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", CHUNKS), BAD),
        row("6.3 beside Content-Length 0", post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", CHUNKS), BAD),
        row("6.3 identity beside Content-Length", post("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "hello"), BAD),
        row("6.1 an unknown coding", with(" x-none"), Expected::Refused(&[400, 501])),
        row("6.1 identity", with(" identity"), Expected::Refused(&[400, 501])),
        row("6.1 gzip", with(" gzip"), Expected::Refused(&[400, 501])),
        row("6.3 gzip, chunked", with(" gzip, chunked"), Expected::Refused(&[400, 501])),
        row("6.3 chunked not last", with(" chunked, gzip"), BAD),
        row("6.1 chunked twice in a list", with(" chunked, chunked"), BAD),
        row("6.1 chunked in two fields", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKS), BAD),
        row("6.1 chunked, then identity in a field", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKS), BAD),
        row("6.1 an unknown one, then chunked in a field", post("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", CHUNKS), Expected::Refused(&[400, 501])),
        row("RFC 9110 5.6.1 an empty element", with(" chunked,"), Expected::Refused(&[400])),
        row("RFC 9110 5.6.1 an empty element first", with(" ,chunked"), Expected::Refused(&[400])),
        row("6.1 empty", with(""), BAD),
        row("7 with a parameter", with(" chunked;a=b"), Expected::Refused(&[400, 501])),
        row("6.1 quoted", with(" \"chunked\""), Expected::Refused(&[400, 501])),
        row("6.1 a longer word", with(" xchunked"), Expected::Refused(&[400, 501])),
        row("6.1 a shorter word", with(" chunke"), Expected::Refused(&[400, 501])),
        row("6.1 a letter that looks alike", with(" chun\u{212a}ed"), Expected::Refused(&[400, 501])),
        row("5.5 vertical tab before it", with(" \u{b}chunked"), BAD),
        row("5.5 vertical tab behind it", with(" chunked\u{b}"), BAD),
        row("5.5 form feed before it", with("\u{c}chunked"), BAD),
        row("5.5 NUL behind it", with(" chunked\0"), BAD),
        row("5.2 folded", with("\r\n chunked"), BAD),
        row("5.1 space before its colon", post("Transfer-Encoding : chunked\r\n", CHUNKS), BAD),
        row("5.1 tab before its colon", post("Transfer-Encoding\t: chunked\r\n", CHUNKS), BAD),
        row("5.2 space before its name", post("X: y\r\n Transfer-Encoding: chunked\r\n", CHUNKS), BAD),
        row("2.2 behind a bare CR", post("X: y\rTransfer-Encoding: chunked\r\n", CHUNKS), BAD),
        row("2.2 behind a bare LF", post("X: y\nTransfer-Encoding: chunked\r\n", CHUNKS), BAD),
        row(
            "6.1 in HTTP/1.0",
            format!("POST /first HTTP/1.0\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"),
            BAD,
        ),
        row(
            "6.1 in HTTP/1.0 with keep-alive",
            format!("POST /first HTTP/1.0\r\nHost: a.localhost\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"),
            BAD,
        ),
        row("RFC 9110 7.6.1 named by Connection", post("Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", CHUNKS), Expected::Either(&[400], is_hello)),
        row("6.1 on a GET", format!("{}{CHUNKS}", get("Transfer-Encoding: chunked\r\n")), Expected::Either(&[400], is_hello)),
    ])
    .await;
}
