//! Joins short vectored writes into one `send`.
//!
//! hyper writes a head and its body as two slices with `writev`, for which the kernel copies and
//! checks the list of slices. [`VectoredTcp`] copies short slices into one buffer instead; long
//! writes stay vectored and are not copied.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Limit of bytes that are copied into one write.
const MAX_JOINED: usize = 4 * 1024;

/// A socket whose short vectored writes are joined.
#[derive(Debug)]
pub(crate) struct VectoredTcp<T>(pub(crate) T);

impl<T: AsyncRead + Unpin> AsyncRead for VectoredTcp<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for VectoredTcp<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.0);
        if let [one] = bytes {
            return socket.poll_write(cx, one);
        }
        if bytes.iter().map(|slice| slice.len()).sum::<usize>() > MAX_JOINED {
            return socket.poll_write_vectored(cx, bytes);
        }
        let mut space = [MaybeUninit::uninit(); MAX_JOINED];
        let mut joined = ReadBuf::uninit(&mut space);
        for slice in bytes {
            joined.put_slice(slice);
        }
        socket.poll_write(cx, joined.filled())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
