//! Heads: pseudo-header fields, the authority, other fields.

use super::Expected::{Answered, Either, Passed, Refused};
use super::{HOST, head, hold, is_first, with};
use crate::front::origin::RecordedRequest;
use crate::raw::rows;

#[tokio::test]
async fn pseudo_header_fields_are_complete_once_and_first() {
    let connect = |rest: &str| head(&format!(":method=CONNECT & {rest}"));
    let method = |method: &str| head(&format!(":method={method} & :scheme & :authority & :path"));
    let path = |path: &str| head(&format!(":method & :scheme & :authority & :path={path}"));
    hold([
        rows(Passed(is_first), head)(&[
            "8.3.1 a request | :method & :scheme & :authority & :path",
            "8.3 in another order | :path & :authority & :scheme & :method",
        ]),
        rows(Refused, head)(&[
            "8.3.1 no :method | :scheme & :authority & :path",
            "8.3.1 no :scheme | :method & :authority & :path",
            "8.3.1 no :path | :method & :scheme & :authority",
            "8.3.1 none | x-a=b",
            "8.3.1 no fields at all | ",
            "8.3.1 neither :authority nor host | :method & :scheme & :path",
            "8.3 :method twice | :method & :method & :scheme & :authority & :path",
            "8.3 :scheme twice | :method & :scheme & :scheme & :authority & :path",
            "8.3 :authority twice | :method & :scheme & :authority & :authority & :path",
            "8.3 :path twice | :method & :scheme & :authority & :path & :path=/second",
            "8.3 behind a field | :method & :scheme & :authority & x-a=b & :path",
            "8.3 an unknown one | :method & :scheme & :authority & :path & :x=y",
            "8.3 one of responses | :method & :scheme & :authority & :path & :status=200",
            "8.3.1 an unknown :scheme | :method & :scheme=ftp & :authority & :path",
            "8.5 CONNECT | :method=CONNECT & :authority",
        ]),
        rows(Either(is_first), head)(&[
            "8.3.1 host in place of :authority | :method & :scheme & :path & host=a.localhost",
            "8.3.1 a fragment in :path | :method & :scheme & :authority & :path=/first#x",
            "8.3.1 :scheme is https | :method & :scheme=https & :authority & :path",
        ]),
        rows(Either(|seen| seen.target == "*"), head)(&[
            "RFC 9110 9.3.7 OPTIONS of all | :method=OPTIONS & :scheme & :authority & :path=*",
        ]),
        rows(Refused, with)(&["RFC 8441 4 :protocol without CONNECT | :protocol=websocket"]),
        // Extended CONNECT.
        rows(Refused, connect)(&[
            "RFC 8441 4 CONNECT without :path | :scheme & :authority & :protocol=websocket",
            "RFC 8441 4 CONNECT without :scheme | :authority & :path & :protocol=websocket",
            "RFC 9220 3 another protocol | :scheme & :authority & :path & :protocol=connect-ip",
        ]),
        rows(Refused, path)(&[
            "8.3.1 an empty :path | ",
            "8.3.1 :path without slash | first",
            "8.3.1 :path is an asterisk on GET | *",
            "8.3.1 space in :path | /fi rst",
            "8.2.1 NUL in :path | /fir\0st",
            "8.3.1 :path in absolute-form | http://a.localhost/first",
            "8.2.1 CR LF in :path | /first HTTP/1.1\r\nX: y",
        ]),
        rows(Refused, method)(&[
            "RFC 9110 9.1 an empty :method | ",
            "RFC 9110 9.1 space in :method | GE T",
            "8.2.1 CR LF in :method | GET / HTTP/1.1\r\nX: y",
            "8.5 CONNECT with a path | CONNECT",
        ]),
    ])
    .await;
}

#[tokio::test]
async fn the_authority_is_one_valid_host() {
    let to = |host: &str| head(&format!(":method & :scheme & :authority={host} & :path"));
    let for_a = |seen: &RecordedRequest| {
        let hosts = seen.all("host");
        hosts.len() == 1 && hosts[0].to_ascii_lowercase().starts_with(HOST)
    };
    hold([
        rows(Passed(for_a), to)(&[
            "8.3.1 with a port | a.localhost:80",
            "RFC 9110 4.2.3 in capitals | A.localhost",
        ]),
        rows(Answered(404), to)(&["8.3.1 unknown | b.localhost"]),
        rows(Passed(is_first), with)(&["8.3.1 host says the same | host=a.localhost"]),
        rows(Refused, with)(&[
            "8.3.1 host says another | host=b.localhost",
            "8.3.1 host is empty | host=",
            "8.3.1 host twice beside it | host=a.localhost & host=b.localhost",
        ]),
        rows(Refused, to)(&[
            "8.3.1 userinfo | user@a.localhost",
            "8.3.1 empty | ",
            "8.3.1 a path | a.localhost/x",
            "8.3.1 a list | a.localhost,b.localhost",
            "8.3.1 a port that is none | a.localhost:x",
            "8.2.1 CR LF | a.localhost\r\nX: y",
            "8.2.1 white space around it |  a.localhost",
        ]),
    ])
    .await;
}

#[tokio::test]
async fn fields_contain_nothing_that_http_1_reads_differently() {
    hold([
        rows(Passed(|seen| seen.all("x-a") == ["b"]), with)(&["8.2.1 a field | x-a=b"]),
        rows(Refused, with)(&[
            "8.2.1 a name in capitals | X-A=b",
            "8.2.1 an empty name | =b",
            "8.2.1 a colon in a name | x:a=b",
            "8.2.1 space in a name | x a=b",
            "8.2.1 CR LF in a name | x: y\r\na=b",
            "8.2.1 NUL in a name | x\0a=b",
            "8.2.1 a byte over 127 in a name | x\u{e9}=b",
            "8.2.1 CR LF in a value | x-a=b\r\ntransfer-encoding: chunked",
            "8.2.1 CR in a value | x-a=b\rc",
            "8.2.1 LF in a value | x-a=b\nc",
            "8.2.1 NUL in a value | x-a=b\0c",
            "8.2.2 Connection | connection=x-a",
            "8.2.2 Connection: close | connection=close",
            "8.2.2 Keep-Alive | keep-alive=timeout=5",
            "8.2.2 Proxy-Connection | proxy-connection=close",
            "8.2.2 Transfer-Encoding | transfer-encoding=chunked",
            "8.2.2 Upgrade | upgrade=websocket",
            "8.2.2 TE: gzip | te=gzip",
            "8.2.2 TE: trailers and more | te=trailers, gzip",
        ]),
        rows(Either(|seen| seen.all("x-a") == ["b"]), with)(&[
            "8.2.1 space before a value | x-a= b",
            "8.2.1 space behind a value | x-a=b ",
        ]),
        rows(Passed(is_first), with)(&["8.2.2 TE: trailers | te=trailers"]),
        rows(Either(is_first), with)(&["RFC 9110 10.1.1 Expect of the unknown | expect=200-maybe"]),
        rows(Passed(|seen| seen.all("cookie") == ["a=1; b=2"]), with)(&[
            "8.2.3 Cookie in two fields is one | cookie=a=1 & cookie=b=2",
        ]),
    ])
    .await;
}
