//! Requests without a parsed head: their responses have what every response of cless has, and they
//! are logged and counted.

use bytes::Bytes;
use cless_data_plane::Options;
use cless_data_plane::proxy::options::AccessLog;
use http::Request;
use rustls::version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::tls::{certify, shake, with_folder};
use super::{HOST, OK, Stage, answers_ok, get};
use crate::feed::plane::within;

/// Malformed requests, and the status and reason of each.
fn requests() -> Vec<(u16, &'static str, String)> {
    let fields: String = (0..120).map(|at| format!("x-{at}: 1\r\n")).collect();
    vec![
        (400, "bad_request", "\x01\r\n\r\n".to_owned()),
        (400, "bad_request", "GET / HTTP/3.0\r\n\r\n".to_owned()),
        (400, "bad_request", get("/", "x\0: 1\r\n")),
        (400, "bad_request", get("/", "x y: 1\r\n")),
        (400, "ambiguous", get("/", "no colon\r\n")),
        (431, "head_too_large", get("/", &fields)),
        (
            431,
            "head_too_large",
            get("/", &format!("x: {}\r\n", "y".repeat(100_000))),
        ),
        (
            414,
            "target_too_long",
            get(&format!("/{}", "y".repeat(65_535)), ""),
        ),
    ]
}

fn logs_to(file: &std::path::Path) -> impl FnOnce(&mut Options) + use<> {
    let file = file.to_owned();
    move |options| {
        options.proxy.access_log = AccessLog::Json;
        options.proxy.access_log_file = Some(file);
        // Above the limit of a target.
        options.proxy.max_header_bytes = 90_000;
        options.proxy.head_timeout = 1;
    }
}

/// Checks a response of cless; returns its request id.
fn check(response: &str, status: u16) -> String {
    let (head, body) = response.split_once("\r\n\r\n").expect("a whole head");
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let field = |name: &str| {
        let mut lines = head.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found
            .unwrap_or_else(|| panic!("no {name} in {head}"))
            .to_owned()
    };
    assert!(field("proxy-status").starts_with("cless; error=http_request_error; details="));
    assert_eq!(field("connection"), "close");
    assert_eq!(field("content-length"), body.len().to_string());
    assert!(!field("date").is_empty());
    let id = field("x-request-id");
    assert!(
        id.len() == 32 && body.ends_with(&format!("request id: {id}\n")),
        "{body}"
    );
    id
}

fn logged(file: &std::path::Path) -> Vec<serde_json::Value> {
    let lines = std::fs::read_to_string(file).expect("the log is there");
    let parsed = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    parsed.collect()
}

#[tokio::test]
async fn each_response_has_an_id_and_a_proxy_status_and_is_logged_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let mut stage = Stage::choosing(logs_to(&file)).await;
    let mut expected = Vec::new();
    for (status, reason, request) in requests() {
        let mut client = stage.client(request).await;
        expected.push((check(&client.rest().await, status), status, reason));
    }
    // Behind a response on the same connection, whose end is not cut.
    let (status, reason, bad) = requests().remove(0);
    let (mut client, mut instance, _) = stage.asked(get("/", "") + &bad).await;
    instance.send(OK).await;
    client.until("\r\n\r\nok").await;
    expected.push((check(&client.rest().await, status), status, reason));
    // The head is incomplete.
    let mut client = stage.client("GET / HTTP/1.1\r\nHost: ").await;
    expected.push((check(&client.rest().await, 408), 408, "slow_head"));

    let metrics = stage.metrics().await;
    for (_, status, reason) in &expected {
        let same = |other: &&(String, u16, &str)| other.2 == *reason;
        let count = expected.iter().filter(same).count();
        let line =
            format!("cless_rejects_total{{reason=\"{reason}\",service=\"\",version=\"\"}} {count}");
        assert!(
            metrics.lines().any(|one| one == line),
            "{line} in {metrics}"
        );
        let count = expected.iter().filter(|other| other.1 == *status).count();
        let line = format!(
            "http_server_request_duration_seconds_count{{service=\"\",version=\"\",http_response_status_code=\"{status}\"}} {count}"
        );
        assert!(
            metrics.lines().any(|one| one == line),
            "{line} in {metrics}"
        );
    }
    stage.stop().await;
    let lines = logged(&file);
    assert_eq!(lines.len(), expected.len() + 1, "{lines:?}");
    for (id, status, reason) in expected {
        let mut matching = lines.iter().filter(|line| line["request_id"] == *id);
        let line = matching.next().expect("it is logged");
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&status.into(), &reason.into())
        );
        assert_eq!((&line["method"], &line["path"]), (&"-".into(), &"-".into()));
        assert_eq!(line["client"], "127.0.0.1");
        assert!(line["bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    }
}

#[tokio::test]
async fn the_same_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = certify(folder.path(), "a", &[HOST]);
    let file = folder.path().join("access.log");
    let choose = |options: &mut Options| {
        with_folder(folder.path(), false)(options);
        logs_to(&file)(options);
    };
    let stage = Stage::choosing(choose).await;
    let address = stage.tls.expect("it listens");
    let mut expected = Vec::new();
    for (status, _, request) in requests() {
        let shaken = shake(address, HOST, &[&root], &[b"http/1.1"], &version::TLS13).await;
        let mut stream = shaken.expect("TLS");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it is taken");
        let mut read = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut read)).await;
        expected.push(check(&String::from_utf8(read).expect("text"), status));
    }
    stage.stop().await;
    let lines = logged(&file);
    for id in expected {
        assert!(
            lines
                .iter()
                .any(|line| line["request_id"] == *id && line["scheme"] == "https")
        );
    }
}

/// Bytes of a body that look like hyper's own response are passed on.
#[tokio::test]
async fn a_body_is_never_taken_for_a_response_of_the_parser() {
    let mut stage = Stage::start().await;
    let imitated = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    for _ in 0..3 {
        let length = imitated.len() * 2;
        instance
            .send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
            ))
            .await;
        client.answered(200).await;
        for _ in 0..2 {
            // In a write of its own.
            instance.send(imitated).await;
            assert_eq!(client.until("\r\n\r\n").await, imitated);
        }
        client.send(get("/", "")).await;
        instance.head().await;
        let chunk = format!("{:x}\r\n{imitated}\r\n", imitated.len());
        instance
            .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        client.answered(200).await;
        instance.send(chunk).await;
        assert!(client.until("\r\n\r\n\r\n").await.contains(imitated));
        instance.send("0\r\n\r\n").await;
        client.until("0\r\n\r\n").await;
        client.send(get("/", "")).await;
        instance.head().await;
    }
    answers_ok(&mut instance, &mut client).await;
    stage.stop().await;
}

/// An interim response that is written after the response is known.
#[tokio::test]
async fn a_response_behind_an_interim_one_is_passed_on() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    let both = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    for _ in 0..3 {
        instance.send(both).await;
        client.answered(103).await;
        let head = client.answered(404).await;
        assert!(!head.contains("proxy-status"), "{head}");
        client.send(get("/", "")).await;
        instance.head().await;
    }
    answers_ok(&mut instance, &mut client).await;
    stage.stop().await;
}

/// RFC 9113 section 6.5.2: a head that the limit refuses.
#[tokio::test]
async fn a_head_that_is_too_large_over_http2_is_answered_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let stage = Stage::choosing(logs_to(&file)).await;
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let shaken = within("a handshake", h2::client::handshake(stream)).await;
    let (mut client, connection): (h2::client::SendRequest<Bytes>, _) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    let mut ids = Vec::new();
    for length in [90_000, 200_000] {
        let request = Request::get(format!("http://{HOST}/"));
        let request = request.header("x", "y".repeat(length)).body(());
        let sent = client.send_request(request.expect("a request"), true);
        let response = within("a response", sent.expect("it is taken").0).await;
        let response = response.expect("a response");
        assert_eq!(response.status(), 431);
        let fields = response.headers();
        let status = fields["proxy-status"].to_str().expect("text");
        assert!(
            status.starts_with("cless; error=http_request_error"),
            "{status}"
        );
        ids.push(fields["x-request-id"].to_str().expect("text").to_owned());
    }
    let line = "cless_rejects_total{reason=\"head_too_large\",service=\"a\",version=\"\"} 2";
    let metrics = stage.metrics().await;
    assert!(
        metrics.lines().any(|one| one == line),
        "{line} in {metrics}"
    );
    drop(client);
    stage.stop().await;
    let lines = logged(&file);
    for id in ids {
        assert!(
            lines
                .iter()
                .any(|line| line["request_id"] == *id && line["status"] == 431)
        );
    }
}
