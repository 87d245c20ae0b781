//! Upgraded connections: bytes both ways until either side ends, falls silent, or grows too old.
//!
//! What either side sent ahead of the switch is not lost: the connections hand over what they had read,
//! and what stood behind the gate follows (see [`wire`](super::wire)).

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use super::exchange::Exchange;
use super::upstream::http1;
use super::worker::Worker;

/// An instance that has switched to another protocol.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) instance: http1::Switched,
    pub(super) exchange: Rc<Exchange>,
}

/// The client's end, once it is told of the switch.
pub(super) async fn upgraded(client: OnUpgrade) -> io::Result<TokioIo<Upgraded>> {
    client.await.map(TokioIo::new).map_err(io::Error::other)
}

/// Copies both ways. Holds the exchange, so the instance stays busy.
pub(super) async fn run<T: AsyncRead + AsyncWrite + Unpin>(
    worker: Rc<Worker>,
    client: impl Future<Output = io::Result<T>>,
    switched: Switched,
) {
    let Switched {
        mut instance,
        exchange,
    } = switched;
    worker.stats.tunnel(1);
    let moved = Rc::new(Cell::new(0));
    let limits = &worker.node.limits;
    let copied = async {
        let mut client = Counted {
            inner: client.await?,
            moved: moved.clone(),
        };
        tokio::io::copy_bidirectional(&mut client, &mut instance).await
    };
    // Both ends are open until this is told: who sees an end sees why.
    let mut copied = pin!(copied);
    tokio::select! {
        copied = &mut copied => if let Err(error) = copied {
            debug!(%error, "a tunnel broke");
        },
        why = over(&moved, limits.tunnel_idle, limits.tunnel_age) => {
            worker.stats.closed(why);
        }
    }
    exchange.passed(moved.get());
    exchange.response_over();
    worker.stats.tunnel(-1);
}

/// Ends when nothing moved for `idle`, or after `age`; tells which, as a label of the metric.
async fn over(moved: &Cell<u64>, idle: Duration, age: Duration) -> &'static str {
    let began = Instant::now();
    loop {
        let before = moved.get();
        let left = age.saturating_sub(began.elapsed());
        if left.is_zero() {
            return "tunnel_age";
        }
        tokio::time::sleep(idle.min(left)).await;
        if moved.get() == before && began.elapsed() < age {
            return "tunnel_idle";
        }
    }
}

/// Counts what passes, both ways.
struct Counted<T> {
    inner: T,
    moved: Rc<Cell<u64>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        self.moved.set(self.moved.get() + bytes as u64);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.moved.set(self.moved.get() + *bytes as u64);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
