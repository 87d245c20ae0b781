//! An HTTP/2 stream as a byte stream in both directions, for tunnels (RFC 8441 section 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Limit of bytes that are copied into one write.
const MAX_WRITE: usize = 16 * 1024;

/// Reads and writes the DATA of a stream. A reset of the stream is a reset of the connection.
#[derive(Debug)]
pub(crate) struct H2ByteStream {
    received: RecvStream,
    sends: SendStream<Bytes>,
    /// The unread part of the last frame.
    rest: Bytes,
}

impl H2ByteStream {
    pub(crate) fn new(received: RecvStream, sends: SendStream<Bytes>) -> Self {
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

impl AsyncRead for H2ByteStream {
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

impl AsyncWrite for H2ByteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.sends.reserve_capacity(bytes.len().min(MAX_WRITE));
        while self.sends.capacity() == 0 {
            match ready!(self.sends.poll_capacity(cx)) {
                Some(capacity) => capacity.map_err(reset)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let taken = bytes.len().min(self.sends.capacity()).min(MAX_WRITE);
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
