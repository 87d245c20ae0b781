//! Access log and metrics of a request.

use cless_data_plane::Options;
use cless_data_plane::proxy::options::AccessLog;

use super::{Stage, answers_ok, get};

#[tokio::test]
async fn each_request_is_logged_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let to = file.clone();
    let choose = move |options: &mut Options| {
        options.proxy.access_log = AccessLog::Json;
        options.proxy.access_log_file = Some(to);
    };
    let mut stage = Stage::choosing(choose).await;
    let (mut client, mut instance, _) =
        stage.asked(get("/a?b", "User-Agent: test \"x\"\r\n")).await;
    answers_ok(&mut instance, &mut client).await;
    client
        .send("GET /c HTTP/1.1\r\nHost: unknown.localhost\r\n\r\n")
        .await;
    client.until("request id").await;
    let metrics = stage.metrics().await;
    for wanted in [
        "http_server_request_duration_seconds_count{service=\"a\",version=\"1\",http_response_status_code=\"200\"} 1",
        "cless_rejects_total{reason=\"unknown_host\"} 1",
        "http_server_open_connections 1",
        "http_server_active_requests 0",
    ] {
        assert!(metrics.contains(wanted), "{wanted} in {metrics}");
    }
    drop(client);
    stage.stop().await;
    let lines = std::fs::read_to_string(file).expect("the log is there");
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let [first, second] = [&lines[0], &lines[1]];
    assert_eq!(first["path"], "/a?b");
    assert_eq!(first["status"], 200);
    assert_eq!(first["bytes"], 2);
    assert_eq!(
        (&first["service"], &first["version"]),
        (&"a".into(), &1.into())
    );
    assert!(
        first["cold_start_ms"].is_number(),
        "the cold start is logged: {first}"
    );
    assert_eq!(first["user_agent"], "test \"x\"");
    assert_eq!(second["reason"], "unknown_host");
    assert_eq!(second["status"], 404);
}
