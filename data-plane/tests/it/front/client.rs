//! A client that sends bytes and reads answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that a test waits for takes longer, on a busy machine too.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A proxy that says nothing for so long waits for what will not come.
const SILENCE: Duration = Duration::from_secs(2);

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// All that came back on a connection, to its end.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) all: Vec<Answer>,
    /// What follows the last whole one.
    pub(crate) rest: Vec<u8>,
}

impl Answers {
    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.all.iter().map(|answer| answer.status).collect()
    }
}

/// Sends bytes at once, reads until `expected` answers are whole or the connection ends, then says
/// that no more is sent and reads to the end.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8], expected: usize) -> Answers {
    exchange_in_pieces(address, &[bytes], expected).await
}

/// As [`exchange`]; each piece is a write, and the next waits until the proxy may have read it.
pub(crate) async fn exchange_in_pieces(
    address: SocketAddr,
    pieces: &[&[u8]],
    expected: usize,
) -> Answers {
    timeout(LIMIT, async {
        let stream = TcpStream::connect(address).await.expect("it accepts");
        stream.set_nodelay(true).expect("an option");
        let (mut read, mut write) = stream.into_split();
        let mut received = Vec::new();
        // Refused in the middle: what is left to send goes nowhere, and that is no failure.
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
            // A reset after an answer ends the connection as well as an end does. A proxy that waits for
            // more is told that there is none.
            match timeout(SILENCE, read.read_buf(&mut received)).await {
                Ok(Ok(0) | Err(_)) | Err(_) => break,
                Ok(Ok(_)) => {}
            }
        }
        let _ = write.shutdown().await;
        while let Ok(1..) = read.read_buf(&mut received).await {}
        let (all, used) = parse(&received, is_head);
        Answers {
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

/// Whole answers, and how many bytes they are; interim ones (1xx) are left out. `is_head`: the first is
/// to a HEAD.
fn parse(bytes: &[u8], is_head: bool) -> (Vec<Answer>, usize) {
    let (mut answers, mut at) = (Vec::new(), 0);
    while let Some((answer, used)) = parse_one(&bytes[at..], is_head && answers.is_empty()) {
        if answer.status >= 200 {
            answers.push(answer);
        }
        at += used;
    }
    (answers, at)
}

fn parse_one(bytes: &[u8], is_head: bool) -> Option<(Answer, usize)> {
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
        chunked(&bytes[end..])?
    } else {
        let length: usize = field("content-length").map_or(Some(0), |text| text.parse().ok())?;
        (bytes.get(end..end + length)?.to_vec(), length)
    };
    Some((Answer { status, head, body }, end + used))
}

/// A chunked body without trailers.
fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        bytes.get(at + size..at + size + 2)?;
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
