//! The host of a request.

use super::{Expected, HOST, Row, hold, is_first, row};
use crate::front::origin::RecordedRequest;

/// The instance receives the host that the request was routed by.
fn is_for_a(seen: &RecordedRequest) -> bool {
    let hosts = seen.all("host");
    is_first(seen) && hosts.len() == 1 && hosts[0].to_ascii_lowercase().starts_with(HOST)
}

fn with(name: &'static str, value: &str, expected: Expected) -> Row {
    row(
        name,
        format!("GET /first HTTP/1.1\r\nHost:{value}\r\n\r\n"),
        expected,
    )
}

/// The served host in one of its spellings.
fn good(name: &'static str, value: &str) -> Row {
    with(name, value, Expected::Passed(is_for_a))
}

fn unknown(name: &'static str, value: &str) -> Row {
    with(name, value, Expected::Answered(404))
}

/// An invalid host: 400, and the end of the request is unambiguous.
fn bad(name: &'static str, value: &str) -> Row {
    with(name, value, Expected::Answered(400))
}

#[tokio::test]
async fn there_is_one_valid_host_or_400() {
    let bad_lines = |name, lines: &str| {
        let head = format!("GET /first HTTP/1.1\r\n{lines}\r\n");
        row(name, head, Expected::Answered(400))
    };
    hold(vec![
        good("3.2 the host", " a.localhost"),
        good("RFC 9110 4.2.3 in capitals", " A.LocalHost"),
        good("RFC 9110 7.2 with a port", " a.localhost:8080"),
        good("RFC 3986 3.2.3 with an empty port", " a.localhost:"),
        good("RFC 1034 3.1 with a trailing dot", " a.localhost."),
        unknown("RFC 9110 7.2 unknown", " b.localhost"),
        unknown("RFC 9110 7.2 an IPv4 address", " 127.0.0.1"),
        unknown("RFC 3986 3.2.2 an IPv6 address", " [::1]"),
        unknown("RFC 3986 3.2.2 an IPv6 address and port", " [::1]:80"),
        bad_lines("3.2 none", ""),
        bad_lines("3.2 two", "Host: a.localhost\r\nHost: b.localhost\r\n"),
        bad_lines(
            "3.2 two, the same",
            "Host: a.localhost\r\nHost: a.localhost\r\n",
        ),
        bad_lines(
            "3.2 two, one in capitals",
            "Host: a.localhost\r\nHOST: b.localhost\r\n",
        ),
        bad_lines(
            "3.2 two, apart",
            "Host: a.localhost\r\nX: y\r\nHost: b.localhost\r\n",
        ),
        bad_lines("5.1 space before its colon", "Host : a.localhost\r\n"),
        bad_lines(
            "5.1 two, one with a space before its colon",
            "Host: a.localhost\r\nHost : b.localhost\r\n",
        ),
        bad_lines("5.2 folded", "Host: a.localhost\r\n b.localhost\r\n"),
        bad_lines("5.2 first line begins with space", " Host: a.localhost\r\n"),
        bad("3.2 empty", ""),
        bad("3.2 white space", "  "),
        bad("3.2 a dot", " ."),
        bad("3.2 a port alone", " :80"),
        bad("3.2 two labels with nothing between", " a..localhost"),
        bad("3.2 two trailing dots", " a.localhost.."),
        bad("3.2 with a path", " a.localhost/x"),
        bad("3.2 with a query", " a.localhost?x"),
        bad("3.2 with a fragment", " a.localhost#x"),
        bad("3.2 with a scheme", " http://a.localhost"),
        bad("RFC 9110 4.2.4 with userinfo", " user@a.localhost"),
        bad("RFC 9110 4.2.4 with userinfo in front", " a.localhost@b"),
        bad("3.2 a list", " a.localhost, b.localhost"),
        bad("3.2 a list without space", " a.localhost,b.localhost"),
        bad("3.2 space within", " a.localhost b"),
        bad("3.2 tab within", " a.localhost\tb"),
        bad("RFC 3986 3.2.3 a port with sign", " a.localhost:+80"),
        bad("RFC 3986 3.2.3 a port with letters", " a.localhost:8o"),
        bad("RFC 3986 3.2.3 a port too large", " a.localhost:65536"),
        bad("RFC 3986 3.2.3 two ports", " a.localhost:80:80"),
        bad("RFC 3986 3.2.2 an open bracket", " [::1"),
        bad("RFC 3986 3.2.2 bytes behind the bracket", " [::1]a"),
        bad("RFC 3986 3.2.2 no address in brackets", " [a.localhost]"),
        bad("RFC 6874 a zone", " [fe80::1%25eth0]"),
        bad("RFC 3986 2.1 percent-encoded", " a%2elocalhost"),
        bad("3.2 a backslash", " a.localhost\\b"),
        bad("3.2 a quote", " \"a.localhost\""),
        bad(
            "3.2 longer than any name",
            &format!(" {}.localhost", "a".repeat(300)),
        ),
        row(
            "3.2 Latin-1",
            b"GET /first HTTP/1.1\r\nHost: a\xe9.localhost\r\n\r\n",
            Expected::Answered(400),
        ),
        row(
            "5.5 NUL",
            b"GET /first HTTP/1.1\r\nHost: a.localhost\0\r\n\r\n",
            Expected::Answered(400),
        ),
        row(
            "5.5 DEL",
            b"GET /first HTTP/1.1\r\nHost: a.localhost\x7f\r\n\r\n",
            Expected::Answered(400),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_target_in_absolute_form_names_the_host() {
    let to = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let bad_target = |name, target: &str| row(name, to(target, HOST), Expected::Answered(400));
    hold(vec![
        row(
            "3.2.2 the same host",
            to("http://a.localhost/first", HOST),
            Expected::Passed(is_for_a),
        ),
        row(
            "3.2.2 with a port",
            to("http://a.localhost:80/first", HOST),
            Expected::Passed(is_for_a),
        ),
        row(
            "3.2.2 the target wins",
            to("http://a.localhost/first", "b.localhost"),
            Expected::Either(&[400], is_for_a),
        ),
        row(
            "3.2.2 the target wins, whatever Host says",
            to("http://b.localhost/first", HOST),
            Expected::Answered(404),
        ),
        row(
            "3.2.2 in capitals",
            to("HTTP://A.localhost/first", HOST),
            Expected::Either(&[400], is_for_a),
        ),
        row(
            "RFC 9110 4.2.2 https",
            to("https://a.localhost/first", HOST),
            Expected::Answered(421),
        ),
        row(
            "3.2.2 no path",
            to("http://a.localhost", HOST),
            Expected::Passed(|seen| seen.target == "/"),
        ),
        row(
            "3.2.1 a query and no path",
            to("http://a.localhost?q", HOST),
            Expected::Either(&[400], |seen| seen.target == "/?q"),
        ),
        row(
            "3.2 no Host beside it",
            "GET http://a.localhost/first HTTP/1.1\r\n\r\n",
            Expected::Answered(400),
        ),
        row(
            "3.2 two Hosts beside it",
            "GET http://a.localhost/first HTTP/1.1\r\nHost: a.localhost\r\nHost: b\r\n\r\n",
            Expected::Answered(400),
        ),
        bad_target(
            "RFC 9110 4.2.4 userinfo",
            "http://user:pass@a.localhost/first",
        ),
        bad_target("RFC 9110 4.2.1 no host", "http:///first"),
        bad_target("RFC 9110 4.2.1 a port alone", "http://:80/first"),
        bad_target("7.4 another scheme", "ftp://a.localhost/first"),
        bad_target("7.4 a scheme and no authority", "http:/first"),
        bad_target("7.4 a scheme of a script", "javascript:alert(1)"),
        row(
            "3.2.1 an authority without scheme is a path",
            to("//b.localhost/first", HOST),
            Expected::Either(&[400], |seen| {
                seen.target == "//b.localhost/first" && is_host_a(seen)
            }),
        ),
    ])
    .await;
}

fn is_host_a(seen: &RecordedRequest) -> bool {
    seen.all("host") == [HOST]
}
