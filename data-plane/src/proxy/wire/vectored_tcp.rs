//! Short writes of several pieces, joined into one.
//!
//! A head and its body are two slices for hyper, so it writes them with `writev`, which costs the kernel a copy
//! and checks of the list of slices on top of what `send` does. [`Joined`] copies what is short together and
//! sends it in one piece; what is long stays in its slices, and is not copied.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Up to this many bytes are copied together.
const SHORT: usize = 4 * 1024;

/// A socket whose short writes are in one piece.
#[derive(Debug)]
pub(super) struct Joined<T>(pub(super) T);

impl<T: AsyncRead + Unpin> AsyncRead for Joined<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Joined<T> {
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
        if bytes.iter().map(|slice| slice.len()).sum::<usize>() > SHORT {
            return socket.poll_write_vectored(cx, bytes);
        }
        let mut space = [MaybeUninit::uninit(); SHORT];
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
