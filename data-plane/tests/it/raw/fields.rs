//! Header fields: names, values, line ends, hop-by-hop fields.

use super::{BAD, Expected, Row, get, hold, is_first, row};
use crate::front::origin::RecordedRequest;

fn with(name: &'static str, line: &str, expected: Expected) -> Row {
    row(name, get(&format!("{line}\r\n")), expected)
}

fn raw(name: &'static str, line: &[u8], expected: Expected) -> Row {
    let head = b"GET /first HTTP/1.1\r\nHost: a.localhost\r\n";
    row(name, [head, line, b"\r\n\r\n"].concat(), expected)
}

#[tokio::test]
async fn field_lines_are_well_formed_or_400() {
    hold(vec![
        with(
            "5 a field",
            "X-A: b",
            Expected::Passed(|seen| seen.all("x-a") == ["b"]),
        ),
        with(
            "5.1 no space behind the colon",
            "X-A:b",
            Expected::Passed(|seen| seen.all("x-a") == ["b"]),
        ),
        with(
            "5.1 white space around the value",
            "X-A: \t b \t",
            Expected::Passed(|seen| seen.all("x-a") == ["b"]),
        ),
        with(
            "5.5 an empty value",
            "X-A:",
            Expected::Passed(|seen| seen.all("x-a") == [""]),
        ),
        with(
            "RFC 9110 5.3 twice, in order",
            "X-A: 1\r\nX-B: 2\r\nX-A: 3",
            Expected::Passed(|seen| seen.all("x-a") == ["1", "3"]),
        ),
        with(
            "RFC 9110 5.6.2 a name of signs",
            "!#$%&'*+-.^_`|~: b",
            Expected::Either(&[400], is_first),
        ),
        with("5.1 space before the colon", "X-A : b", BAD),
        with("5.1 tab before the colon", "X-A\t: b", BAD),
        with("5.1 space in the name", "X A: b", BAD),
        with("5.1 space before the name", "X-A: b\r\n X-B: c", BAD),
        with("5.1 no colon", "X-A", BAD),
        with("5.1 no name", ": b", BAD),
        with("RFC 9110 5.6.2 a bracket in the name", "X(A: b", BAD),
        with("RFC 9110 5.6.2 a quote in the name", "\"X\": b", BAD),
        with("RFC 9110 5.6.2 a slash in the name", "X/A: b", BAD),
        with("RFC 9110 5.6.2 an at sign in the name", "X@A: b", BAD),
        with(
            "RFC 9110 5.1 another alphabet in the name",
            "X-\u{c4}: b",
            BAD,
        ),
        with("5.2 folded by a space", "X-A: b\r\n c", BAD),
        with("5.2 folded by a tab", "X-A: b\r\n\tc", BAD),
        with("5.2 folded to nothing", "X-A: b\r\n ", BAD),
        with(
            "5.2 white space in place of the first field",
            "X-A:\r\n b",
            BAD,
        ),
        raw("2.2 a bare LF behind it", b"X-A: b\nX-B: c", BAD),
        raw("2.2 a bare CR within", b"X-A: b\rX-B: c", BAD),
        raw("2.2 a bare CR behind it", b"X-A: b\r\r\nX-B: c", BAD),
        raw("2.2 an empty line of a bare LF", b"X-A: b\r\n\nX-B: c", BAD),
        raw("5.5 NUL in the name", b"X-\0A: b", BAD),
        raw("5.5 NUL in the value", b"X-A: b\0c", BAD),
        raw("5.5 DEL in the value", b"X-A: b\x7fc", BAD),
        raw("5.5 an escape in the value", b"X-A: b\x1bc", BAD),
        raw("5.5 a vertical tab in the value", b"X-A: b\x0bc", BAD),
        raw("5.5 a form feed in the value", b"X-A: b\x0cc", BAD),
        raw("5.5 a backspace in the value", b"X-A: b\x08c", BAD),
        raw(
            "5.5 Latin-1 in the value",
            b"X-A: b\xe9c",
            Expected::Either(&[400], is_first),
        ),
    ])
    .await;
}

/// Hop-by-hop fields are not forwarded (RFC 9110 section 7.6.1); the origin's parser refuses
/// further ones.
#[tokio::test]
async fn hop_by_hop_fields_are_not_forwarded() {
    fn without_a(seen: &RecordedRequest) -> bool {
        is_first(seen) && seen.all("x-a").is_empty() && seen.all("connection").is_empty()
    }
    hold(vec![
        with("RFC 9110 7.6.1 named by Connection", "X-A: b\r\nConnection: x-a", Expected::Passed(without_a)),
        with("RFC 9110 7.6.1 named in a list", "X-A: b\r\nConnection: keep-alive, X-a", Expected::Passed(without_a)),
        with("RFC 9110 7.6.1 named in a second field", "Connection: keep-alive\r\nX-A: b\r\nConnection: x-a", Expected::Passed(without_a)),
        with("RFC 9110 7.6.1 named before it comes", "Connection: x-a\r\nX-A: b\r\nX-A: c", Expected::Passed(without_a)),
        with("RFC 9110 7.6.1 Host is named", "Connection: host", Expected::Either(&[400], is_first)),
        with("RFC 9110 7.6.1 X-Forwarded-For is named", "Connection: x-forwarded-for", Expected::Passed(|seen| seen.all("x-forwarded-for") == ["127.0.0.1"])),
        with("RFC 9110 7.6.1 no token is named", "X-A: b\r\nConnection: ,, ;@,x-a", Expected::Either(&[400], without_a)),
        raw(
            "RFC 9110 7.6.1 named beside what is no token",
            b"X-A: b\r\nConnection: \xe9, x-a",
            Expected::Either(&[400], without_a),
        ),
        with("RFC 9110 7.6.1 Keep-Alive", "Keep-Alive: timeout=5", Expected::Passed(is_first)),
        with("RFC 9110 7.6.1 Proxy-Connection", "Proxy-Connection: close", Expected::Passed(is_first)),
        with("RFC 9110 11.7.1 Proxy-Authorization", "Proxy-Authorization: Basic eDp5", Expected::Passed(is_first)),
        with("RFC 9110 10.1.4 TE", "TE: gzip, trailers;q=0.5", Expected::Passed(is_first)),
        with("RFC 9110 7.8 Upgrade that Connection does not name", "Upgrade: websocket", Expected::Passed(|seen| seen.all("upgrade").is_empty())),
        with("RFC 9113 3.1 Upgrade to h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", Expected::Passed(|seen| seen.all("upgrade").is_empty() && seen.all("http2-settings").is_empty())),
        with("RFC 7239 8.1 what a client says of its hops", "X-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b", Expected::Passed(|seen| seen.all("x-forwarded-for") == ["127.0.0.1"] && seen.all("forwarded").is_empty() && seen.all("x-forwarded-proto") == ["http"] && seen.all("x-forwarded-host") == ["a.localhost"])),
        with("RFC 3875 4.1.18 the same spelt with underscores", "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Host: evil\r\nx_real-ip: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nProxy: evil\r\nX_Request_Id: 6.6.6.6", Expected::Passed(|seen| seen.all("x-forwarded-for") == ["127.0.0.1"] && ["x_forwarded_for", "x-forwarded_host", "x_real-ip", "x-real-ip", "proxy", "x_request_id"].iter().all(|name| seen.all(name).is_empty()))),
        with("RFC 9110 7.6.3 Via is added to", "Via: 1.0 fred", Expected::Passed(|seen| seen.all("via").join(", ") == "1.0 fred, 1.1 cless")),
    ])
    .await;
}

#[tokio::test]
async fn heads_are_bounded() {
    let many = |count: usize| {
        let lines: String = (0..count).map(|at| format!("X-{at}: y\r\n")).collect();
        get(&lines)
    };
    hold(vec![
        row(
            "RFC 9110 5.4 some fields",
            many(60),
            Expected::Passed(is_first),
        ),
        row(
            "RFC 6585 5 many fields",
            many(1000),
            Expected::Refused(&[400, 431]),
        ),
        row(
            "RFC 6585 5 a long value",
            get(&format!("X-A: {}\r\n", "b".repeat(200_000))),
            Expected::Refused(&[400, 431]),
        ),
        row(
            "RFC 6585 5 a long name",
            get(&format!("{}: b\r\n", "a".repeat(200_000))),
            Expected::Refused(&[400, 431]),
        ),
        row(
            "RFC 6585 5 a head without end",
            get(&"X-A: b\r\n".repeat(20_000)),
            Expected::Refused(&[400, 431]),
        ),
    ])
    .await;
}
