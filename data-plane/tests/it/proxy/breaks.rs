//! Responses that break: the request was processed, so the client must see some byte of the
//! response. A client may repeat any request on a connection that closed without a byte (RFC 9110
//! section 9.2.2), as curl does with a POST.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use rustls::version;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::tls::{certify, shake, with_folder};
use super::{HOST, Stage, Wire};
use crate::feed::plane::within;

/// An instance that sends the same bytes to each request and then ends the connection.
#[derive(Debug, Default)]
struct Breaking {
    requests: AtomicU32,
    response: Mutex<(Vec<u8>, bool)>,
}

impl Breaking {
    /// Serves all connections to the instance of `stage`.
    fn serve(stage: &mut Stage) -> Arc<Self> {
        let (_, none) = tokio::sync::mpsc::unbounded_channel();
        let mut visitors = std::mem::replace(&mut stage.visitors, none);
        let breaking = Arc::new(Self::default());
        let served = breaking.clone();
        tokio::spawn(async move {
            while let Some(stream) = visitors.recv().await {
                tokio::spawn(served.clone().respond(stream));
            }
        });
        breaking
    }

    async fn respond(self: Arc<Self>, stream: TcpStream) {
        let mut wire = Wire::of(stream);
        if wire.maybe_until("\r\n\r\n").await.is_none() {
            return;
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let (bytes, resets) = self.response.lock().expect("no panic").clone();
        let _ = wire.stream.write_all(&bytes).await;
        if resets {
            let _ = wire.stream.set_zero_linger();
        }
    }

    /// Breaks each response behind these bytes, with a reset or with a FIN.
    fn set(&self, bytes: &[u8], resets: bool) {
        *self.response.lock().expect("no panic") = (bytes.to_vec(), resets);
        self.requests.store(0, Ordering::SeqCst);
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// All ways to break a response: an incomplete head, body, or trailer section; a malformed one.
fn breaks() -> Vec<Vec<u8>> {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello wor";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: 1\r\n";
    let mut all: Vec<Vec<u8>> = [length, chunked]
        .iter()
        .flat_map(|text| (0..=text.len()).map(|cut| text.as_bytes()[..cut].to_vec()))
        .collect();
    let begun = &chunked[..chunked.len() - 9];
    for malformed in ["zz\r\n", "0\r\nx y: 1\r\n\r\n", "3\r\nabcd"] {
        all.push(format!("{begun}{malformed}").into_bytes());
    }
    let trailers = "y".repeat(200_000);
    all.push(format!("{begun}0\r\nx: {trailers}\r\n\r\n").into_bytes());
    all.push(format!("HTTP/1.1 200 OK\r\nx: {trailers}\r\n\r\n").into_bytes());
    all
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 2\r\n\r\nhi";

/// The bytes on a connection until it ends, or a complete error response.
async fn received(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Vec<u8> {
    stream
        .write_all(POST.as_bytes())
        .await
        .expect("it is taken");
    let mut read = Vec::new();
    within("an end", async {
        while !read.starts_with(b"HTTP/1.1 502") {
            match stream.read_buf(&mut read).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
    })
    .await;
    read
}

#[tokio::test]
async fn a_post_whose_response_breaks_is_processed_once() {
    let mut stage = Stage::start().await;
    let instance = Breaking::serve(&mut stage);
    for (bytes, resets) in breaks().iter().flat_map(|one| [(one, false), (one, true)]) {
        instance.set(bytes, resets);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
        // A client that repeats the request until it sees a byte.
        for attempt in 1.. {
            let stream = TcpStream::connect(stage.address).await.expect("it accepts");
            let read = received(stream).await;
            if !read.is_empty() {
                // A truncated response is never complete.
                let text = String::from_utf8_lossy(&read);
                assert!(
                    text.starts_with("HTTP/1.1 502") || !text.ends_with("0\r\n\r\n"),
                    "{shown:?}: {text}"
                );
                break;
            }
            assert!(attempt < 3, "no byte after {shown:?}, reset {resets}");
        }
        assert_eq!(instance.requests(), 1, "{shown:?}, reset {resets}");
    }
    stage.stop().await;
}

/// The bytes that arrived before the break reach the client too.
#[tokio::test]
async fn the_received_part_of_a_broken_response_is_passed_on() {
    let mut stage = Stage::start().await;
    let instance = Breaking::serve(&mut stage);
    instance.set(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", false);
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let read = String::from_utf8(received(stream).await).expect("text");
    assert!(
        read.starts_with("HTTP/1.1 200") && read.ends_with("\r\n\r\nhello"),
        "{read}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn a_broken_response_over_tls_is_seen_and_has_no_clean_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = certify(folder.path(), "a", &[HOST]);
    let mut stage = Stage::with(|_| (), with_folder(folder.path(), false)).await;
    let address = stage.tls.expect("it listens");
    let instance = Breaking::serve(&mut stage);
    for bytes in breaks() {
        instance.set(&bytes, false);
        let shaken = shake(address, HOST, &[&root], &[b"http/1.1"], &version::TLS13).await;
        let read = received(shaken.expect("TLS")).await;
        assert!(!read.is_empty(), "{:?}", bytes.escape_ascii().to_string());
        let shown = bytes.escape_ascii().to_string();
        assert_eq!(instance.requests(), 1, "{shown}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn the_head_of_a_broken_response_arrives_over_http2() {
    let mut stage = Stage::start().await;
    let instance = Breaking::serve(&mut stage);
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let shaken = within("a handshake", h2::client::handshake(stream)).await;
    let (mut client, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    for (bytes, resets) in breaks().iter().flat_map(|one| [(one, false), (one, true)]) {
        instance.set(bytes, resets);
        let request = Request::post(format!("http://{HOST}/")).body(());
        let sent = client.send_request(request.expect("a request"), false);
        let (response, mut body) = sent.expect("it is taken");
        body.send_data(Bytes::from_static(b"hi"), true)
            .expect("it is taken");
        let response = within("a response", response).await;
        let response = response
            .unwrap_or_else(|error| panic!("{error} after {:?}", bytes.escape_ascii().to_string()));
        if response.status() == 200 {
            let mut body = response.into_body();
            let failed = within("the end", async {
                loop {
                    match body.data().await {
                        Some(Ok(data)) => drop(body.flow_control().release_capacity(data.len())),
                        Some(Err(_)) => return true,
                        None => return body.trailers().await.is_err(),
                    }
                }
            });
            assert!(failed.await, "a truncated body is an error");
        }
        let shown = bytes.escape_ascii().to_string();
        assert_eq!(instance.requests(), 1, "{shown}");
    }
    stage.stop().await;
}
