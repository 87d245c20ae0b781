//! Request lines: methods, targets, versions.

use super::{BAD, Expected, HOST, Row, hold, is_first, row};

fn line(name: &'static str, line: &str, expected: Expected) -> Row {
    row(name, format!("{line}\r\nHost: {HOST}\r\n\r\n"), expected)
}

#[tokio::test]
async fn request_lines_are_of_three_parts_or_400() {
    hold(vec![
        line(
            "3 a request",
            "GET /first HTTP/1.1",
            Expected::Passed(is_first),
        ),
        line(
            "3 two spaces before the target",
            "GET  /first HTTP/1.1",
            BAD,
        ),
        line(
            "3 two spaces before the version",
            "GET /first  HTTP/1.1",
            BAD,
        ),
        line("3 a tab for a space", "GET\t/first HTTP/1.1", BAD),
        line("3 space in the target", "GET /fi rst HTTP/1.1", BAD),
        line("3 space in front", " GET /first HTTP/1.1", BAD),
        line("3 space behind", "GET /first HTTP/1.1 ", BAD),
        line("3 no version", "GET /first", BAD),
        line("3 no target", "GET HTTP/1.1", BAD),
        line("3 a method alone", "GET", BAD),
        line(
            "3 a request behind a request",
            "GET /first HTTP/1.1 GET /smuggled HTTP/1.1",
            BAD,
        ),
        row(
            "2.2 a bare LF ends it",
            format!("GET /first HTTP/1.1\nHost: {HOST}\r\n\r\n"),
            BAD,
        ),
        row(
            "2.2 bare LFs end all",
            format!("GET /first HTTP/1.1\nHost: {HOST}\n\n"),
            BAD,
        ),
        row(
            "2.2 a bare CR ends it",
            format!("GET /first HTTP/1.1\rHost: {HOST}\r\n\r\n"),
            BAD,
        ),
        row(
            "2.2 CR CR LF ends it",
            format!("GET /first HTTP/1.1\r\r\nHost: {HOST}\r\n\r\n"),
            BAD,
        ),
        row(
            "2.2 an empty line before",
            format!("\r\nGET /first HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            Expected::Either(&[400], is_first),
        ),
        row(
            "2.2 a bare LF before",
            format!("\nGET /first HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            Expected::Either(&[400], is_first),
        ),
        row(
            "2.2 white space before",
            format!(" \r\nGET /first HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            BAD,
        ),
        row(
            "2.2 NUL before",
            format!("\0GET /first HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            BAD,
        ),
        row(
            "2.2 a byte order mark before",
            format!("\u{feff}GET /first HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            BAD,
        ),
        row(
            "RFC 8446 5.1 a TLS handshake",
            b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03\r\n\r\n",
            Expected::Refused(&[400]),
        ),
        row("2.2 random bytes", b"\x80\x01\xff\xfe\x00\x7f\r\n\r\n", BAD),
    ])
    .await;
}

#[tokio::test]
async fn methods_are_tokens() {
    hold(vec![
        line(
            "RFC 9110 9.1 an unknown method",
            "BREW /first HTTP/1.1",
            Expected::Passed(|seen| is_first(seen) && seen.method == "BREW"),
        ),
        line(
            "RFC 9110 9.1 in small letters",
            "get /first HTTP/1.1",
            Expected::Either(&[400, 501], |seen| is_first(seen) && seen.method == "get"),
        ),
        line(
            "RFC 9110 9.1 of signs",
            "!#$%&'*+-.^_`|~ /first HTTP/1.1",
            Expected::Either(&[400, 501], is_first),
        ),
        line(
            "RFC 9110 9.3.6 CONNECT to an authority",
            "CONNECT a.localhost:80 HTTP/1.1",
            Expected::Answered(405),
        ),
        line(
            "RFC 9110 9.3.6 CONNECT to a path",
            "CONNECT /first HTTP/1.1",
            Expected::Answered(405),
        ),
        line(
            "RFC 9110 9.3.7 OPTIONS of all",
            "OPTIONS * HTTP/1.1",
            Expected::Either(&[200, 204, 400, 404, 405], |seen| seen.target == "*"),
        ),
        line(
            "RFC 9110 9.3.8 TRACE",
            "TRACE /first HTTP/1.1",
            Expected::Answered(405),
        ),
        line("RFC 9110 5.6.2 a bracket", "GE(T /first HTTP/1.1", BAD),
        line("RFC 9110 5.6.2 a colon", "GET: /first HTTP/1.1", BAD),
        line("RFC 9110 5.6.2 a slash", "G/T /first HTTP/1.1", BAD),
        line("RFC 9110 5.6.2 a quote", "\"GET\" /first HTTP/1.1", BAD),
        line("RFC 9110 5.6.2 NUL", "GE\0T /first HTTP/1.1", BAD),
        line(
            "RFC 9110 5.6.2 another alphabet",
            "G\u{c9}T /first HTTP/1.1",
            BAD,
        ),
        line(
            "RFC 9110 9.1 very long",
            &format!("{} /first HTTP/1.1", "A".repeat(70_000)),
            Expected::Refused(&[400, 414, 431, 501]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn versions_are_1_0_or_1_1() {
    let head = |line: &str| format!("{line}\r\nHost: {HOST}\r\n\r\n");
    hold(vec![
        line(
            "2.5 HTTP/1.1",
            "GET /first HTTP/1.1",
            Expected::Passed(is_first),
        ),
        row(
            "2.5 HTTP/1.2",
            head("GET /first HTTP/1.2"),
            Expected::Passed(is_first),
        ),
        row(
            "2.5 HTTP/1.9",
            head("GET /first HTTP/1.9"),
            Expected::Passed(is_first),
        ),
        row(
            "2.3 HTTP/2.0",
            head("GET /first HTTP/2.0"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTP/2",
            head("GET /first HTTP/2"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTP/3.0",
            head("GET /first HTTP/3.0"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTP/0.9",
            head("GET /first HTTP/0.9"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTP/1",
            head("GET /first HTTP/1"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTP/1.",
            head("GET /first HTTP/1."),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTP/1.10",
            head("GET /first HTTP/1.10"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTP/01.1",
            head("GET /first HTTP/01.1"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTP/1,1",
            head("GET /first HTTP/1,1"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 in small letters",
            head("GET /first http/1.1"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 HTTPS",
            head("GET /first HTTPS/1.1"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "2.3 another protocol",
            head("GET /first ICAP/1.0"),
            Expected::Refused(&[400, 505]),
        ),
        row(
            "RFC 1945 4.1 HTTP/0.9, a line alone",
            "GET /first\r\n",
            Expected::NeverWhole,
        ),
        row(
            "RFC 9113 3.4 half a preface",
            "PRI * HTTP/2.0\r\n\r\n",
            Expected::RefusedAtItsEnd(&[400, 405, 505]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn targets_hold_no_control_bytes() {
    let to = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let raw = |target: &[u8]| {
        let end = format!(" HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        [b"GET ", target, end.as_bytes()].concat()
    };
    hold(vec![
        row(
            "3.2.1 with a query",
            to("/first?a=b&c"),
            Expected::Passed(|seen| seen.target == "/first?a=b&c"),
        ),
        row(
            "3.2.1 escapes stay",
            to("/first%2f%00%zz"),
            Expected::Either(&[400], |seen| seen.target == "/first%2f%00%zz"),
        ),
        row(
            "3.2.1 dots stay",
            to("/a/../b/./c//d"),
            Expected::Either(&[400], |seen| seen.target == "/a/../b/./c//d"),
        ),
        row(
            "3.2.1 a backslash",
            to("/first\\x"),
            Expected::Either(&[400], |seen| seen.target == "/first\\x"),
        ),
        row(
            "3.2.1 signs",
            to("/first|x^y`z{}\"<>"),
            Expected::Passed(|seen| seen.target == "/first|x^y%60z{}\"%3C%3E"),
        ),
        row(
            "3.2.1 JSON in a query",
            to("/first?q={\"a\":1}&b=<`>"),
            Expected::Passed(|seen| seen.target == "/first?q={%22a%22:1}&b=%3C`%3E"),
        ),
        row("3.2 a fragment", to("/first#x"), BAD),
        row("3.2 a fragment behind a query", to("/first?a#x"), BAD),
        row("3.2.1 no slash", to("first"), Expected::Answered(400)),
        row("3.2.1 a query alone", to("?first"), Expected::Answered(400)),
        row("3.2.4 an asterisk on GET", to("*"), Expected::Answered(400)),
        row(
            "3.2.3 an authority on GET",
            to("a.localhost:80"),
            Expected::Answered(400),
        ),
        row("3.2 NUL", raw(b"/fir\0st"), BAD),
        row("3.2 DEL", raw(b"/fir\x7fst"), BAD),
        row("3.2 a bare CR", raw(b"/fir\rst"), BAD),
        row("3.2 a bare LF", raw(b"/fir\nst"), BAD),
        row("3.2 a vertical tab", raw(b"/fir\x0bst"), BAD),
        row("3.2 a form feed", raw(b"/fir\x0cst"), BAD),
        row("3.2 an escape", raw(b"/fir\x1bst"), BAD),
        row(
            "3.2 UTF-8",
            to("/f\u{ef}rst"),
            Expected::Passed(|seen| seen.target == "/f%C3%AFrst"),
        ),
        row(
            "3.2 Latin-1",
            raw(b"/f\xefrst"),
            Expected::Passed(|seen| seen.target == "/f%EFrst"),
        ),
        row(
            "3.2 Latin-1 in a query",
            raw(b"/first?\xef\xff"),
            Expected::Passed(|seen| seen.target == "/first?%EF%FF"),
        ),
        row(
            "RFC 9110 4.1 very long",
            to(&format!("/{}", "a".repeat(100_000))),
            Expected::Refused(&[400, 414, 431]),
        ),
    ])
    .await;
}
