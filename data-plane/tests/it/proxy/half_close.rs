//! Clients that close their sending side behind a request, as BusyBox wget and netcat do, and still
//! read the response (RFC 9112 section 9.6).

use rustls::version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tls::{certify, shake, with_folder};
use super::{HOST, OK, Stage, get};
use crate::feed::plane::within;

#[tokio::test]
async fn a_client_that_ends_its_sending_side_gets_its_response() {
    let mut stage = Stage::start().await;
    let post =
        |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}");
    for request in [
        get("/", ""),
        get("/", "Connection: close\r\n"),
        format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"),
        post("Content-Length: 2\r\n", "hi"),
        post("Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
    ] {
        let mut client = stage.client(&request).await;
        client.end().await;
        let (mut instance, _) = stage.instance().await;
        // The end of the request is long known when the response comes, and while it lasts.
        tokio::time::sleep(super::QUIET).await;
        instance
            .send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok")
            .await;
        client.until("ok").await;
        tokio::time::sleep(super::QUIET).await;
        instance.send("ay").await;
        assert_eq!(client.rest().await, "ay", "{request:?}");
    }
    // Two at once.
    let mut client = stage.client(get("/1", "") + &get("/2", "")).await;
    client.end().await;
    let (mut instance, _) = stage.instance().await;
    instance.send(OK).await;
    assert!(instance.head().await.starts_with("get /2 "));
    tokio::time::sleep(super::QUIET).await;
    instance.send(OK).await;
    let read = client.rest().await;
    assert_eq!(read.matches("HTTP/1.1 200 OK").count(), 2, "{read}");
    stage.stop().await;
}

#[tokio::test]
async fn a_client_that_ends_its_sending_side_gets_its_response_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = certify(folder.path(), "a", &[HOST]);
    let mut stage = Stage::with(|_| (), with_folder(folder.path(), false)).await;
    let address = stage.tls.expect("it listens");
    let shaken = shake(address, HOST, &[&root], &[b"http/1.1"], &version::TLS13).await;
    let mut client = shaken.expect("TLS");
    let sent = client.write_all(get("/", "").as_bytes()).await;
    sent.expect("it is taken");
    client.shutdown().await.expect("it is taken");
    let (mut instance, _) = stage.instance().await;
    tokio::time::sleep(super::QUIET).await;
    instance.send(OK).await;
    let mut read = String::new();
    let end = within("the end", client.read_to_string(&mut read)).await;
    end.expect("a clean end");
    assert!(read.ends_with("\r\n\r\nok"), "{read}");
    stage.stop().await;
}

#[tokio::test]
async fn a_reset_behind_the_end_of_the_sending_side_cancels_the_request() {
    let mut stage = Stage::start().await;
    let mut client = stage.client(get("/", "")).await;
    client.end().await;
    let (mut instance, _) = stage.instance().await;
    instance.is_quiet().await;
    client.reset();
    assert_eq!(instance.rest().await, "");
    stage.stop().await;
}

/// The end of an incomplete request is an error and no request.
#[tokio::test]
async fn a_client_that_ends_within_a_body_cancels_the_request() {
    let mut stage = Stage::start().await;
    let part = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\npart");
    let mut client = stage.client(part).await;
    let (mut instance, _) = stage.instance().await;
    instance.until("part").await;
    client.end().await;
    assert_eq!(instance.rest().await, "");
    client.rest().await;
    stage.stop().await;
}
