//! Hand-written HTTP/2 frames (RFC 9113 section 4), with heads that no library would write.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::front::HOST;
use crate::front::client::LIMIT;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An uncompressed field block of never-indexed literals (RFC 7541 section 6.2.3).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The field block of a request to the test's host.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    let (scheme, host) = ((":scheme", "http"), (":authority", HOST));
    block(&[(":method", method), scheme, host, (":path", path)])
}

/// An integer with a 7-bit prefix (RFC 7541 section 5.1).
fn integer(out: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        out.push(value as u8);
        return;
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push((value % 128 + 128) as u8);
        value /= 128;
    }
    out.push(value as u8);
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The status in a HEADERS frame, from its first field: an entry of the static table (RFC 7541
    /// appendix A), or a literal whose name is in it.
    pub(crate) fn status(&self) -> Option<u16> {
        if self.kind != HEADERS {
            return None;
        }
        // A table size update may precede it.
        let size_changes = self.payload.iter().take_while(|byte| **byte & 0xe0 == 0x20);
        let rest = self.payload.get(size_changes.count()..)?;
        match rest {
            [0x88, ..] => Some(200),
            [0x89, ..] => Some(204),
            [0x8b, ..] => Some(304),
            [0x8c, ..] => Some(400),
            [0x8d, ..] => Some(404),
            [0x8e, ..] => Some(500),
            // A Huffman-coded literal: three digits take two bytes, and the first identifies the
            // status.
            [0x08 | 0x18 | 0x48, ..] => Some(599),
            _ => None,
        }
    }

    /// The error code of a RST_STREAM or GOAWAY frame.
    pub(crate) fn error(&self) -> Option<u32> {
        let code = match self.kind {
            RST_STREAM => self.payload.get(..4)?,
            GOAWAY => self.payload.get(4..8)?,
            _ => return None,
        };
        Some(u32::from_be_bytes(code.try_into().ok()?))
    }
}

/// A connection after the preface and the exchange of settings.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[]).await
    }

    pub(crate) async fn open_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("it accepts");
        stream.set_nodelay(true).expect("an option");
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let hello = [
            PREFACE,
            &frame(SETTINGS, 0, 0, &payload),
            &frame(SETTINGS, ACK, 0, &[]),
        ];
        stream.write_all(&hello.concat()).await.expect("it reads");
        Self {
            stream,
            input: Vec::new(),
        }
    }

    /// Sends bytes; false once the proxy has ended the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(
            timeout(LIMIT, self.stream.write_all(bytes)).await,
            Ok(Ok(()))
        )
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(LIMIT, async {
            loop {
                if let Some(frame) = self.whole() {
                    return Some(frame);
                }
                match self.stream.read_buf(&mut self.input).await {
                    Ok(1..) => {}
                    _ => return None,
                }
            }
        })
        .await
        .expect("a frame or the end in time")
    }

    fn whole(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.input.get(..9)?.try_into().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.input.get(9..9 + length)?.to_vec();
        self.input.drain(..9 + length);
        let [a, b, c, d] = [head[5], head[6], head[7], head[8]];
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([a & 0x7f, b, c, d]),
            payload,
        })
    }

    pub(crate) async fn outcome(&mut self, stream: u32) -> Outcome {
        let mut status = None;
        loop {
            let Some(frame) = self.next().await else {
                return status.map_or(Outcome::Closed, Outcome::Answered);
            };
            match frame.kind {
                GOAWAY if frame.error() != Some(0) => return Outcome::GoAway(frame.error()),
                RST_STREAM if frame.stream == stream => {
                    return status.map_or_else(|| Outcome::Reset(frame.error()), Outcome::Answered);
                }
                HEADERS if frame.stream == stream && status.is_none() => status = frame.status(),
                _ => {}
            }
            let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
            if frame.stream == stream && ends {
                return Outcome::Answered(status.unwrap_or(0));
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A status; 599 represents any uncommon one.
    Answered(u16),
    Reset(Option<u32>),
    GoAway(Option<u32>),
    Closed,
}
