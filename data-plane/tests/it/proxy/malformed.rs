//! Responses that violate HTTP are told apart from instances that end the connection or are late:
//! to the client, in the metrics, in the log, and in the version's status.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use cless_proto::v1 as pb;
use http::Request;
use pb::start_failure::Reason;
use pb::version_spec::Protocol;
use tokio::net::TcpStream;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::{HOST, Stage, Wire, get, spoken};
use crate::feed::plane::within;
use crate::raw::frames::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, block, frame};

/// A warning as `NAME=VALUE` pairs.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

/// Collects the warnings of this process.
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The warnings of this process from now on, those of other tests included.
fn warnings() -> Arc<Mutex<Vec<String>>> {
    static ALL: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let all = Arc::default();
        let set = tracing::subscriber::set_global_default(Warnings(Arc::clone(&all)));
        set.expect("no other subscriber");
        all
    });
    all.clone()
}

/// The value of a field in a head in lower case.
fn value<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {head}"))
}

/// Sends a POST, which is not repeated, and has the instance send `answer`.
async fn answered(stage: &mut Stage, answer: &[u8], ends: bool) -> String {
    let request = get("/", "Content-Length: 0\r\n").replace("GET", "POST");
    let (mut client, mut instance, _) = stage.asked(request).await;
    instance.send(answer).await;
    let kept = (!ends).then_some(instance);
    let head = client.head().await;
    drop(kept);
    head
}

async fn rejected(stage: &Stage, reason: &str) -> u64 {
    let name = format!("cless_rejects_total{{reason=\"{reason}\",service=\"a\",version=\"1\"}} ");
    let metrics = stage.metrics().await;
    let mut counts = metrics.lines().filter_map(|line| line.strip_prefix(&name));
    counts
        .next()
        .expect("it starts at 0")
        .parse()
        .expect("a number")
}

/// Waits for a report whose version has a failure with this text, and returns its reason.
async fn reported(stage: &mut Stage, text: &str) -> Reason {
    loop {
        let report = stage.feed.0.report().await;
        let failures = report
            .versions
            .iter()
            .filter_map(|one| one.last_failure.as_ref());
        let mut found = failures.filter(|failure| failure.message.contains(text));
        if let Some(failure) = found.next() {
            return failure.reason();
        }
    }
}

#[tokio::test]
async fn rfc_9209_section_2_3_11_a_malformed_response_is_a_protocol_error() {
    let warnings = warnings();
    let mut stage = Stage::start().await;
    let many = "x: 1\r\n".repeat(300);
    let rows: Vec<(&str, String)> = [
        (
            "transfer-encoding occurs twice",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ),
        (
            "transfer-encoding is not chunked alone",
            "transfer-encoding: gzip\r\n",
        ),
        (
            "are both present",
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
        ),
        (
            "content-length has different values",
            "content-length: 1\r\ncontent-length: 2\r\n",
        ),
        ("content-length is not a number", "content-length: x\r\n"),
        (
            "a field value contains a control byte",
            "x-well: a\r\nx-nul: a\0b\r\n",
        ),
        ("a field name is no token", "x y: 1\r\n"),
        ("a field name is no token", " folded: 1\r\n"),
        ("it has too many fields", &many),
    ]
    .map(|(cause, fields)| (cause, format!("HTTP/1.1 200 OK\r\n{fields}\r\n")))
    .into_iter()
    .chain(
        [
            (
                "101 without a request for it",
                "HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            ),
            ("the status line is malformed", "HTTP/1.1 OK\r\n\r\n"),
            // Another protocol is noticed before its connection ends.
            ("the response is not http/1", "SSH-2.0-OpenSSH\r\n"),
            ("the response is not http/1", "\x15\x03\x03\0\x02\x02\x46"),
        ]
        .map(|(cause, answer)| (cause, answer.to_owned())),
    )
    .collect();
    let mut ids = Vec::new();
    for (cause, answer) in &rows {
        let head = answered(&mut stage, answer.as_bytes(), false).await;
        assert!(head.starts_with("http/1.1 502"), "{answer:?}: {head}");
        let status = value(&head, "proxy-status");
        assert!(
            status.starts_with("cless; error=http_protocol_error; details=\"")
                && status.contains(cause),
            "{answer:?}: {status}"
        );
        ids.push(value(&head, "x-request-id").to_owned());
    }
    assert_eq!(
        rejected(&stage, "malformed_response").await,
        rows.len() as u64
    );
    assert_eq!(rejected(&stage, "broken").await, 0);
    // At most once a minute, with the field.
    let lines = warnings.lock().expect("no panic").clone();
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| ids.iter().any(|id| line.contains(id)))
        .collect();
    let [line] = &lines[..] else {
        panic!("one warning, not {lines:?}")
    };
    for part in [
        "cause=\"Transfer-Encoding occurs twice\"",
        "field=\"transfer-encoding\"",
        "service=\"a\"",
        "version=1",
        "suppressed=0",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let reason = reported(&mut stage, "Transfer-Encoding occurs twice (field").await;
    assert_eq!(reason, Reason::MalformedResponse);
    stage.stop().await;
}

#[tokio::test]
async fn the_end_of_a_connection_and_a_timeout_are_told_apart() {
    let late = |route: &mut pb::Route| {
        let timeout = prost_types::Duration {
            seconds: 1,
            nanos: 0,
        };
        if let Some(settings) = &mut route.settings {
            settings.request_timeout = Some(timeout);
        }
    };
    let mut stage = Stage::with(late, |_| ()).await;
    let head = answered(&mut stage, b"", true).await;
    assert!(
        value(&head, "proxy-status").contains("error=connection_terminated"),
        "{head}"
    );
    let head = answered(&mut stage, b"HTTP/1.1 200 OK\r\ncontent-le", true).await;
    assert!(
        value(&head, "proxy-status").contains("error=connection_terminated"),
        "{head}"
    );
    let head = answered(&mut stage, b"HTTP/1.1 200 OK\r\ncontent-le", false).await;
    assert!(
        value(&head, "proxy-status").contains("error=http_response_timeout"),
        "{head}"
    );
    let counts = [("broken", 2), ("late", 1), ("malformed_response", 0)];
    for (reason, count) in counts {
        assert_eq!(rejected(&stage, reason).await, count, "{reason}");
    }
    stage.stop().await;
}

/// The head is on its way, so only log, metrics and status can tell.
#[tokio::test]
async fn a_malformed_body_is_told_as_well() {
    let mut stage = Stage::start().await;
    let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n";
    let head = answered(&mut stage, answer, false).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let line = "cless_rejects_total{reason=\"malformed_response\",service=\"a\",version=\"1\"} 1";
    stage.until_measured(line).await;
    let reason = reported(&mut stage, "a chunk is malformed").await;
    assert_eq!(reason, Reason::MalformedResponse);
    stage.stop().await;
}

#[tokio::test]
async fn the_same_to_an_http2_client() {
    let mut stage = Stage::start().await;
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let shaken = within("a handshake", h2::client::handshake(stream)).await;
    let (mut client, connection): (h2::client::SendRequest<Bytes>, _) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n";
    let twice = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n";
    for (answer, status) in [(twice, 502), (chunk, 200)] {
        let request = Request::post(format!("http://{HOST}/")).body(());
        let sent = client.send_request(request.expect("a request"), true);
        let (mut instance, _) = stage.instance().await;
        instance.send(answer).await;
        let response = within("a response", sent.expect("it is taken").0).await;
        let response = response.expect("a response");
        assert_eq!(response.status(), status);
        let told = response
            .headers()
            .get("proxy-status")
            .map(|value| value.to_str());
        let told = told.map(|text| text.expect("text").contains("error=http_protocol_error"));
        assert_eq!(told, (status == 502).then_some(true));
        let mut body = response.into_body();
        let broken = async {
            loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return true,
                    None => return false,
                }
            }
        };
        assert_eq!(within("an end", broken).await, status == 200);
    }
    let line = "cless_rejects_total{reason=\"malformed_response\",service=\"a\",version=\"1\"} 2";
    stage.until_measured(line).await;
    stage.stop().await;
}

/// The frames of an instance: before its first stream, and in response to it.
fn h2_answers() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let head =
        |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
    let frames = |more: Vec<u8>| vec![settings.clone(), more];
    vec![
        (
            "another protocol",
            vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
        ),
        ("no status", frames(head(&[("x", "1")]))),
        (
            "a field of one hop",
            frames(head(&[(":status", "200"), ("connection", "close")])),
        ),
        (
            "an invalid length",
            frames(head(&[(":status", "200"), ("content-length", "x")])),
        ),
        ("101", frames(head(&[(":status", "101")]))),
        (
            "not HPACK",
            frames(frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 9])),
        ),
        (
            "a push",
            frames(frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x88])),
        ),
    ]
}

#[tokio::test]
async fn rfc_9113_section_5_4_malformed_frames_are_a_protocol_error() {
    let mut stage = Stage::with(spoken(Protocol::H2c), |_| ()).await;
    for (count, (name, answer)) in h2_answers().into_iter().enumerate() {
        // Idempotent, yet it is answered and not repeated.
        let mut client = stage.client(get("/", "")).await;
        let mut instance = h2_instance(&mut stage).await;
        for part in answer {
            instance.send(&part).await;
            // The request is sent once the settings are known.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 502"), "{name}: {head}");
        let status = value(&head, "proxy-status");
        assert!(
            status.contains("error=http_protocol_error"),
            "{name}: {status}"
        );
        let counted = rejected(&stage, "malformed_response").await;
        assert_eq!(counted, count as u64 + 1, "{name}");
        // A connection that is still open would carry the next request on another stream.
        drop(instance);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let mut client = stage.client(get("/", "").replace("GET", "POST")).await;
    drop(h2_instance(&mut stage).await);
    let head = client.head().await;
    assert!(
        value(&head, "proxy-status").contains("error=connection_terminated"),
        "{head}"
    );
    stage.stop().await;
}

/// The next connection to the instance on which a head arrived.
async fn h2_instance(stage: &mut Stage) -> Wire {
    loop {
        let stream = within("a connection", stage.visitors.recv()).await;
        let mut wire = Wire::of(stream.expect("the engine lives"));
        // The preface, and the path of the request behind it.
        if wire.maybe_until("SM\r\n\r\n").await.is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            return wire;
        }
    }
}
