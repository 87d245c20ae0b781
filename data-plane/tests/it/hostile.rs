//! Limits on hostile clients: each holds while a well-behaved client is served.
//!
//! Limits are low, so that tests take seconds. Only the limits themselves assert minimum times;
//! [`LIMIT`] bounds each test.

mod floods;
mod slow;

use std::time::Duration;

use cless_data_plane::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::front::client::LIMIT;
use crate::front::{Front, HOST};

pub(crate) fn strict(options: &mut Options) {
    let proxy = &mut options.proxy;
    proxy.workers = 1;
    proxy.head_timeout = 1;
    proxy.body_timeout = 1;
    proxy.write_timeout = 1;
    proxy.idle_timeout = 1;
    proxy.max_streams = 8;
    proxy.max_resets = 50;
}

/// A connection on which `bytes` were sent.
async fn sent(front: &Front, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(front.address).await.expect("it accepts");
    stream.write_all(bytes).await.expect("it reads");
    stream
}

/// Reads until the proxy ends the connection and returns the bytes.
async fn end_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    timeout(LIMIT, async {
        while let Ok(1..) = stream.read_buf(&mut said).await {}
    })
    .await
    .expect("the proxy ends the connection");
    said
}

/// Serves a well-behaved client repeatedly until `hostile` is done.
async fn meanwhile<T>(front: &Front, hostile: impl Future<Output = T>) -> T {
    let mut hostile = std::pin::pin!(hostile);
    let mut served = 0;
    let began = Instant::now();
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut hostile => break outcome,
            () = front.serves("meanwhile") => served += 1,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    front.serves("afterwards").await;
    assert!(
        served > 0 || began.elapsed() < Duration::from_secs(1),
        "a good client was served meanwhile"
    );
    outcome
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// Checks that no hostile request reached the origin.
fn reached_only_by_good(front: &Front) {
    let seen = front.origin.take();
    assert!(seen.iter().all(|seen| seen.target == "/well"), "{seen:?}");
}

/// Checks that the origin was throttled by clients that read nothing.
fn was_held_back(front: &Front) {
    let written = front.origin.written();
    assert!(written < 48 << 20, "the origin sent {written} bytes unread");
}
