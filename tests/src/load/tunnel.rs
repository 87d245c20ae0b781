//! Messages echoed over WebSockets.
//!
//! The origin returns bytes as they are, so what comes back is compared with what was sent and no
//! frame is parsed: proxies pass an opened WebSocket on unread.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use super::{Run, Target};

/// Nothing is opened or echoed more slowly by a proxy that works.
const LIMIT: Duration = Duration::from_secs(10);

/// Opens that many WebSockets, then sends a message of `bytes` on each, again once it is back.
pub async fn run(
    target: Target<'_>,
    connections: usize,
    seconds: u64,
    bytes: usize,
) -> Result<Run> {
    let frame: Rc<[u8]> = frame(bytes).into();
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(upgraded(target).await?);
    }
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let local = LocalSet::new();
    let mut tunnels = JoinSet::new();
    for stream in open {
        tunnels.spawn_local_on(echoed(stream, frame.clone(), until), &local);
    }
    let mut latencies = Vec::new();
    local
        .run_until(async {
            while let Some(ended) = tunnels.join_next().await {
                latencies.append(&mut ended??);
            }
            anyhow::Ok(())
        })
        .await?;
    Ok(Run::of(&latencies, began.elapsed()))
}

async fn echoed(mut stream: TcpStream, frame: Rc<[u8]>, until: Instant) -> Result<Vec<Duration>> {
    let (mut latencies, mut back) = (Vec::new(), vec![0; frame.len()]);
    while Instant::now() < until {
        let sent = Instant::now();
        stream.write_all(&frame).await?;
        tokio::time::timeout(LIMIT, stream.read_exact(&mut back)).await??;
        ensure!(*back == *frame, "another message came back");
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

async fn upgraded(target: Target<'_>) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let (path, host) = (target.path, target.host);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(LIMIT, stream.read_u8()).await??;
        answer.push(byte);
    }
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.starts_with("HTTP/1.1 101 "), "no upgrade: {answer}");
    Ok(stream)
}

/// One masked binary frame (RFC 6455 section 5.2) with a payload of `bytes`, below 64 KiB.
fn frame(bytes: usize) -> Vec<u8> {
    let length = u16::try_from(bytes).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    // The mask is zero, so the payload is sent as it is.
    let mut frame = vec![0x82, 0x80 | 126, high, low, 0, 0, 0, 0];
    frame.resize(frame.len() + usize::from(length), b'x');
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_how_long_it_is() {
        let frame = frame(1024);
        assert_eq!(frame.len(), 8 + 1024);
        assert_eq!(frame[2..4], [4, 0]);
    }
}
