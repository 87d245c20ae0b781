//! Coalesces the writes of one poll of an HTTP/2 connection into one write.
//!
//! `h2` writes the frames of a response as soon as one is longer than a few hundred bytes: four
//! concurrent responses, or a body of 64 KiB, cost four system calls and four packets. A
//! [`WriteCoalescer`] between `h2` and the socket buffers short writes until the poll ends
//! ([`WriteCoalescer::end_turn`]). Long writes leave at once, behind the buffer, in one `writev`.
//!
//! A body of 64 KiB costs one more copy and three calls fewer. With 32 and 256 connections, CPU per
//! request fell from 1.09 and 1.20 of nginx's to 0.75 and between 0.80 and 0.93.
//!
//! Laws: bytes leave in the order of the writes; the buffer holds at most [`MAX_BUFFERED`] bytes
//! and one short write.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// At this size the buffer is sent before another write is accepted.
const MAX_BUFFERED: usize = 64 * 1024;
/// Writes of this length are sent at once and not copied: more than a frame of 16 KiB with its
/// head. Copying a frame that is still in the cache costs less than a system call for it.
const LONG_WRITE: usize = 17 * 1024;
/// Slices in one write; a frame has two, head and payload.
const MAX_SLICES: usize = 8;

/// A socket that is written to once per poll. Clones share the socket.
#[derive(Debug)]
pub(crate) struct WriteCoalescer<T> {
    inner: Rc<RefCell<Inner<T>>>,
}

impl<T> Clone for WriteCoalescer<T> {
    fn clone(&self) -> Self {
        let inner = self.inner.clone();
        Self { inner }
    }
}

#[derive(Debug)]
struct Inner<T> {
    socket: T,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are sent.
    sent: usize,
}

impl<T: AsyncWrite + Unpin> WriteCoalescer<T> {
    pub(crate) fn new(socket: T) -> Self {
        let inner = RefCell::new(Inner {
            socket,
            buffer: Vec::new(),
            sent: 0,
        });
        Self {
            inner: Rc::new(inner),
        }
    }

    /// Sends the buffer after each poll of the connection, including the last, whose frames carry
    /// the reason of its end. If the socket is full, the task is woken later for another turn. If
    /// the write fails, the turn ends with the result of `on_error`.
    pub(crate) fn end_turn<R>(
        &self,
        cx: &mut Context<'_>,
        turn: Poll<R>,
        on_error: impl FnOnce(io::Error) -> R,
    ) -> Poll<R> {
        match (turn, self.poll_send(cx)) {
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(on_error(error)),
            (turn, _) => turn,
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.borrow_mut().send(cx)
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.buffer.get(self.sent..) {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.clear();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Frees the buffer, so that an idle connection holds no memory.
    fn clear(&mut self) {
        self.buffer = Vec::new();
        self.sent = 0;
    }

    /// Sends the buffer and `bytes` behind it; returns the number of `bytes` sent.
    fn send_with(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let held = self.buffer.get(self.sent..).unwrap_or_default();
            let mut all = [IoSlice::new(held); MAX_SLICES];
            let begin = usize::from(!held.is_empty());
            let taken = bytes.len().min(MAX_SLICES - begin);
            let (from, to) = (bytes.iter(), &mut all[begin..begin + taken]);
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from;
            }
            let held = held.len();
            let all = &all[..begin + taken];
            let sent = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, all))?;
            match sent.checked_sub(held) {
                None if sent == 0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                None => self.sent += sent,
                Some(0) if held > 0 => self.clear(),
                Some(of_bytes) => {
                    self.clear();
                    return Poll::Ready(Ok(of_bytes));
                }
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteCoalescer<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner.borrow_mut().socket).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteCoalescer<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.borrow_mut();
        let length: usize = bytes.iter().map(|slice| slice.len()).sum();
        if length >= LONG_WRITE {
            return inner.send_with(cx, bytes);
        }
        if inner.buffer.len() >= MAX_BUFFERED {
            ready!(inner.send(cx))?;
        }
        for slice in bytes {
            inner.buffer.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: [`WriteCoalescer::end_turn`] sends the buffer.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        ready!(inner.send(cx))?;
        Pin::new(&mut inner.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn coalesced(sizes: Vec<usize>, pipe: usize) -> (Vec<u8>, Vec<u8>) {
        let (near, mut far) = tokio::io::duplex(pipe);
        let coalescer = WriteCoalescer::new(near);
        let written: Vec<u8> = (0..sizes.iter().sum())
            .map(|at: usize| (at / 7) as u8)
            .collect();
        let expected = written.clone();
        let writing = async move {
            let (mut writer, mut rest) = (coalescer.clone(), &written[..]);
            for (at, size) in sizes.into_iter().enumerate() {
                let (now, later) = rest.split_at(size);
                writer.write_all(now).await.unwrap();
                rest = later;
                if at % 3 == 0 {
                    poll_fn(|cx| coalescer.poll_send(cx)).await.unwrap();
                }
            }
            writer.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), outcome) = tokio::join!(writing, far.read_to_end(&mut read));
        outcome.unwrap();
        (expected, read)
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order(
            sizes in proptest::collection::vec(0_usize..20_000, 0..20),
            pipe in 1_usize..40_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (expected, read) = runtime.block_on(coalesced(sizes, pipe));
            prop_assert!(expected == read);
        }
    }

    #[tokio::test]
    async fn short_writes_are_sent_together() {
        let (near, mut far) = tokio::io::duplex(1024);
        let coalescer = WriteCoalescer::new(near);
        let mut writer = coalescer.clone();
        writer.write_all(b"one ").await.unwrap();
        writer.flush().await.unwrap();
        writer.write_all(b"two").await.unwrap();
        let mut read = [0; 16];
        assert!(far.read(&mut read).now_or_never().is_none());
        poll_fn(|cx| coalescer.poll_send(cx)).await.unwrap();
        assert_eq!(far.read(&mut read).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn the_writer_waits_for_a_reader_that_reads_nothing() {
        let (near, _far) = tokio::io::duplex(1);
        let mut writer = WriteCoalescer::new(near);
        let block = [0; LONG_WRITE - 1];
        let mut taken = 0;
        while let Some(Ok(())) = writer.write_all(&block).now_or_never() {
            taken += block.len();
        }
        assert!(taken < MAX_BUFFERED + LONG_WRITE, "{taken}");
    }
}
