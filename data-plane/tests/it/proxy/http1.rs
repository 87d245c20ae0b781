//! HTTP/1.1 with clients and instances.

use super::{HOST, Stage, Wire, answers_ok, get};
use crate::feed::plane::within;

#[tokio::test]
async fn rfc_9112_section_9_3_2_pipelined_requests_are_answered_in_order() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, head) = stage
        .asked(format!("{}{}", get("/1", ""), get("/2", "")))
        .await;
    assert!(head.starts_with("get /1 "), "{head}");
    instance
        .send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none")
        .await;
    assert!(client.until("one").await.starts_with("HTTP/1.1 200"));
    // Kept alive on both sides.
    assert!(instance.head().await.starts_with("get /2 "));
    instance
        .send("HTTP/1.1 201 Created\r\ncontent-length: 3\r\n\r\ntwo")
        .await;
    assert!(client.until("two").await.starts_with("HTTP/1.1 201"));
    stage.stop().await;
}

/// The head of a request that expects 100 before its body of four bytes.
fn expecting() -> String {
    format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
}

/// The client receives 100 Continue, and the request proceeds normally.
async fn sends_the_body(stage: Stage, mut client: Wire, mut instance: Wire) {
    let asked = client.until("\r\n\r\n").await;
    assert_eq!(asked, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    instance.until("body").await;
    answers_ok(&mut instance, &mut client).await;
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_10_1_1_the_instances_100_is_forwarded() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, head) = stage.asked(expecting()).await;
    assert!(head.contains("expect: 100-continue\r\n"), "{head}");
    client.is_quiet().await;
    instance.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    sends_the_body(stage, client, instance).await;
}

#[tokio::test]
async fn rfc_9110_section_10_1_1_a_final_response_replaces_100() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(expecting()).await;
    instance
        .send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert!(client.head().await.starts_with("http/1.1 401"));
    // The withheld body is not waited for.
    assert_eq!(instance.rest().await, "");
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_10_1_1_an_instance_without_100_receives_the_body() {
    let mut stage = Stage::start().await;
    let (client, instance, _) = stage.asked(expecting()).await;
    sends_the_body(stage, client, instance).await;
}

#[tokio::test]
async fn rfc_9110_section_10_1_1_no_100_is_sent_without_an_instance() {
    let mut stage = Stage::start().await;
    // The instance is missing, or closes the connection.
    let unknown = expecting().replace(HOST, "unknown.localhost");
    stage.client(unknown).await.answered(404).await;
    let (mut client, instance, _) = stage.asked(expecting()).await;
    client.is_quiet().await;
    drop(instance);
    client.answered(502).await;
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_15_5_18_another_expectation_is_refused() {
    let stage = Stage::start().await;
    let mut client = stage.client(get("/", "Expect: miracles\r\n")).await;
    assert!(client.head().await.starts_with("http/1.1 417"));
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9112_section_8_a_truncated_response_is_never_complete() {
    let mut stage = Stage::start().await;
    for (head, part) in [
        ("content-length: 10\r\n", "part"),
        ("transfer-encoding: chunked\r\n", "4\r\npart\r\n"),
    ] {
        let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
        instance
            .send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{part}"))
            .await;
        client.until("part").await;
        drop(instance);
        let rest = client.rest().await;
        assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
        assert!(rest.len() < 6, "{rest:?}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9112_section_6_3_a_response_with_two_lengths_becomes_502() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    let both = "content-length: 2\r\ntransfer-encoding: chunked\r\n";
    instance
        .send(format!("HTTP/1.1 200 OK\r\n{both}\r\n2\r\nok\r\n0\r\n\r\n"))
        .await;
    client.answered(502).await;
    stage.stop().await;
}

/// RFC 9112 section 9.5: a client that aborts.
#[tokio::test]
async fn a_disconnected_client_cancels_the_request() {
    let mut stage = Stage::start().await;
    // Before the response.
    let (client, mut instance, _) = stage.asked(get("/", "")).await;
    drop(client);
    assert_eq!(instance.rest().await, "");
    // During the response.
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    instance
        .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n")
        .await;
    client.until("part").await;
    drop(client);
    within("the instance sees it", async {
        use tokio::io::AsyncWriteExt as _;
        while instance.stream.write_all(b"4\r\nmore\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9112_section_9_5_an_early_response_ends_the_upload() {
    let mut stage = Stage::start().await;
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\nbegin");
    let (mut client, mut instance, _) = stage.asked(&head).await;
    instance.until("begin").await;
    instance
        .send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        .await;
    assert!(client.until("big").await.starts_with("HTTP/1.1 413"));
    // Neither connection is reused.
    instance.rest().await;
    client.rest().await;
    stage.stop().await;
}

#[tokio::test]
async fn events_are_not_buffered() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) =
        stage.asked(get("/", "Accept: text/event-stream\r\n")).await;
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    instance.send(head).await;
    client.head().await;
    for event in ["data: 1", "data: 2"] {
        instance.send(format!("9\r\n{event}\n\n\r\n")).await;
        client.until(event).await;
    }
    instance.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9112_section_6_3_head_204_and_304_have_no_body() {
    let mut stage = Stage::start().await;
    let head = format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let (mut client, mut instance, _) = stage.asked(&head).await;
    instance
        .send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")
        .await;
    assert!(client.head().await.contains("content-length: 1234\r\n"));
    for status in ["204 No Content", "304 Not Modified"] {
        client.send(get("/", "")).await;
        instance.head().await;
        instance
            .send(format!("HTTP/1.1 {status}\r\netag: \"a\"\r\n\r\n"))
            .await;
        let head = client.head().await;
        assert!(
            head.starts_with(&format!("http/1.1 {}", status.to_ascii_lowercase())),
            "{head}"
        );
        assert!(!head.contains("transfer-encoding"), "{head}");
        client.is_quiet().await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_6_5_trailers_pass_both_ways() {
    let mut stage = Stage::start().await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: te\r\nTrailer: x-sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    );
    let (mut client, mut instance, head) = stage.asked(&head).await;
    assert!(head.contains("te: trailers\r\n"), "{head}");
    let body = instance.until("\r\n\r\n").await.to_ascii_lowercase();
    assert_eq!(body, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    instance
        .send(format!("{answer}2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n"))
        .await;
    client.head().await;
    let body = client.until("\r\n\r\n").await.to_ascii_lowercase();
    assert_eq!(body, "2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n");
    stage.stop().await;
}

#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let mut stage = Stage::start().await;
    let request = get("/", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n";
    let (mut client, mut instance, head) = stage.asked(&request).await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    instance.until("3\r\nabc\r\n0\r\n\r\n").await;
    answers_ok(&mut instance, &mut client).await;
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_7_6_2_max_forwards_limits_options() {
    let mut stage = Stage::start().await;
    let options =
        |left: u32| format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\nMax-Forwards: {left}\r\n\r\n");
    let mut client = stage.client(options(0)).await;
    assert!(client.head().await.contains("allow: get,"));
    client.send(options(5)).await;
    let (mut instance, head) = stage.instance().await;
    assert!(head.starts_with("options * http/1.1\r\n"), "{head}");
    assert!(head.contains("max-forwards: 4\r\n"), "{head}");
    answers_ok(&mut instance, &mut client).await;
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_9_3_connect_and_trace_are_refused() {
    let stage = Stage::start().await;
    for request in [
        format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n"),
        format!("TRACE / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    ] {
        let head = stage.client(&request).await.answered(405).await;
        assert!(head.contains("allow: get,"), "{head}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9209_section_2_responses_of_cless_state_the_reason() {
    let stage = Stage::start().await;
    let mut client = stage
        .client("GET / HTTP/1.1\r\nHost: unknown.localhost\r\n\r\n")
        .await;
    let head = client.answered(404).await;
    assert!(
        head.contains("proxy-status: cless; error=destination_not_found"),
        "{head}"
    );
    assert!(head.contains("cache-control: no-store\r\n"), "{head}");
    assert!(head.contains("x-request-id: "), "{head}");
    stage.stop().await;
}
