//! Responses of cless on a known route carry service and version in metrics, access log and spans;
//! and the formats of a scrape.

use cless_data_plane::Options;
use cless_data_plane::proxy::options::AccessLog;
use cless_data_plane::runtime::fake::Script;
use cless_proto::v1 as pb;

use super::{HOST, Stage, answers_ok, get};

/// A service whose instances exit at their start.
async fn failing(file: &std::path::Path, shape: impl FnOnce(&mut pb::Route)) -> Stage {
    let to = file.to_owned();
    let choose = move |options: &mut Options| {
        options.proxy.access_log = AccessLog::Json;
        options.proxy.access_log_file = Some(to);
    };
    Stage::with(shape, choose).await
}

fn has_line(metrics: &str, line: &str) {
    assert!(
        metrics.lines().any(|one| one == line),
        "{line} in {metrics}"
    );
}

fn count_of(status: u16, version: &str) -> String {
    format!(
        "http_server_request_duration_seconds_count{{service=\"a\",version=\"{version}\",http_response_status_code=\"{status}\"}} 1"
    )
}

#[tokio::test]
async fn a_version_that_cannot_start_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let stage = failing(&file, |_| ()).await;
    stage.engine.script(Script::Exits(3));
    for reason in ["start_failed", "backing_off"] {
        let mut client = stage.client(get("/", "")).await;
        client.answered(503).await;
        let line =
            format!("cless_rejects_total{{reason=\"{reason}\",service=\"a\",version=\"1\"}} 1");
        has_line(&stage.metrics().await, &line);
    }
    let metrics = stage.metrics().await;
    let two = count_of(503, "1").replace(" 1", " 2");
    has_line(&metrics, &two);
    has_line(
        &metrics,
        "cless_rejects_total{reason=\"queue_full\",service=\"a\",version=\"1\"} 0",
    );
    stage.stop().await;
    let lines = std::fs::read_to_string(&file).expect("the log is there");
    for reason in ["start_failed", "backing_off"] {
        // The workers write in any order.
        let mut named = lines.lines().filter(|line| line.contains(reason));
        let line = named.next().expect("it is logged");
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            (&line["service"], &line["version"]),
            (&"a".into(), &1.into())
        );
        assert_eq!(
            (&line["reason"], &line["status"]),
            (&reason.into(), &503.into())
        );
        assert!(
            line["bytes"].as_u64().is_some_and(|bytes| bytes > 0),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_full_queue_and_a_timeout_name_the_version() {
    let shape = |route: &mut pb::Route| {
        if let Some(settings) = &mut route.settings {
            settings.queue_limit = Some(1);
            settings.cold_start_timeout = Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            });
        }
    };
    let folder = tempfile::tempdir().expect("a folder");
    let stage = failing(&folder.path().join("access.log"), shape).await;
    stage.engine.starts_take(std::time::Duration::from_secs(3));
    let mut first = stage.client(get("/", "")).await;
    stage
        .until_measured("cless_queue_depth{service=\"a\",version=\"1\"} 1")
        .await;
    stage.client(get("/", "")).await.answered(503).await;
    first.answered(504).await;
    let metrics = stage.metrics().await;
    for reason in ["queue_full", "queue_timeout"] {
        let line =
            format!("cless_rejects_total{{reason=\"{reason}\",service=\"a\",version=\"1\"}} 1");
        has_line(&metrics, &line);
    }
    has_line(&metrics, &count_of(503, "1"));
    has_line(&metrics, &count_of(504, "1"));
    stage.stop().await;
}

#[tokio::test]
async fn a_response_before_the_choice_of_a_version_names_the_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let shape = |route: &mut pb::Route| {
        route.slots = Vec::new();
    };
    let stage = failing(&file, shape).await;
    let requests = [
        (503, "no_traffic", get("/", "")),
        (405, "method", get("/", "").replace("GET", "TRACE")),
        (417, "expectation", get("/", "Expect: x\r\n")),
        (
            400,
            "ambiguous",
            get("/", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        ),
    ];
    for (status, reason, request) in &requests {
        stage.client(request).await.answered(*status).await;
        let metrics = stage.metrics().await;
        let line =
            format!("cless_rejects_total{{reason=\"{reason}\",service=\"a\",version=\"\"}} 1");
        has_line(&metrics, &line);
        has_line(&metrics, &count_of(*status, ""));
    }
    stage.stop().await;
    let lines = std::fs::read_to_string(&file).expect("the log is there");
    assert_eq!(
        lines.matches("\"service\":\"a\"").count(),
        requests.len(),
        "{lines}"
    );
}

#[tokio::test]
async fn bytes_of_bodies_are_counted_by_version() {
    let mut stage = Stage::start().await;
    let request = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello");
    let (mut client, mut instance, _) = stage.asked(request).await;
    instance.until("hello").await;
    answers_ok(&mut instance, &mut client).await;
    stage
        .until_measured("cless_response_bytes_total{service=\"a\",version=\"1\"} 2")
        .await;
    stage
        .until_measured("cless_request_bytes_total{service=\"a\",version=\"1\"} 5")
        .await;
    // In both directions of a tunnel.
    let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n";
    client.send(get("/", upgrade)).await;
    instance.head().await;
    let switch = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    instance.send(switch.to_owned() + "abc").await;
    client.until("abc").await;
    client.send("defg").await;
    instance.until("defg").await;
    drop(client);
    drop(instance);
    stage
        .until_measured("cless_response_bytes_total{service=\"a\",version=\"1\"} 5")
        .await;
    stage
        .until_measured("cless_request_bytes_total{service=\"a\",version=\"1\"} 9")
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn a_scrape_is_in_the_accepted_format() {
    let stage = Stage::start().await;
    let text = stage.scrape("").await;
    assert!(
        text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{text}"
    );
    assert!(
        text.contains("# TYPE cless_rejects_total counter\n"),
        "{text}"
    );
    let open =
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";
    let open = stage.scrape(open).await;
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(open.contains(kind), "{open}");
    assert!(
        open.contains("# TYPE cless_rejects counter\n") && open.ends_with("# EOF\n"),
        "{open}"
    );
    for scrape in [&text, &open] {
        let build = format!(
            "cless_build_info{{version=\"{}\"",
            env!("CARGO_PKG_VERSION")
        );
        assert!(scrape.contains(&build), "{scrape}");
    }
    stage.stop().await;
}
