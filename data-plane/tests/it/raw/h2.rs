//! HTTP/2 requests that are malformed (RFC 9113 section 8.1.1): each is refused by a status, a reset or
//! the end of the connection, and none reaches the origin.

use super::frames::{
    CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, HEADERS, Outcome, PUSH_PROMISE, block,
    frame,
};
use crate::front::origin::Seen;
use crate::front::{Front, HOST};

enum Wanted {
    Refused,
    Passed(fn(&Seen) -> bool),
    Either(fn(&Seen) -> bool),
    Answered(u16),
}

struct Row {
    name: &'static str,
    frames: Vec<u8>,
    wanted: Wanted,
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", HOST);
const PATH: (&str, &str) = (":path", "/first");

fn head(name: &'static str, fields: &[(&str, &str)], wanted: Wanted) -> Row {
    let frames = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
    Row {
        name,
        frames,
        wanted,
    }
}

/// The four that a request has, and one more field.
fn with(name: &'static str, field: (&str, &str), wanted: Wanted) -> Row {
    head(name, &[METHOD, SCHEME, AUTHORITY, PATH, field], wanted)
}

fn body(name: &'static str, length: &str, data: &[&str], wanted: Wanted) -> Row {
    let post = (":method", "POST");
    let fields = [post, SCHEME, AUTHORITY, PATH, ("content-length", length)];
    let mut frames = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    for data in data {
        frames.extend(frame(DATA, 0, 1, data.as_bytes()));
    }
    frames.extend(frame(DATA, END_STREAM, 1, b""));
    Row {
        name,
        frames,
        wanted,
    }
}

/// A body, then these as trailers.
fn trailers(name: &'static str, fields: &[(&str, &str)], flags: u8, wanted: Wanted) -> Row {
    let post = (":method", "POST");
    let first = [post, SCHEME, AUTHORITY, PATH];
    let mut frames = frame(HEADERS, END_HEADERS, 1, &block(&first));
    frames.extend(frame(DATA, 0, 1, b"hello"));
    frames.extend(frame(HEADERS, END_HEADERS | flags, 1, &block(fields)));
    Row {
        name,
        frames,
        wanted,
    }
}

fn is_first(seen: &Seen) -> bool {
    seen.target == "/first" && seen.all("host") == [HOST]
}

fn is_hello(seen: &Seen) -> bool {
    is_first(seen) && seen.body == b"hello"
}

async fn hold(rows: Vec<Row>) {
    let front = Front::start().await;
    front.serves("before").await;
    front.origin.take();
    let mut broken = Vec::new();
    for row in &rows {
        let mut connection = Connection::open(front.address).await;
        connection.send(&row.frames).await;
        let outcome = connection.outcome(1).await;
        // What was refused is not passed on later either: the connection's end is its last word.
        drop(connection);
        front.serves("meanwhile").await;
        let mut seen = front.origin.judged().unwrap_or_else(|bad| {
            broken.push(format!("{}: {bad}", row.name));
            Vec::new()
        });
        seen.retain(|seen| seen.target != "/well");
        // A request that the other side resets, or answers with an error of its own, is refused.
        let refused = outcome != Outcome::Answered(200) && seen.is_empty();
        let passed = |holds: fn(&Seen) -> bool| {
            outcome == Outcome::Answered(200) && matches!(&seen[..], [one] if holds(one))
        };
        let kept = match row.wanted {
            Wanted::Refused => refused,
            Wanted::Passed(holds) => passed(holds),
            Wanted::Either(holds) => refused || passed(holds),
            Wanted::Answered(status) => outcome == Outcome::Answered(status) && seen.is_empty(),
        };
        if !kept {
            broken.push(format!(
                "{}: {outcome:?}, the origin saw {seen:?}",
                row.name
            ));
        }
    }
    front.serves("after all of them").await;
    front.stop().await;
    assert!(
        broken.is_empty(),
        "{} break the law:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

#[tokio::test]
async fn pseudo_header_fields_are_complete_once_and_first() {
    let refused = || Wanted::Refused;
    hold(vec![
        head(
            "8.3.1 a request",
            &[METHOD, SCHEME, AUTHORITY, PATH],
            Wanted::Passed(is_first),
        ),
        head(
            "8.3 in another order",
            &[PATH, AUTHORITY, SCHEME, METHOD],
            Wanted::Passed(is_first),
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
            Wanted::Either(is_first),
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
            Wanted::Either(|seen| seen.target == "*"),
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
            Wanted::Either(is_first),
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
            Wanted::Either(is_first),
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
    let for_a = |seen: &Seen| {
        let hosts = seen.all("host");
        hosts.len() == 1 && hosts[0].to_ascii_lowercase().starts_with(HOST)
    };
    let refused = || Wanted::Refused;
    hold(vec![
        head(
            "8.3.1 with a port",
            &to("a.localhost:80"),
            Wanted::Passed(for_a),
        ),
        head(
            "RFC 9110 4.2.3 in capitals",
            &to("A.localhost"),
            Wanted::Passed(for_a),
        ),
        head("8.3.1 unknown", &to("b.localhost"), Wanted::Answered(404)),
        with(
            "8.3.1 host says the same",
            ("host", HOST),
            Wanted::Passed(is_first),
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
async fn fields_hold_nothing_that_http_1_would_read_otherwise() {
    let refused = || Wanted::Refused;
    hold(vec![
        with(
            "8.2.1 a field",
            ("x-a", "b"),
            Wanted::Passed(|seen| seen.all("x-a") == ["b"]),
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
            Wanted::Either(|seen| seen.all("x-a") == ["b"]),
        ),
        with(
            "8.2.1 space behind a value",
            ("x-a", "b "),
            Wanted::Either(|seen| seen.all("x-a") == ["b"]),
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
            Wanted::Passed(is_first),
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
            Wanted::Passed(|seen| seen.all("cookie") == ["a=1; b=2"]),
        ),
        with(
            "RFC 9110 10.1.1 Expect of the unknown",
            ("expect", "200-maybe"),
            Wanted::Either(is_first),
        ),
    ])
    .await;
}

#[tokio::test]
async fn content_length_is_the_length_of_the_data() {
    let refused = || Wanted::Refused;
    hold(vec![
        body("8.1.1 as said", "5", &["hello"], Wanted::Passed(is_hello)),
        body(
            "8.1.1 as said, in two frames",
            "5",
            &["he", "llo"],
            Wanted::Passed(is_hello),
        ),
        body("8.1.1 less than said", "6", &["hello"], refused()),
        body("8.1.1 more than said", "4", &["hello"], refused()),
        body(
            "8.1.1 more than said, in a frame of its own",
            "5",
            &["hello", "GET /smuggled HTTP/1.1\r\n\r\n"],
            refused(),
        ),
        body("8.1.1 zero said", "0", &["hello"], refused()),
        body("8.1.1 none of what was said", "5", &[], refused()),
        body("8.6 no number", "x", &["hello"], refused()),
        body("8.6 negative", "-5", &["hello"], refused()),
        body("8.6 plus", "+5", &["hello"], refused()),
        body("8.6 a list", "5, 5", &["hello"], refused()),
        body("8.6 empty", "", &["hello"], refused()),
        body(
            "8.6 2^64 + 5",
            "18446744073709551621",
            &["hello"],
            refused(),
        ),
        with(
            "8.1.1 said and the stream ends with the head",
            ("content-length", "5"),
            refused(),
        ),
        head(
            "8.6 twice, different",
            &[
                METHOD,
                SCHEME,
                AUTHORITY,
                PATH,
                ("content-length", "0"),
                ("content-length", "5"),
            ],
            refused(),
        ),
    ])
    .await;
}

/// A library that drops them from trailers, in place of refusing the request, passes nothing on: the
/// origin's parser would not take their names.
#[tokio::test]
async fn trailers_hold_no_pseudo_header_fields() {
    let refused = || Wanted::Refused;
    hold(vec![
        trailers(
            "8.1 trailers",
            &[("x-sum", "1")],
            END_STREAM,
            Wanted::Passed(is_hello),
        ),
        trailers(
            "8.1 :path among them",
            &[(":path", "/second")],
            END_STREAM,
            Wanted::Either(is_hello),
        ),
        trailers(
            "8.1 :authority among them",
            &[(":authority", "b.localhost")],
            END_STREAM,
            Wanted::Either(is_hello),
        ),
        trailers(
            "8.1 :status among them",
            &[(":status", "200")],
            END_STREAM,
            Wanted::Either(is_hello),
        ),
        trailers(
            "8.1 that do not end the stream",
            &[("x-sum", "1")],
            0,
            refused(),
        ),
        trailers(
            "8.2.1 a name in capitals",
            &[("X-Sum", "1")],
            END_STREAM,
            refused(),
        ),
        trailers(
            "8.2.2 Transfer-Encoding among them",
            &[("transfer-encoding", "chunked")],
            END_STREAM,
            Wanted::Either(is_hello),
        ),
        trailers(
            "RFC 9110 6.5.1 Content-Length among them",
            &[("content-length", "7")],
            END_STREAM,
            Wanted::Either(is_hello),
        ),
        trailers(
            "8.2.1 CR LF in a value",
            &[("x-sum", "1\r\nx: y")],
            END_STREAM,
            refused(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn frames_out_of_place_end_stream_or_connection() {
    let request = block(&[METHOD, SCHEME, AUTHORITY, PATH]);
    let ends = END_HEADERS | END_STREAM;
    let row = |name, frames: Vec<Vec<u8>>| Row {
        name,
        frames: frames.concat(),
        wanted: Wanted::Refused,
    };
    hold(vec![
        row(
            "5.1 DATA on an idle stream",
            vec![frame(DATA, END_STREAM, 1, b"hello")],
        ),
        row(
            "5.1.1 an even stream",
            vec![
                frame(HEADERS, ends, 2, &request),
                frame(HEADERS, ends, 1, &request),
            ],
        ),
        row(
            "6.2 HEADERS on stream 0",
            vec![frame(HEADERS, ends, 0, &request)],
        ),
        row("6.1 DATA on stream 0", vec![frame(DATA, 0, 0, b"hello")]),
        row(
            "6.10 CONTINUATION of nothing",
            vec![frame(CONTINUATION, END_HEADERS, 1, &request)],
        ),
        row(
            "6.2 a frame within a field block",
            vec![
                frame(HEADERS, END_STREAM, 1, &request),
                frame(DATA, 0, 3, b"x"),
            ],
        ),
        row(
            "8.4 PUSH_PROMISE from a client",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, &request)],
        ),
        row(
            "4.3 a field block that does not decode",
            vec![frame(HEADERS, ends, 1, b"\xff\xff\xff\xff\xff")],
        ),
        row(
            "RFC 7541 2.3.3 an index of nothing",
            vec![frame(HEADERS, ends, 1, b"\xbf")],
        ),
        row(
            "6.2 padding longer than the frame",
            vec![frame(HEADERS, ends | 8, 1, b"\xff\x82")],
        ),
        row(
            "4.2 a frame larger than allowed",
            vec![frame(HEADERS, ends, 1, &vec![0; 20_000])],
        ),
    ])
    .await;
}
