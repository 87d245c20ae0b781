//! The frames of a client, in the bytes on their way to `h2`. Malformed trailers end the connection
//! (`h2_trailers`), and so do floods of frames that carry nothing: PING, PRIORITY, SETTINGS,
//! WINDOW_UPDATE, frames of unknown types, and DATA without data (CVE-2019-9512, -9513, -9515, -9518).
//! `h2` answers or ignores each, which costs CPU time only.
//!
//! A client grants windows and measures the round trip while it receives, so the proxy's own bytes
//! allow such frames, at a rate that no client needs. Law (tested below): a client that sends three
//! of them for each response frame of 100 bytes, or a hundred a second, is never cut; one that sends
//! nothing else always is.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2_trailers::{CONTINUATION, HEADERS, TrailerReader};
use crate::proxy::client::{ClientConn, CloseReason};

/// Length of the client's preface (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// Length of a frame's head (section 4.1).
const HEAD: usize = 9;

/// The frames that are allowed before any other allowance, for each of `--max-resets`.
const PER_RESET: u64 = 5;
const PER_SECOND: u64 = 100;
/// Bytes of the proxy that allow a frame. The shortest response frames are about 100 bytes long.
const BYTES_PER_FRAME: u64 = 32;

/// Finds the frames in the bytes of a client.
#[derive(Debug)]
struct FrameCounter {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD],
    head_len: usize,
    /// Frames without content so far.
    empty: u64,
    trailers: TrailerReader,
    /// Whether trailers with pseudo-header fields were read.
    is_malformed: bool,
}

impl Default for FrameCounter {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            head_len: 0,
            empty: 0,
            trailers: TrailerReader::default(),
            is_malformed: false,
        }
    }
}

impl FrameCounter {
    /// Each turn consumes a part of `bytes`, which are at most one read.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            if skipped > 0 {
                self.trailers.payload(&bytes[..skipped]);
                self.end_frame();
            }
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == HEAD {
                let [a, b, c, kind, flags, d, e, f, g] = self.head;
                self.head_len = 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.empty += u64::from(is_empty(kind, flags, self.skip));
                // The first bit of a stream's number is reserved.
                let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
                self.trailers.begin(kind, flags, stream);
                self.end_frame();
            }
        }
    }

    fn end_frame(&mut self) {
        self.is_malformed |= self.skip == 0 && self.trailers.end();
    }
}

/// Whether a frame carries nothing of a message. Resets are counted with their requests.
fn is_empty(kind: u8, flags: u8, length: usize) -> bool {
    const DATA: u8 = 0;
    const RST_STREAM: u8 = 3;
    const END_STREAM: u8 = 1;
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        HEADERS | RST_STREAM | CONTINUATION => false,
        _ => true,
    }
}

/// The frames without content that a client may have sent. `max_resets` is not 0.
fn allowance(max_resets: u32, elapsed: Duration, written: u64) -> u64 {
    u64::from(max_resets) * PER_RESET + elapsed.as_secs() * PER_SECOND + written / BYTES_PER_FRAME
}

/// A client's connection whose frames are counted. A flood closes it.
#[derive(Debug)]
pub(super) struct FrameMeter<IO> {
    io: IO,
    client: Rc<ClientConn>,
    frames: FrameCounter,
    /// 0: no limit.
    max_resets: u32,
    began: Instant,
}

impl<IO> FrameMeter<IO> {
    pub(super) fn new(io: IO, client: Rc<ClientConn>, max_resets: u32) -> Self {
        Self {
            io,
            client,
            frames: FrameCounter::default(),
            max_resets,
            began: Instant::now(),
        }
    }

    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frames.feed(bytes);
        if self.frames.is_malformed {
            let message = "trailers with a pseudo-header field (RFC 9113 section 8.1)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let first = allowance(self.max_resets, Duration::ZERO, 0);
        if self.max_resets == 0 || self.frames.empty <= first || self.client.closed().is_some() {
            return Ok(());
        }
        let written = self.client.counters.written();
        if self.frames.empty > allowance(self.max_resets, self.began.elapsed(), written) {
            self.client.close(CloseReason::Resets);
        }
        Ok(())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for FrameMeter<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        Poll::Ready(self.count(&buf.filled()[before..]))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for FrameMeter<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).unwrap();
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.resize(HEAD + length as usize, 6);
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_read(
            frames in proptest::collection::vec((0u8..16, any::<u8>(), 0usize..40), 0..40),
            reads in proptest::collection::vec(1usize..50, 1..20),
        ) {
            let mut bytes = vec![b'P'; PREFACE];
            let mut expected = 0;
            for (kind, flags, length) in frames {
                bytes.extend(frame(kind, flags, length));
                expected += u64::from(match kind {
                    0 => length == 0 && flags % 2 == 0,
                    1 | 3 | 9 => false,
                    _ => true,
                });
            }
            let mut counter = FrameCounter::default();
            let mut rest = &bytes[..];
            for read in reads.iter().cycle() {
                let (part, later) = rest.split_at((*read).min(rest.len()));
                counter.feed(part);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(counter.empty, expected);
        }

        #[test]
        fn a_receiving_or_slow_client_is_never_cut_and_a_flood_always_is(
            max_resets in 1u32..1000, responses in 0u64..1_000_000, seconds in 0u64..100_000
        ) {
            let elapsed = Duration::from_secs(seconds);
            let granted = allowance(max_resets, elapsed, responses * 100);
            prop_assert!(responses * 3 + seconds * 100 <= granted);
            // Each of its frames is answered by 17 bytes at most, in one second.
            let flood = u64::from(max_resets) * 11 + 300;
            prop_assert!(flood > allowance(max_resets, Duration::from_secs(1), flood * 17));
        }
    }
}
