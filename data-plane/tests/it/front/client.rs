//! A client that sends raw bytes and parses responses.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::origin::chunked;

/// Timeout of everything that a test waits for.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// After this silence the proxy is assumed to wait for more input.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// All responses on a connection until its end.
#[derive(Debug)]
pub(crate) struct Responses {
    pub(crate) all: Vec<Response>,
    /// Bytes after the last complete response.
    pub(crate) rest: Vec<u8>,
}

impl Responses {
    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.all.iter().map(|answer| answer.status).collect()
    }
}

/// Sends bytes, reads until `expected` responses are complete or the connection ends, then closes
/// the sending side and reads to the end.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8], expected: usize) -> Responses {
    exchange_in_pieces(address, &[bytes], expected).await
}

/// Like [`exchange`], but sends each piece separately, with time for the proxy to read it.
pub(crate) async fn exchange_in_pieces(
    address: SocketAddr,
    pieces: &[&[u8]],
    expected: usize,
) -> Responses {
    timeout(LIMIT, async {
        let stream = TcpStream::connect(address).await.expect("it accepts");
        stream.set_nodelay(true).expect("an option");
        let (mut read, mut write) = stream.into_split();
        let mut received = Vec::new();
        // A refusal may close the connection before all is sent; that is no failure.
        for piece in pieces {
            if write.write_all(piece).await.is_err() {
                break;
            }
            if pieces.len() > 1 {
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        }
        let is_head = pieces.concat().starts_with(b"HEAD ");
        loop {
            let (answers, _) = parse(&received, is_head);
            if answers.len() >= expected {
                break;
            }
            // A reset after a response ends the connection too. A proxy that waits for more input
            // gets its end.
            match timeout(SILENCE, read.read_buf(&mut received)).await {
                Ok(Ok(0) | Err(_)) | Err(_) => break,
                Ok(Ok(_)) => {}
            }
        }
        let _ = write.shutdown().await;
        while let Ok(1..) = read.read_buf(&mut received).await {}
        let (all, used) = parse(&received, is_head);
        Responses {
            all,
            rest: received.split_off(used),
        }
    })
    .await
    .unwrap_or_else(|_| {
        let sent = pieces.concat();
        panic!("no end of: {}", String::from_utf8_lossy(&sent))
    })
}

/// Complete responses and their total length; interim ones (1xx) are omitted. `is_head` marks the
/// first as the response to a HEAD.
fn parse(bytes: &[u8], is_head: bool) -> (Vec<Response>, usize) {
    let (mut answers, mut at) = (Vec::new(), 0);
    while let Some((answer, used)) = parse_one(&bytes[at..], is_head && answers.is_empty()) {
        if answer.status >= 200 {
            answers.push(answer);
        }
        at += used;
    }
    (answers, at)
}

fn parse_one(bytes: &[u8], is_head: bool) -> Option<(Response, usize)> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status: u16 = head.split(' ').nth(1)?.get(..3)?.parse().ok()?;
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let (body, used) = if is_head || status < 200 || status == 204 || status == 304 {
        (Vec::new(), 0)
    } else if field("transfer-encoding").is_some() {
        let (body, _, used) = chunked(&bytes[end..]).ok()??;
        (body, used)
    } else {
        let length: usize = field("content-length").map_or(Some(0), |text| text.parse().ok())?;
        (bytes.get(end..end + length)?.to_vec(), length)
    };
    Some((Response { status, head, body }, end + used))
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
