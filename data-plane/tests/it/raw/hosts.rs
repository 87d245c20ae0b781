//! The host of a request.

use super::Expected::{Answered, Either, Passed};
use super::{Expected, HOST, hold, is_first, row, rows};
use crate::front::origin::RecordedRequest;

/// The instance receives the host that the request was routed by.
fn is_for_a(seen: &RecordedRequest) -> bool {
    let hosts = seen.all("host");
    is_first(seen) && hosts.len() == 1 && hosts[0].to_ascii_lowercase().starts_with(HOST)
}

/// An invalid host: 400, and the end of the request is unambiguous.
const BAD_HOST: Expected = Answered(400);

#[tokio::test]
async fn there_is_one_valid_host_or_400() {
    let host = |value: &str| format!("GET /first HTTP/1.1\r\nHost:{value}\r\n\r\n");
    let lines = |lines: &str| format!("GET /first HTTP/1.1\r\n{lines}\r\n");
    hold([
        rows(Passed(is_for_a), host)(&[
            "3.2 the host |  a.localhost",
            "RFC 9110 4.2.3 in capitals |  A.LocalHost",
            "RFC 9110 7.2 with a port |  a.localhost:8080",
            "RFC 3986 3.2.3 with an empty port |  a.localhost:",
            "RFC 1034 3.1 with a trailing dot |  a.localhost.",
        ]),
        rows(Answered(404), host)(&[
            "RFC 9110 7.2 unknown |  b.localhost",
            "RFC 9110 7.2 an IPv4 address |  127.0.0.1",
            "RFC 3986 3.2.2 an IPv6 address |  [::1]",
            "RFC 3986 3.2.2 an IPv6 address and port |  [::1]:80",
        ]),
        rows(BAD_HOST, lines)(&[
            "3.2 none | ",
            "3.2 two | Host: a.localhost\r\nHost: b.localhost\r\n",
            "3.2 two, the same | Host: a.localhost\r\nHost: a.localhost\r\n",
            "3.2 two, one in capitals | Host: a.localhost\r\nHOST: b.localhost\r\n",
            "3.2 two, apart | Host: a.localhost\r\nX: y\r\nHost: b.localhost\r\n",
            "5.1 space before its colon | Host : a.localhost\r\n",
            "5.1 two, one with a space behind | Host: a.localhost\r\nHost : b.localhost\r\n",
            "5.2 folded | Host: a.localhost\r\n b.localhost\r\n",
            "5.2 first line begins with space |  Host: a.localhost\r\n",
        ]),
        rows(BAD_HOST, host)(&[
            "3.2 empty | ",
            "3.2 white space |   ",
            "3.2 a dot |  .",
            "3.2 a port alone |  :80",
            "3.2 two labels with nothing between |  a..localhost",
            "3.2 two trailing dots |  a.localhost..",
            "3.2 with a path |  a.localhost/x",
            "3.2 with a query |  a.localhost?x",
            "3.2 with a fragment |  a.localhost#x",
            "3.2 with a scheme |  http://a.localhost",
            "RFC 9110 4.2.4 with userinfo |  user@a.localhost",
            "RFC 9110 4.2.4 with userinfo in front |  a.localhost@b",
            "3.2 a list |  a.localhost, b.localhost",
            "3.2 a list without space |  a.localhost,b.localhost",
            "3.2 space within |  a.localhost b",
            "3.2 tab within |  a.localhost\tb",
            "RFC 3986 3.2.3 a port with sign |  a.localhost:+80",
            "RFC 3986 3.2.3 a port with letters |  a.localhost:8o",
            "RFC 3986 3.2.3 a port too large |  a.localhost:65536",
            "RFC 3986 3.2.3 two ports |  a.localhost:80:80",
            "RFC 3986 3.2.2 an open bracket |  [::1",
            "RFC 3986 3.2.2 bytes behind the bracket |  [::1]a",
            "RFC 3986 3.2.2 no address in brackets |  [a.localhost]",
            "RFC 6874 a zone |  [fe80::1%25eth0]",
            "RFC 3986 2.1 percent-encoded |  a%2elocalhost",
            "5.5 NUL |  a.localhost\0",
            "5.5 DEL |  a.localhost\x7f",
            "3.2 a backslash |  a.localhost\\b",
            "3.2 a quote |  \"a.localhost\"",
        ]),
        vec![
            row(
                "3.2 longer than any name",
                host(&format!(" {}.localhost", "a".repeat(300))),
                BAD_HOST,
            ),
            row(
                "3.2 Latin-1",
                b"GET /first HTTP/1.1\r\nHost: a\xe9.localhost\r\n\r\n",
                BAD_HOST,
            ),
        ],
    ])
    .await;
}

#[tokio::test]
async fn a_target_in_absolute_form_names_the_host() {
    let to = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let target = |target: &str| to(target, HOST);
    let beside = |hosts: &str| format!("GET http://a.localhost/first HTTP/1.1\r\n{hosts}\r\n");
    hold([
        rows(Passed(is_for_a), target)(&[
            "3.2.2 the same host | http://a.localhost/first",
            "3.2.2 with a port | http://a.localhost:80/first",
        ]),
        rows(Answered(404), target)(&[
            "3.2.2 the target wins, whatever Host says | http://b.localhost/first",
        ]),
        rows(Either(&[400], is_for_a), target)(&["3.2.2 in capitals | HTTP://A.localhost/first"]),
        rows(Either(&[400, 421], is_for_a), target)(&[
            "RFC 9110 4.2.2 https | https://a.localhost/first",
        ]),
        rows(Passed(|seen| seen.target == "/"), target)(&["3.2.2 no path | http://a.localhost"]),
        rows(Either(&[400], |seen| seen.target == "/?q"), target)(&[
            "3.2.1 a query and no path | http://a.localhost?q",
        ]),
        rows(BAD_HOST, beside)(&[
            "3.2 no Host beside it | ",
            "3.2 two Hosts beside it | Host: a.localhost\r\nHost: b\r\n",
        ]),
        rows(BAD_HOST, target)(&[
            "RFC 9110 4.2.4 userinfo | http://user:pass@a.localhost/first",
            "RFC 9110 4.2.1 no host | http:///first",
            "RFC 9110 4.2.1 a port alone | http://:80/first",
            "7.4 another scheme | ftp://a.localhost/first",
            "7.4 a scheme and no authority | http:/first",
            "7.4 a scheme of a script | javascript:alert(1)",
        ]),
        rows(
            Either(&[400], |seen| {
                seen.target == "//b.localhost/first" && is_host_a(seen)
            }),
            target,
        )(&["3.2.1 an authority without scheme is a path | //b.localhost/first"]),
        vec![row(
            "3.2.2 the target wins",
            to("http://a.localhost/first", "b.localhost"),
            Either(&[400], is_for_a),
        )],
    ])
    .await;
}

fn is_host_a(seen: &RecordedRequest) -> bool {
    seen.all("host") == [HOST]
}
