//! Request lines: methods, targets, versions.

use super::Expected::{Answered, Either, NeverWhole, Passed, Refused, RefusedAtItsEnd};
use super::{BAD, HOST, hold, is_first, row, rows};

fn before_host(start: &str) -> String {
    format!("{start}Host: {HOST}\r\n\r\n")
}

fn line(line: &str) -> String {
    before_host(&format!("{line}\r\n"))
}

#[tokio::test]
async fn request_lines_are_of_three_parts_or_400() {
    hold([
        rows(Passed(is_first), line)(&["3 a request | GET /first HTTP/1.1"]),
        rows(BAD, line)(&[
            "3 two spaces before the target | GET  /first HTTP/1.1",
            "3 two spaces before the version | GET /first  HTTP/1.1",
            "3 a tab for a space | GET\t/first HTTP/1.1",
            "3 space in the target | GET /fi rst HTTP/1.1",
            "3 space in front |  GET /first HTTP/1.1",
            "3 space behind | GET /first HTTP/1.1 ",
            "3 no version | GET /first",
            "3 no target | GET HTTP/1.1",
            "3 a method alone | GET",
            "3 a request behind a request | GET /first HTTP/1.1 GET /smuggled HTTP/1.1",
        ]),
        rows(BAD, before_host)(&[
            "2.2 a bare LF ends it | GET /first HTTP/1.1\n",
            "2.2 a bare CR ends it | GET /first HTTP/1.1\r",
            "2.2 CR CR LF ends it | GET /first HTTP/1.1\r\r\n",
            "2.2 white space before |  \r\nGET /first HTTP/1.1\r\n",
            "2.2 NUL before | \0GET /first HTTP/1.1\r\n",
            "2.2 a byte order mark before | \u{feff}GET /first HTTP/1.1\r\n",
        ]),
        rows(Either(&[400], is_first), before_host)(&[
            "2.2 an empty line before | \r\nGET /first HTTP/1.1\r\n",
            "2.2 a bare LF before | \nGET /first HTTP/1.1\r\n",
        ]),
        vec![
            row(
                "2.2 bare LFs end all",
                format!("GET /first HTTP/1.1\nHost: {HOST}\n\n"),
                BAD,
            ),
            row(
                "RFC 8446 5.1 a TLS handshake",
                b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03\r\n\r\n",
                Refused(&[400]),
            ),
            row("2.2 random bytes", b"\x80\x01\xff\xfe\x00\x7f\r\n\r\n", BAD),
        ],
    ])
    .await;
}

#[tokio::test]
async fn methods_are_tokens() {
    hold([
        rows(Passed(|seen| is_first(seen) && seen.method == "BREW"), line)(&[
            "RFC 9110 9.1 an unknown method | BREW /first HTTP/1.1",
        ]),
        rows(
            Either(&[400, 501], |seen| is_first(seen) && seen.method == "get"),
            line,
        )(&["RFC 9110 9.1 in small letters | get /first HTTP/1.1"]),
        rows(Either(&[400, 501], is_first), line)(&[
            "RFC 9110 9.1 of signs | !#$%&'*+-.^_`|~ /first HTTP/1.1",
        ]),
        rows(Answered(405), line)(&[
            "RFC 9110 9.3.6 CONNECT to an authority | CONNECT a.localhost:80 HTTP/1.1",
            "RFC 9110 9.3.6 CONNECT to a path | CONNECT /first HTTP/1.1",
            "RFC 9110 9.3.8 TRACE | TRACE /first HTTP/1.1",
        ]),
        rows(
            Either(&[200, 204, 400, 404, 405], |seen| seen.target == "*"),
            line,
        )(&["RFC 9110 9.3.7 OPTIONS of all | OPTIONS * HTTP/1.1"]),
        rows(BAD, line)(&[
            "RFC 9110 5.6.2 a bracket | GE(T /first HTTP/1.1",
            "RFC 9110 5.6.2 a colon | GET: /first HTTP/1.1",
            "RFC 9110 5.6.2 a slash | G/T /first HTTP/1.1",
            "RFC 9110 5.6.2 a quote | \"GET\" /first HTTP/1.1",
            "RFC 9110 5.6.2 NUL | GE\0T /first HTTP/1.1",
            "RFC 9110 5.6.2 another alphabet | G\u{c9}T /first HTTP/1.1",
        ]),
        vec![row(
            "RFC 9110 9.1 very long",
            line(&format!("{} /first HTTP/1.1", "A".repeat(70_000))),
            Refused(&[400, 414, 431, 501]),
        )],
    ])
    .await;
}

#[tokio::test]
async fn versions_are_1_0_or_1_1() {
    hold([
        rows(Passed(is_first), line)(&["2.5 HTTP/1.1 | GET /first HTTP/1.1"]),
        rows(Either(&[400, 505], is_first), line)(&[
            "2.5 HTTP/1.2 | GET /first HTTP/1.2",
            "2.5 HTTP/1.9 | GET /first HTTP/1.9",
        ]),
        rows(Refused(&[400, 505]), line)(&[
            "2.3 HTTP/2.0 | GET /first HTTP/2.0",
            "2.3 HTTP/2 | GET /first HTTP/2",
            "2.3 HTTP/3.0 | GET /first HTTP/3.0",
            "2.3 HTTP/0.9 | GET /first HTTP/0.9",
            "2.3 HTTP/1 | GET /first HTTP/1",
            "2.3 HTTP/1. | GET /first HTTP/1.",
            "2.3 HTTP/1.10 | GET /first HTTP/1.10",
            "2.3 HTTP/01.1 | GET /first HTTP/01.1",
            "2.3 HTTP/1,1 | GET /first HTTP/1,1",
            "2.3 in small letters | GET /first http/1.1",
            "2.3 HTTPS | GET /first HTTPS/1.1",
            "2.3 another protocol | GET /first ICAP/1.0",
        ]),
        vec![
            row(
                "RFC 1945 4.1 HTTP/0.9, a line alone",
                "GET /first\r\n",
                NeverWhole,
            ),
            row(
                "RFC 9113 3.4 half a preface",
                "PRI * HTTP/2.0\r\n\r\n",
                RefusedAtItsEnd(&[400, 405, 505]),
            ),
        ],
    ])
    .await;
}

#[tokio::test]
async fn targets_hold_no_control_bytes() {
    let to = |target: &str| line(&format!("GET {target} HTTP/1.1"));
    hold([
        rows(Passed(|seen| seen.target == "/first?a=b&c"), to)(&[
            "3.2.1 with a query | /first?a=b&c",
        ]),
        rows(Either(&[400], |seen| seen.target == "/first%2f%00%zz"), to)(&[
            "3.2.1 escapes stay | /first%2f%00%zz",
        ]),
        rows(Either(&[400], |seen| seen.target == "/a/../b/./c//d"), to)(&[
            "3.2.1 dots stay | /a/../b/./c//d",
        ]),
        rows(Either(&[400], |seen| seen.target == "/first\\x"), to)(&[
            "3.2.1 a backslash | /first\\x",
        ]),
        rows(
            Either(&[400], |seen| seen.target.starts_with("/first|")),
            to,
        )(&["3.2.1 signs | /first|x^y`z{}\"<>"]),
        rows(Either(&[400], is_first), to)(&["3.2 a fragment | /first#x"]),
        rows(Answered(400), to)(&[
            "3.2.1 no slash | first",
            "3.2.1 a query alone | ?first",
            "3.2.4 an asterisk on GET | *",
            "3.2.3 an authority on GET | a.localhost:80",
        ]),
        rows(BAD, to)(&[
            "3.2 NUL | /fir\0st",
            "3.2 DEL | /fir\x7fst",
            "3.2 a bare CR | /fir\rst",
            "3.2 a bare LF | /fir\nst",
            "3.2 a vertical tab | /fir\x0bst",
            "3.2 a form feed | /fir\x0cst",
            "3.2 an escape | /fir\x1bst",
        ]),
        rows(Either(&[400], |seen| seen.target == "/f\u{ef}rst"), to)(&["3.2 UTF-8 | /f\u{ef}rst"]),
        vec![
            row(
                "3.2 Latin-1",
                b"GET /f\xefrst HTTP/1.1\r\nHost: a.localhost\r\n\r\n",
                BAD,
            ),
            row(
                "RFC 9110 4.1 very long",
                to(&format!("/{}", "a".repeat(100_000))),
                Refused(&[400, 414, 431]),
            ),
        ],
    ])
    .await;
}
