//! Interim responses: 102, 103 and unknown ones are forwarded (RFC 9110 section 15.2), in order and
//! within bounds.

use std::future::poll_fn;

use cless_proto::v1::version_spec::Protocol;
use http::{Request, Response, StatusCode};
use tokio::net::TcpStream;

use super::streams::speaks;
use super::{HOST, OK, Stage, get};
use crate::feed::plane::within;

const INTERIM: [&str; 3] = ["102 Processing", "103 Early Hints", "199 Odd"];

#[tokio::test]
async fn interim_responses_precede_the_final_one_over_http1() {
    let mut stage = Stage::start().await;
    // With the response in the same packet, and long before it.
    for is_at_once in [true, false] {
        let mut client = stage.client(get("/", "")).await;
        let (mut instance, _) = stage.instance().await;
        let mut sent = String::new();
        for interim in INTERIM {
            sent += &format!(
                "HTTP/1.1 {interim}\r\nlink: </a>\r\nconnection: x\r\nx: 1\r\ncontent-length: 5\r\n\r\n"
            );
        }
        let last = "HTTP/1.1 299 Quite Fine\r\ncontent-length: 2\r\n\r\nok";
        if is_at_once {
            instance.send(sent + last).await;
        } else {
            instance.send(sent).await;
        }
        for interim in INTERIM {
            let head = client.head().await;
            let code = &interim[..3];
            assert!(head.starts_with(&format!("http/1.1 {code} ")), "{head}");
            assert!(
                head.contains("link: </a>\r\n") && head.contains("via: 1.1 cless\r\n"),
                "{head}"
            );
            for gone in ["x: 1", "connection", "content-length"] {
                assert!(!head.contains(gone), "{head}");
            }
        }
        if !is_at_once {
            client.is_quiet().await;
            instance.send(last).await;
        }
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 299 quite fine\r\n"), "{head}");
        client.until("ok").await;
        // Both connections are kept.
        client.send(get("/next", "")).await;
        assert!(instance.head().await.starts_with("get /next "));
        instance.send(OK).await;
        client.until("ok").await;
        drop(client);
        drop(instance);
    }
    stage.stop().await;
}

/// Behind a pipelined response, not within it.
#[tokio::test]
async fn an_interim_response_follows_the_response_before_it() {
    let mut stage = Stage::start().await;
    let mut client = stage.client(get("/1", "") + &get("/2", "")).await;
    let (mut instance, _) = stage.instance().await;
    instance.send(OK).await;
    assert!(instance.head().await.starts_with("get /2 "));
    instance
        .send(format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}"))
        .await;
    assert!(client.head().await.starts_with("http/1.1 200"));
    client.until("ok").await;
    assert!(client.head().await.starts_with("http/1.1 103"));
    assert!(client.head().await.starts_with("http/1.1 200"));
    client.until("ok").await;
    stage.stop().await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_interim_response() {
    let mut stage = Stage::start().await;
    let request = format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n");
    let mut client = stage.client(request).await;
    let (mut instance, _) = stage.instance().await;
    instance
        .send(format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}"))
        .await;
    let head = client.head().await;
    assert!(head.contains(" 200 ok\r\n"), "{head}");
    stage.stop().await;
}

/// An interim response whose instance then breaks precedes the 502.
#[tokio::test]
async fn an_error_response_follows_the_interim_ones() {
    let mut stage = Stage::start().await;
    let mut client = stage.client(get("/", "")).await;
    let (mut instance, _) = stage.instance().await;
    instance.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
    drop(instance);
    assert!(client.head().await.starts_with("http/1.1 103"));
    assert!(client.head().await.starts_with("http/1.1 502"));
    stage.stop().await;
}

async fn http2_client(stage: &Stage) -> h2::client::SendRequest<bytes::Bytes> {
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let shaken = within("a handshake", h2::client::handshake(stream)).await;
    let (sender, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// The statuses of the interim responses and of the final one.
async fn statuses(sender: &mut h2::client::SendRequest<bytes::Bytes>) -> Vec<u16> {
    let request = Request::get(format!("http://{HOST}/")).body(());
    let sent = sender.send_request(request.expect("a request"), true);
    let (mut response, _) = sent.expect("it is taken");
    let mut all = Vec::new();
    while let Some(interim) = within("a head", poll_fn(|cx| response.poll_informational(cx))).await
    {
        all.push(interim.expect("a head").status().as_u16());
    }
    let last = within("a response", response).await;
    all.push(last.expect("a response").status().as_u16());
    all
}

#[tokio::test]
async fn interim_responses_precede_the_final_one_over_http2() {
    // From an instance over HTTP/1, and over HTTP/2.
    let mut stage = Stage::start().await;
    let mut sender = http2_client(&stage).await;
    let got = tokio::spawn(async move { statuses(&mut sender).await });
    let (mut instance, _) = stage.instance().await;
    let sent: String = INTERIM
        .iter()
        .map(|one| format!("HTTP/1.1 {one}\r\n\r\n"))
        .collect();
    instance.send(sent + OK).await;
    assert_eq!(
        within("statuses", got).await.expect("no panic"),
        [102, 103, 199, 200]
    );
    stage.stop().await;

    let mut stage = Stage::speaking(Protocol::H2c).await;
    let mut sender = http2_client(&stage).await;
    let mut old = stage.client(get("/", "")).await;
    let got = tokio::spawn(async move { statuses(&mut sender).await });
    // Each worker has its own connection.
    let (answered, mut done) = tokio::sync::mpsc::unbounded_channel();
    let visitors = tokio::spawn(async move {
        loop {
            let mut connection = speaks(&mut stage).await;
            let answered = answered.clone();
            tokio::spawn(async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    for status in [102, 103, 199] {
                        let mut head = Response::new(());
                        *head.status_mut() = StatusCode::from_u16(status).expect("a status");
                        respond.send_informational(head).expect("sent");
                    }
                    respond
                        .send_response(Response::new(()), true)
                        .expect("sent");
                    let _ = answered.send(());
                }
            });
        }
    });
    for status in ["102", "103", "199", "200"] {
        let head = old.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
    }
    assert_eq!(
        within("statuses", got).await.expect("no panic"),
        [102, 103, 199, 200]
    );
    within("an answer", done.recv()).await;
    visitors.abort();
}

/// An endless sequence is a malformed response, and others are served meanwhile.
#[tokio::test]
async fn endless_interim_responses_become_502() {
    let alone = |options: &mut cless_data_plane::Options| options.proxy.workers = 1;
    let mut stage = Stage::with(|_| (), alone).await;
    let long = format!(
        "HTTP/1.1 103 Early Hints\r\nx: {}\r\n\r\n",
        "y".repeat(30_000)
    );
    for (one, most) in [
        ("HTTP/1.1 100 Continue\r\n\r\n", 100),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", 100),
        (&*long, 2),
    ] {
        let mut client = stage.client(get("/", "")).await;
        let (mut instance, _) = stage.instance().await;
        let sent = one.repeat(1000);
        let endless = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            while instance.stream.write_all(sent.as_bytes()).await.is_ok() {}
        });
        let mut interims = 0;
        loop {
            let head = client.head().await;
            if head.starts_with("http/1.1 502") {
                break;
            }
            assert!(head.starts_with("http/1.1 103"), "{head}");
            interims += 1;
        }
        assert!(interims <= most, "{interims}");
        within("the instance is cut", endless)
            .await
            .expect("no panic");
    }
    stage.stop().await;
}
