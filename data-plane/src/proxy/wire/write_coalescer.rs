//! What an HTTP/2 connection writes in one turn, gathered into one write.
//!
//! `h2` writes a response's frames as soon as one of them is longer than a few hundred bytes, so that four
//! streams that are answered at once cost four system calls and four packets, and a body of 64 KiB four. A
//! [`Gather`] between it and the socket holds what is not very long until whoever polls the connection says that
//! its turn is over ([`Gather::after`]); what is longer goes out at once, behind what was held, in one vectored write.
//!
//! Law: bytes leave in the order they were written in, and at most [`MOST_HELD`] and one short write are held.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// When this much is held, it is sent before more is taken.
const MOST_HELD: usize = 64 * 1024;
/// What is at least this long is sent at once, uncopied: more than a frame of 16 KiB and its head. A copy of what was
/// read just now costs less than a call of its own for each frame.
const LONG: usize = 17 * 1024;
/// A frame has a head and a payload.
const SLICES: usize = 8;

/// A socket that is written to once a turn. Clones are the same socket.
#[derive(Debug)]
pub(super) struct Gather<T> {
    inner: Rc<RefCell<Inner<T>>>,
}

impl<T> Clone for Gather<T> {
    fn clone(&self) -> Self {
        let inner = self.inner.clone();
        Self { inner }
    }
}

#[derive(Debug)]
struct Inner<T> {
    socket: T,
    held: Vec<u8>,
    /// Bytes of `held` that are sent.
    sent: usize,
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    pub(super) fn new(socket: T) -> Self {
        let inner = RefCell::new(Inner {
            socket,
            held: Vec::new(),
            sent: 0,
        });
        Self {
            inner: Rc::new(inner),
        }
    }

    /// Sends what is held after a turn of whoever writes, also after its last, when the last frames say why. What the
    /// socket does not take now it takes later: the task is woken then, and has another turn. If sending failed, the
    /// turn ends as `failed` says.
    pub(super) fn after<R>(
        &self,
        cx: &mut Context<'_>,
        turn: Poll<R>,
        failed: impl FnOnce(io::Error) -> R,
    ) -> Poll<R> {
        match (turn, self.poll_send(cx)) {
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(failed(error)),
            (turn, _) => turn,
        }
    }

    /// Sends what is held.
    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.borrow_mut().send(cx)
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.held.get(self.sent..) {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.all_sent();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// A connection that is silent holds no memory for what it once sent.
    fn all_sent(&mut self) {
        self.held = Vec::new();
        self.sent = 0;
    }

    /// Sends what is held and `bytes` behind it; how many of `bytes` went.
    fn send_with(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let held = self.held.get(self.sent..).unwrap_or_default();
            let mut all = [IoSlice::new(held); SLICES];
            let begin = usize::from(!held.is_empty());
            let taken = bytes.len().min(SLICES - begin);
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
                Some(0) if held > 0 => self.all_sent(),
                Some(of_bytes) => {
                    self.all_sent();
                    return Poll::Ready(Ok(of_bytes));
                }
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner.borrow_mut().socket).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
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
        if length >= LONG {
            return inner.send_with(cx, bytes);
        }
        if inner.held.len() >= MOST_HELD {
            ready!(inner.send(cx))?;
        }
        for slice in bytes {
            inner.held.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Leaves it to [`Gather::after`].
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

    async fn gathered(sizes: Vec<usize>, pipe: usize) -> (Vec<u8>, Vec<u8>) {
        let (near, mut far) = tokio::io::duplex(pipe);
        let gather = Gather::new(near);
        let written: Vec<u8> = (0..sizes.iter().sum())
            .map(|at: usize| (at / 7) as u8)
            .collect();
        let wanted = written.clone();
        let writing = async move {
            let (mut writer, mut rest) = (gather.clone(), &written[..]);
            for (at, size) in sizes.into_iter().enumerate() {
                let (now, later) = rest.split_at(size);
                writer.write_all(now).await.unwrap();
                rest = later;
                if at % 3 == 0 {
                    poll_fn(|cx| gather.poll_send(cx)).await.unwrap();
                }
            }
            writer.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), outcome) = tokio::join!(writing, far.read_to_end(&mut read));
        outcome.unwrap();
        (wanted, read)
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order(
            sizes in proptest::collection::vec(0_usize..20_000, 0..20),
            pipe in 1_usize..40_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (wanted, read) = runtime.block_on(gathered(sizes, pipe));
            prop_assert!(wanted == read);
        }
    }

    #[tokio::test]
    async fn short_writes_leave_together() {
        let (near, mut far) = tokio::io::duplex(1024);
        let gather = Gather::new(near);
        let mut writer = gather.clone();
        writer.write_all(b"one ").await.unwrap();
        writer.flush().await.unwrap();
        writer.write_all(b"two").await.unwrap();
        let mut read = [0; 16];
        assert!(far.read(&mut read).now_or_never().is_none());
        poll_fn(|cx| gather.poll_send(cx)).await.unwrap();
        assert_eq!(far.read(&mut read).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_holds_up_the_writer() {
        let (near, _far) = tokio::io::duplex(1);
        let mut writer = Gather::new(near);
        let block = [0; LONG - 1];
        let mut taken = 0;
        while let Some(Ok(())) = writer.write_all(&block).now_or_never() {
            taken += block.len();
        }
        assert!(taken < MOST_HELD + LONG, "{taken}");
    }
}
