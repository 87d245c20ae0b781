//! Heads: pseudo-header fields, the authority, other fields.

use super::{AUTHORITY, Expected, HOST, METHOD, PATH, SCHEME, head, hold, is_first, with};
use crate::front::origin::RecordedRequest;

#[tokio::test]
async fn pseudo_header_fields_are_complete_once_and_first() {
    let refused = || Expected::Refused;
    hold(vec![
        head(
            "8.3.1 a request",
            &[METHOD, SCHEME, AUTHORITY, PATH],
            Expected::Passed(is_first),
        ),
        head(
            "8.3 in another order",
            &[PATH, AUTHORITY, SCHEME, METHOD],
            Expected::Passed(is_first),
        ),
        head("8.3.1 no :method", &[SCHEME, AUTHORITY, PATH], refused()),
        head("8.3.1 no :scheme", &[METHOD, AUTHORITY, PATH], refused()),
        head("8.3.1 no :path", &[METHOD, SCHEME, AUTHORITY], refused()),
        head("8.3.1 none", &[("x-a", "b")], refused()),
        head("8.3.1 no fields at all", &[], refused()),
        head(
            "8.3.1 neither :authority nor host",
            &[METHOD, SCHEME, PATH],
            refused(),
        ),
        head(
            "8.3.1 host in place of :authority",
            &[METHOD, SCHEME, PATH, ("host", HOST)],
            Expected::Either(is_first),
        ),
        head(
            "8.3 :method twice",
            &[METHOD, METHOD, SCHEME, AUTHORITY, PATH],
            refused(),
        ),
        head(
            "8.3 :scheme twice",
            &[METHOD, SCHEME, SCHEME, AUTHORITY, PATH],
            refused(),
        ),
        head(
            "8.3 :authority twice",
            &[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH],
            refused(),
        ),
        head(
            "8.3 :path twice",
            &[METHOD, SCHEME, AUTHORITY, PATH, (":path", "/second")],
            refused(),
        ),
        head(
            "8.3 behind a field",
            &[METHOD, SCHEME, AUTHORITY, ("x-a", "b"), PATH],
            refused(),
        ),
        head(
            "8.3 an unknown one",
            &[METHOD, SCHEME, AUTHORITY, PATH, (":x", "y")],
            refused(),
        ),
        head(
            "8.3 one of responses",
            &[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")],
            refused(),
        ),
        head(
            "RFC 8441 4 :protocol without CONNECT",
            &[METHOD, SCHEME, AUTHORITY, PATH, (":protocol", "websocket")],
            refused(),
        ),
        head(
            "RFC 8441 4 an extended CONNECT without :path",
            &[
                (":method", "CONNECT"),
                SCHEME,
                AUTHORITY,
                (":protocol", "websocket"),
            ],
            refused(),
        ),
        head(
            "RFC 8441 4 an extended CONNECT without :scheme",
            &[
                (":method", "CONNECT"),
                AUTHORITY,
                PATH,
                (":protocol", "websocket"),
            ],
            refused(),
        ),
        head(
            "RFC 9220 3 an extended CONNECT for another protocol",
            &[
                (":method", "CONNECT"),
                SCHEME,
                AUTHORITY,
                PATH,
                (":protocol", "connect-ip"),
            ],
            refused(),
        ),
        head(
            "8.3.1 an empty :path",
            &[METHOD, SCHEME, AUTHORITY, (":path", "")],
            refused(),
        ),
        head(
            "8.3.1 :path without slash",
            &[METHOD, SCHEME, AUTHORITY, (":path", "first")],
            refused(),
        ),
        head(
            "8.3.1 :path in absolute-form",
            &[
                METHOD,
                SCHEME,
                AUTHORITY,
                (":path", "http://a.localhost/first"),
            ],
            refused(),
        ),
        head(
            "8.3.1 :path is an asterisk on GET",
            &[METHOD, SCHEME, AUTHORITY, (":path", "*")],
            refused(),
        ),
        head(
            "RFC 9110 9.3.7 OPTIONS of all",
            &[(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")],
            Expected::Either(|seen| seen.target == "*"),
        ),
        head(
            "8.3.1 space in :path",
            &[METHOD, SCHEME, AUTHORITY, (":path", "/fi rst")],
            refused(),
        ),
        head(
            "8.2.1 CR LF in :path",
            &[
                METHOD,
                SCHEME,
                AUTHORITY,
                (":path", "/first HTTP/1.1\r\nX: y"),
            ],
            refused(),
        ),
        head(
            "8.2.1 NUL in :path",
            &[METHOD, SCHEME, AUTHORITY, (":path", "/fir\0st")],
            refused(),
        ),
        head(
            "8.3.1 a fragment in :path",
            &[METHOD, SCHEME, AUTHORITY, (":path", "/first#x")],
            Expected::Either(is_first),
        ),
        head(
            "RFC 9110 9.1 an empty :method",
            &[(":method", ""), SCHEME, AUTHORITY, PATH],
            refused(),
        ),
        head(
            "RFC 9110 9.1 space in :method",
            &[(":method", "GE T"), SCHEME, AUTHORITY, PATH],
            refused(),
        ),
        head(
            "8.2.1 CR LF in :method",
            &[
                (":method", "GET / HTTP/1.1\r\nX: y"),
                SCHEME,
                AUTHORITY,
                PATH,
            ],
            refused(),
        ),
        head(
            "8.3.1 an unknown :scheme",
            &[METHOD, (":scheme", "ftp"), AUTHORITY, PATH],
            refused(),
        ),
        head(
            "8.3.1 :scheme is https",
            &[METHOD, (":scheme", "https"), AUTHORITY, PATH],
            Expected::Either(is_first),
        ),
        head(
            "8.5 CONNECT",
            &[(":method", "CONNECT"), AUTHORITY],
            refused(),
        ),
        head(
            "8.5 CONNECT with a path",
            &[(":method", "CONNECT"), SCHEME, AUTHORITY, PATH],
            refused(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_authority_is_one_valid_host() {
    let to = |authority| [METHOD, SCHEME, (":authority", authority), PATH];
    let for_a = |seen: &RecordedRequest| {
        let hosts = seen.all("host");
        hosts.len() == 1 && hosts[0].to_ascii_lowercase().starts_with(HOST)
    };
    let refused = || Expected::Refused;
    hold(vec![
        head(
            "8.3.1 with a port",
            &to("a.localhost:80"),
            Expected::Passed(for_a),
        ),
        head(
            "RFC 9110 4.2.3 in capitals",
            &to("A.localhost"),
            Expected::Passed(for_a),
        ),
        head("8.3.1 unknown", &to("b.localhost"), Expected::Answered(404)),
        with(
            "8.3.1 host says the same",
            ("host", HOST),
            Expected::Passed(is_first),
        ),
        with(
            "8.3.1 host says another",
            ("host", "b.localhost"),
            refused(),
        ),
        with("8.3.1 host is empty", ("host", ""), refused()),
        head(
            "8.3.1 host twice beside it",
            &[
                METHOD,
                SCHEME,
                AUTHORITY,
                PATH,
                ("host", HOST),
                ("host", "b.localhost"),
            ],
            refused(),
        ),
        head("8.3.1 userinfo", &to("user@a.localhost"), refused()),
        head("8.3.1 empty", &to(""), refused()),
        head("8.3.1 a path", &to("a.localhost/x"), refused()),
        head("8.3.1 a list", &to("a.localhost,b.localhost"), refused()),
        head("8.3.1 a port that is none", &to("a.localhost:x"), refused()),
        head("8.2.1 CR LF", &to("a.localhost\r\nX: y"), refused()),
        head(
            "8.2.1 white space around it",
            &to(" a.localhost"),
            refused(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn fields_contain_nothing_that_http_1_reads_differently() {
    let refused = || Expected::Refused;
    hold(vec![
        with(
            "8.2.1 a field",
            ("x-a", "b"),
            Expected::Passed(|seen| seen.all("x-a") == ["b"]),
        ),
        with("8.2.1 a name in capitals", ("X-A", "b"), refused()),
        with("8.2.1 an empty name", ("", "b"), refused()),
        with("8.2.1 a colon in a name", ("x:a", "b"), refused()),
        with("8.2.1 space in a name", ("x a", "b"), refused()),
        with("8.2.1 CR LF in a name", ("x: y\r\na", "b"), refused()),
        with("8.2.1 NUL in a name", ("x\0a", "b"), refused()),
        with(
            "8.2.1 a byte over 127 in a name",
            ("x\u{e9}", "b"),
            refused(),
        ),
        with(
            "8.2.1 CR LF in a value",
            ("x-a", "b\r\ntransfer-encoding: chunked"),
            refused(),
        ),
        with("8.2.1 CR in a value", ("x-a", "b\rc"), refused()),
        with("8.2.1 LF in a value", ("x-a", "b\nc"), refused()),
        with("8.2.1 NUL in a value", ("x-a", "b\0c"), refused()),
        with(
            "8.2.1 space before a value",
            ("x-a", " b"),
            Expected::Either(|seen| seen.all("x-a") == ["b"]),
        ),
        with(
            "8.2.1 space behind a value",
            ("x-a", "b "),
            Expected::Either(|seen| seen.all("x-a") == ["b"]),
        ),
        with("8.2.2 Connection", ("connection", "x-a"), refused()),
        with(
            "8.2.2 Connection: close",
            ("connection", "close"),
            refused(),
        ),
        with("8.2.2 Keep-Alive", ("keep-alive", "timeout=5"), refused()),
        with(
            "8.2.2 Proxy-Connection",
            ("proxy-connection", "close"),
            refused(),
        ),
        with(
            "8.2.2 Transfer-Encoding",
            ("transfer-encoding", "chunked"),
            refused(),
        ),
        with("8.2.2 Upgrade", ("upgrade", "websocket"), refused()),
        with(
            "8.2.2 TE: trailers",
            ("te", "trailers"),
            Expected::Passed(is_first),
        ),
        with("8.2.2 TE: gzip", ("te", "gzip"), refused()),
        with(
            "8.2.2 TE: trailers and more",
            ("te", "trailers, gzip"),
            refused(),
        ),
        head(
            "8.2.3 Cookie in two fields is one",
            &[
                METHOD,
                SCHEME,
                AUTHORITY,
                PATH,
                ("cookie", "a=1"),
                ("cookie", "b=2"),
            ],
            Expected::Passed(|seen| seen.all("cookie") == ["a=1; b=2"]),
        ),
        head(
            "8.2.3 Cookie in more fields than a head may have",
            &[
                [METHOD, SCHEME, AUTHORITY, PATH].as_slice(),
                &[("cookie", "a=1"); 120],
            ]
            .concat(),
            Expected::Passed(|seen| seen.all("cookie").concat().matches("a=1").count() == 120),
        ),
        with("8.2.1 a quote in a name", ("x\"", "1"), refused()),
        head(
            "RFC 9112 6.3 Content-Length twice",
            &[
                METHOD,
                SCHEME,
                AUTHORITY,
                PATH,
                ("content-length", "0"),
                ("content-length", "0"),
            ],
            refused(),
        ),
        with(
            "RFC 9110 10.1.1 Expect of the unknown",
            ("expect", "200-maybe"),
            Expected::Either(is_first),
        ),
    ])
    .await;
}
