//! Connections to instances: reuse, closing, and fairness to single-threaded applications.

use std::time::{Duration, Instant};

use super::{OK, Stage, Wire, answers_ok, get};
use crate::feed::plane::within;
use crate::front::origin;

/// Concurrent requests, below the concurrency of the instance.
const BURST: usize = 64;

/// RFC 9110 section 9.2.2: a request that may have been processed is not retried.
#[tokio::test]
async fn a_request_is_retried_only_if_none_of_it_was_sent() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/1", "")).await;
    answers_ok(&mut instance, &mut client).await;
    // Closed while idle: the next request uses another connection.
    drop(instance);
    client.send(get("/2", "")).await;
    let (mut instance, head) = stage.instance().await;
    assert!(head.starts_with("get /2 "), "{head}");
    answers_ok(&mut instance, &mut client).await;
    // Closed after reading: the instance may have processed the request.
    client.send(get("/3", "")).await;
    assert!(instance.head().await.starts_with("get /3 "));
    drop(instance);
    client.answered(502).await;
    assert!(stage.visitors.try_recv().is_err(), "it was sent twice");
    stage.stop().await;
}

/// Serves one connection at a time until it closes, like a single-threaded application.
async fn one_at_a_time(mut visitors: tokio::sync::mpsc::UnboundedReceiver<tokio::net::TcpStream>) {
    while let Some(stream) = visitors.recv().await {
        let mut wire = Wire::of(stream);
        while wire.maybe_until("\r\n\r\n").await.is_some() {
            wire.send(OK).await;
        }
    }
}

#[tokio::test]
async fn a_single_threaded_app_does_not_wait_on_an_idle_connection() {
    // With the setting, and without it.
    for concurrency in [1, 80] {
        let shape = move |route: &mut cless_proto::v1::Route| {
            if let Some(settings) = &mut route.settings {
                settings.concurrency = Some(concurrency);
                settings.max_instances = Some(1);
            }
        };
        let mut stage = Stage::with(shape, |options| options.proxy.workers = 2).await;
        tokio::spawn(one_at_a_time(stage.take_visitors()));
        // Requests arrive on different threads, each of which would keep a connection.
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(stage.client("").await);
        }
        let began = Instant::now();
        for _ in 0..3 {
            for client in &mut clients {
                client.send(get("/", "")).await;
                client.until("ok").await;
            }
        }
        // Six changes of thread: each idle connection left open would cost over a second.
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(4),
            "{took:?} with concurrency {concurrency}"
        );
        stage.stop().await;
    }
}

#[tokio::test]
async fn a_burst_does_not_wait_for_a_slow_app() {
    let mut stage = Stage::start().await;
    let mut clients = Vec::new();
    for _ in 0..BURST {
        clients.push(stage.client(get("/", "")).await);
    }
    let began = Instant::now();
    let mut held = Vec::new();
    for _ in 0..BURST {
        held.push(stage.instance().await);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop(held);
    stage.stop().await;
}

#[tokio::test]
async fn requests_in_progress_complete_before_the_node_stops() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    let mut idle = stage.client("").await;
    let Stage { node, address, .. } = stage;
    let stopped = tokio::spawn(async move { node.shutdown().await });
    // New connections are refused, and idle ones are closed.
    within("the listener closes", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    instance.send(OK).await;
    let answer = client.until("ok").await.to_ascii_lowercase();
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(client.rest().await, "");
    drop(idle.rest().await);
    within("the node stops", stopped).await.expect("no panic");
}

#[tokio::test]
async fn rfc_9112_section_9_4_unsolicited_data_is_not_a_response() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/1", "")).await;
    instance
        .send(format!(
            "{OK}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
        ))
        .await;
    client.until("ok").await;
    client.send(get("/2", "")).await;
    // Another connection: the first is no longer trusted.
    let (mut next, head) = stage.instance().await;
    assert!(head.starts_with("get /2 "), "{head}");
    assert_eq!(instance.rest().await, "");
    answers_ok(&mut next, &mut client).await;
    // Nor is data that arrives while the connection is idle.
    next.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        .await;
    tokio::time::sleep(super::QUIET).await;
    client.send(get("/3", "")).await;
    let (mut third, head) = stage.instance().await;
    assert!(head.starts_with("get /3 "), "{head}");
    answers_ok(&mut third, &mut client).await;
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_15_2_interim_responses_precede_the_final_one() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    for interim in ["102 Processing", "103 Early Hints"] {
        instance
            .send(format!("HTTP/1.1 {interim}\r\nlink: </a>\r\n\r\n"))
            .await;
    }
    let last = "HTTP/1.1 299 Quite Fine\r\ncontent-length: 2\r\n\r\nok";
    instance.send(last).await;
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 299 quite fine\r\n"), "{head}");
    client.until("ok").await;
    client.send(get("/next", "")).await;
    let head = instance.head().await;
    assert!(
        head.starts_with("get /next "),
        "the connection is kept: {head}"
    );
    answers_ok(&mut instance, &mut client).await;
    stage.stop().await;
}

/// An upload larger than any buffer, with a length and in chunks, to a slow reader.
#[tokio::test]
async fn a_long_upload_arrives_complete() {
    const LENGTH: usize = 3 << 20;
    let mut stage = Stage::start().await;
    let body: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    for chunked in [false, true] {
        let framing = match chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {LENGTH}"),
        };
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\n{framing}\r\n\r\n",
            super::HOST
        );
        let mut sent = request.into_bytes();
        match chunked {
            true => {
                for chunk in body.chunks(100_000) {
                    sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    sent.extend_from_slice(chunk);
                    sent.extend_from_slice(b"\r\n");
                }
                sent.extend_from_slice(b"0\r\nx-sum: 1\r\n\r\n");
            }
            false => sent.extend_from_slice(&body),
        }
        let address = stage.address;
        let upload = tokio::spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            tokio::io::AsyncWriteExt::write_all(&mut stream, &sent).await?;
            Ok::<_, std::io::Error>(stream)
        });
        let (mut instance, head) = stage.instance().await;
        assert_eq!(head.contains("transfer-encoding: chunked\r\n"), chunked);
        assert_eq!(
            head.contains(&format!("content-length: {LENGTH}\r\n")),
            !chunked
        );
        let read = within("the body", async {
            let mut read = std::mem::take(&mut instance.read);
            while read.len() < LENGTH || (chunked && !read.ends_with(b"0\r\nx-sum: 1\r\n\r\n")) {
                let more = tokio::io::AsyncReadExt::read_buf(&mut instance.stream, &mut read);
                assert!(more.await.expect("bytes") > 0, "an early end");
            }
            read
        })
        .await;
        let read = match chunked {
            true => {
                let whole = origin::chunked(&read).expect("well formed");
                let (data, trailers, used) = whole.expect("whole");
                assert_eq!(trailers, [("x-sum".to_owned(), "1".to_owned())]);
                assert_eq!(used, read.len());
                data
            }
            false => read,
        };
        assert_eq!(read, body);
        instance.send(OK).await;
        let stream = within("the upload", upload).await.expect("no panic");
        Wire::of(stream.expect("it is sent")).until("ok").await;
    }
    stage.stop().await;
}
