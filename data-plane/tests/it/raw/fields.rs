//! Header fields: names, values, line ends, hop-by-hop fields.

use super::Expected::{Either, Passed, Refused};
use super::{BAD, get, hold, is_first, row, rows};
use crate::front::origin::RecordedRequest;

fn with(line: &str) -> String {
    get(&format!("{line}\r\n"))
}

#[tokio::test]
async fn field_lines_are_well_formed_or_400() {
    hold([
        rows(Passed(|seen| seen.all("x-a") == ["b"]), with)(&[
            "5 a field | X-A: b",
            "5.1 no space behind the colon | X-A:b",
            "5.1 white space around the value | X-A: \t b \t",
        ]),
        rows(Passed(|seen| seen.all("x-a") == [""]), with)(&["5.5 an empty value | X-A:"]),
        rows(Passed(|seen| seen.all("x-a") == ["1", "3"]), with)(&[
            "RFC 9110 5.3 twice, in order | X-A: 1\r\nX-B: 2\r\nX-A: 3",
        ]),
        rows(Either(&[400], is_first), with)(&[
            "RFC 9110 5.6.2 a name of signs | !#$%&'*+-.^_`|~: b",
        ]),
        rows(BAD, with)(&[
            "5.1 space before the colon | X-A : b",
            "5.1 tab before the colon | X-A\t: b",
            "5.1 space in the name | X A: b",
            "5.1 space before the name | X-A: b\r\n X-B: c",
            "5.1 no colon | X-A",
            "5.1 no name | : b",
            "RFC 9110 5.6.2 a bracket in the name | X(A: b",
            "RFC 9110 5.6.2 a quote in the name | \"X\": b",
            "RFC 9110 5.6.2 a slash in the name | X/A: b",
            "RFC 9110 5.6.2 an at sign in the name | X@A: b",
            "RFC 9110 5.1 another alphabet in the name | X-\u{c4}: b",
            "5.2 folded by a space | X-A: b\r\n c",
            "5.2 folded by a tab | X-A: b\r\n\tc",
            "5.2 folded to nothing | X-A: b\r\n ",
            "5.2 white space in place of the first field | X-A:\r\n b",
            "2.2 a bare LF behind it | X-A: b\nX-B: c",
            "2.2 a bare CR within | X-A: b\rX-B: c",
            "2.2 a bare CR behind it | X-A: b\r\r\nX-B: c",
            "2.2 an empty line of a bare LF | X-A: b\r\n\nX-B: c",
            "5.5 NUL in the name | X-\0A: b",
            "5.5 NUL in the value | X-A: b\0c",
            "5.5 DEL in the value | X-A: b\x7fc",
            "5.5 an escape in the value | X-A: b\x1bc",
            "5.5 a vertical tab in the value | X-A: b\x0bc",
            "5.5 a form feed in the value | X-A: b\x0cc",
            "5.5 a backspace in the value | X-A: b\x08c",
        ]),
        vec![row(
            "5.5 Latin-1 in the value",
            b"GET /first HTTP/1.1\r\nHost: a.localhost\r\nX-A: b\xe9c\r\n\r\n",
            Either(&[400], is_first),
        )],
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
    fn without_upgrade(seen: &RecordedRequest) -> bool {
        seen.all("upgrade").is_empty() && seen.all("http2-settings").is_empty()
    }
    fn with_one_hop(seen: &RecordedRequest) -> bool {
        seen.all("x-forwarded-for") == ["127.0.0.1"]
    }
    hold([
        rows(Passed(without_a), with)(&[
            "RFC 9110 7.6.1 named by Connection | X-A: b\r\nConnection: x-a",
            "RFC 9110 7.6.1 named in a list | X-A: b\r\nConnection: keep-alive, X-a",
            "RFC 9110 7.6.1 named twice | Connection: keep-alive\r\nX-A: b\r\nConnection: x-a",
            "RFC 9110 7.6.1 named before it comes | Connection: x-a\r\nX-A: b\r\nX-A: c",
        ]),
        rows(Either(&[400], is_first), with)(&["RFC 9110 7.6.1 Host is named | Connection: host"]),
        rows(Passed(with_one_hop), with)(&[
            "RFC 9110 7.6.1 X-Forwarded-For is named | Connection: x-forwarded-for",
        ]),
        rows(Either(&[400], without_a), with)(&[
            "RFC 9110 7.6.1 no token is named | X-A: b\r\nConnection: ,, ;@,x-a",
        ]),
        rows(Passed(is_first), with)(&[
            "RFC 9110 7.6.1 Keep-Alive | Keep-Alive: timeout=5",
            "RFC 9110 7.6.1 Proxy-Connection | Proxy-Connection: close",
            "RFC 9110 11.7.1 Proxy-Authorization | Proxy-Authorization: Basic eDp5",
            "RFC 9110 10.1.4 TE | TE: gzip, trailers;q=0.5",
        ]),
        rows(Passed(without_upgrade), with)(&[
            "RFC 9110 7.8 Upgrade that Connection does not name | Upgrade: websocket",
            "RFC 9113 3.1 Upgrade to h2c | Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__",
        ]),
        rows(
            Passed(|seen| seen.all("via").join(", ") == "1.0 fred, 1.1 cless"),
            with,
        )(&["RFC 9110 7.6.3 Via is added to | Via: 1.0 fred"]),
        rows(
            Passed(|seen| {
                with_one_hop(seen)
                    && seen.all("forwarded").is_empty()
                    && seen.all("x-forwarded-proto") == ["http"]
                    && seen.all("x-forwarded-host") == ["a.localhost"]
            }),
            with,
        )(&[
            "RFC 7239 8.1 what a client says of its hops | X-Forwarded-For: 9.9.9.9\r\n\
             Forwarded: for=9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b",
        ]),
        vec![row(
            "RFC 9110 7.6.1 named beside what is no token",
            b"GET /first HTTP/1.1\r\nHost: a.localhost\r\nX-A: b\r\nConnection: \xe9, x-a\r\n\r\n",
            Either(&[400], without_a),
        )],
    ])
    .await;
}

#[tokio::test]
async fn heads_are_bounded() {
    let many = |count| (0..count).map(|at| format!("X-{at}: y\r\n"));
    let long = "a".repeat(200_000);
    let some = get(&many(60).collect::<String>());
    let too_long = |(name, fields): (_, String)| row(name, get(&fields), Refused(&[400, 431]));
    let refused = [
        ("RFC 6585 5 many fields", many(1000).collect()),
        ("RFC 6585 5 a long value", format!("X-A: {long}\r\n")),
        ("RFC 6585 5 a long name", format!("{long}: b\r\n")),
        ("RFC 6585 5 a head without end", "X-A: b\r\n".repeat(20_000)),
    ];
    hold([
        refused.map(too_long).into(),
        vec![row("RFC 9110 5.4 some fields", some, Passed(is_first))],
    ])
    .await;
}
