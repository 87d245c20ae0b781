//! A stream as bytes both ways, once it is a tunnel (RFC 8441 section 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is copied into one write.
const MOST: usize = 16 * 1024;

/// Reads and writes the DATA of a stream. A stream that is reset is a connection that is (RFC 8441 section 5).
#[derive(Debug)]
pub(in super::super) struct ByteStream {
    received: RecvStream,
    sends: SendStream<Bytes>,
    /// What of the last frame was not read yet.
    rest: Bytes,
}

impl ByteStream {
    pub(super) fn new(received: RecvStream, sends: SendStream<Bytes>) -> Self {
        Self {
            received,
            sends,
            rest: Bytes::new(),
        }
    }
}

fn reset(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::Other.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            let data = ready!(self.received.poll_data(cx));
            let Some(data) = data.transpose().map_err(reset)? else {
                return Poll::Ready(Ok(()));
            };
            let taken = self.received.flow_control().release_capacity(data.len());
            taken.map_err(reset)?;
            self.rest = data;
        }
        let taken = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..taken]);
        self.rest.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.sends.reserve_capacity(bytes.len().min(MOST));
        while self.sends.capacity() == 0 {
            match ready!(self.sends.poll_capacity(cx)) {
                Some(room) => room.map_err(reset)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let taken = bytes.len().min(self.sends.capacity()).min(MOST);
        let data = Bytes::copy_from_slice(&bytes[..taken]);
        self.sends.send_data(data, false).map_err(reset)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sends.send_data(Bytes::new(), true).map_err(reset))
    }
}
