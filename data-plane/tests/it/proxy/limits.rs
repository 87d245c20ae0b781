//! Client limits that `hostile` does not cover.

use super::{HOST, Stage, get};

#[tokio::test]
async fn heads_are_limited_in_fields_and_bytes() {
    let choose = |options: &mut cless_data_plane::Options| {
        options.proxy.max_headers = 20;
        options.proxy.max_header_bytes = 8192;
    };
    let stage = Stage::choosing(choose).await;
    let many: String = (0..30).map(|at| format!("x-{at}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(9000));
    for fields in [many, long] {
        stage.client(get("/", &fields)).await.answered(431).await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let choose = |options: &mut cless_data_plane::Options| options.proxy.max_connections_per_ip = 2;
    let stage = Stage::choosing(choose).await;
    let unknown = "GET / HTTP/1.1\r\nHost: unknown.localhost\r\n\r\n";
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = stage.client(unknown).await;
        assert!(client.head().await.starts_with("http/1.1 404"));
        kept.push(client);
    }
    let mut refused = stage.client("").await;
    assert_eq!(refused.rest().await, "");
    let metrics = stage.metrics().await;
    assert!(
        metrics.contains("reason=\"max_connections_per_ip\"} 1"),
        "{metrics}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn idle_connections_and_slow_heads_have_separate_timeouts() {
    let choose = |options: &mut cless_data_plane::Options| {
        options.proxy.idle_timeout = 4;
        options.proxy.head_timeout = 1;
    };
    let stage = Stage::choosing(choose).await;
    let unknown = "GET / HTTP/1.1\r\nHost: unknown.localhost\r\n\r\n";
    let mut idle = stage.client(unknown).await;
    idle.until("request id").await;
    let mut slow = stage
        .client(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n"))
        .await;
    assert!(slow.rest().await.starts_with("HTTP/1.1 408 "));
    // The head timeout has expired, the idle timeout has not.
    idle.send(unknown).await;
    idle.until("request id").await;
    let _ = idle.rest().await;
    let metrics = stage.metrics().await;
    assert!(metrics.contains("reason=\"slow_head\"} 1"), "{metrics}");
    assert!(metrics.contains("reason=\"idle\"} 1"), "{metrics}");
    stage.stop().await;
}
