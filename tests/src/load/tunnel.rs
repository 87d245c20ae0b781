//! Messages echoed over WebSockets.
//!
//! The origin returns bytes unchanged, and proxies do not inspect an open WebSocket. So received
//! bytes are compared with sent ones and no frame is parsed.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use super::{Run, Target};

/// Upper limit of an upgrade or an echo.
const LIMIT: Duration = Duration::from_secs(10);

/// Opens `connections` WebSockets and sends messages of `bytes` on each; a new one follows each
/// echo.
pub async fn run(
    target: Target<'_>,
    connections: usize,
    seconds: u64,
    bytes: usize,
) -> Result<Run> {
    let frame: Rc<[u8]> = frame(bytes).into();
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(upgrade(target).await?);
    }
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let local = LocalSet::new();
    let mut tunnels = JoinSet::new();
    for stream in open {
        tunnels.spawn_local_on(echo(stream, frame.clone(), until), &local);
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

async fn echo(mut stream: TcpStream, frame: Rc<[u8]>, until: Instant) -> Result<Vec<Duration>> {
    let (mut latencies, mut back) = (Vec::new(), vec![0; frame.len()]);
    while Instant::now() < until {
        let sent = Instant::now();
        stream.write_all(&frame).await?;
        tokio::time::timeout(LIMIT, stream.read_exact(&mut back)).await??;
        ensure!(*back == *frame, "the echo differs from the message");
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

async fn upgrade(target: Target<'_>) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let (path, host) = (target.path, target.host);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(LIMIT, stream.read_u8()).await??;
        response.push(byte);
    }
    let response = String::from_utf8_lossy(&response);
    let upgraded = response.starts_with("HTTP/1.1 101 ");
    ensure!(upgraded, "no upgrade: {response}");
    Ok(stream)
}

/// One masked binary frame (RFC 6455 section 5.2) with a payload of `bytes`, below 64 KiB.
fn frame(bytes: usize) -> Vec<u8> {
    let length = u16::try_from(bytes).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    // A zero mask leaves the payload unchanged.
    let mut frame = vec![0x82, 0x80 | 126, high, low, 0, 0, 0, 0];
    frame.resize(frame.len() + usize::from(length), b'x');
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_contains_its_length() {
        let frame = frame(1024);
        assert_eq!(frame.len(), 8 + 1024);
        assert_eq!(frame[2..4], [4, 0]);
    }
}
