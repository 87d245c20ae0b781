use super::*;
use http::Request;

fn logged() -> LoggedRequest {
    let request = Request::get("/a\"b?c=d")
        .header("host", "hello.localhost")
        .header(
            "user-agent",
            HeaderValue::from_bytes(b"evil\\\" \xff").unwrap(),
        )
        .body(())
        .unwrap();
    LoggedRequest::new(
        request.method(),
        request.uri(),
        Version::HTTP_11,
        request.headers(),
        None,
    )
}

fn line(format: AccessLog) -> String {
    let (queue, buffers) = sync_channel(1);
    let sink = AccessLogSink {
        format,
        queue,
        dropped: Counter::default(),
    };
    let request = logged();
    let mut buffer = AccessLogBuffer::new(sink);
    let record = AccessRecord {
        request: &request,
        peer: &HeaderValue::from_static("192.0.2.1"),
        scheme: "https",
        id: &HeaderValue::from_static("abc"),
        service: Some(&"hello".into()),
        version: Some(3),
        status: 200,
        bytes: 12,
        took: Duration::from_micros(1500),
        waited: Some(Duration::from_millis(250)),
        reason: "",
    };
    buffer.add(
        &record,
        UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
    );
    drop(buffer);
    String::from_utf8(buffers.recv().unwrap()).unwrap()
}

#[test]
fn a_line_is_json_for_any_input_of_a_client() {
    let line = line(AccessLog::Json);
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read["time"], "2024-02-29T12:34:56.789Z");
    assert_eq!(read["path"], "/a\"b?c=d");
    assert_eq!(read["user_agent"], "evil\\\" \u{ff}");
    assert_eq!(read["version"], 3);
    assert_eq!(read["cold_start_ms"], 250.0);
    assert_eq!(read["duration_ms"], 1.5);
    assert_eq!(line.matches('\n').count(), 1);
}

#[test]
fn the_combined_format_extends_that_of_apache() {
    assert_eq!(
        line(AccessLog::Combined),
        "192.0.2.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a\\\"b?c=d HTTP/1.1\" 200 12 \"-\" \
         \"evil\\\\\\\" \\u00ff\" hello v3 0.001500 250.0 -\n"
    );
}

#[test]
fn a_slow_writer_costs_lines_and_no_time() {
    let (queue, _buffers) = sync_channel(1);
    let dropped = Counter::<u64>::default();
    let sink = AccessLogSink {
        format: AccessLog::Json,
        queue,
        dropped: dropped.clone(),
    };
    for _ in 0..3 {
        let mut buffer = AccessLogBuffer::new(sink.clone());
        buffer.buffer.extend_from_slice(b"a\nb\n");
    }
    assert_eq!(dropped.get(), 4);
}
