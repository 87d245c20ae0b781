//! The socket of one client as hyper and h2 see it: inspected, counted, held at an upgrade.
//!
//! [`MeteredIo`] shows every byte of HTTP/1 to the [`Inspector`] before hyper reads it, and updates
//! the [`ConnCounters`] that the worker's timeouts compare. It reads no clock.
//!
//! A response that breaks is [cut](ConnCounters::cut_after_flush): its bytes so far, and above all
//! its head, reach the client before the connection ends. A client that saw no byte would send the
//! request again (RFC 9110 section 9.2.2), although it was processed.
//!
//! A client that shuts its sending side behind a request still reads the response (RFC 9112 section
//! 9.6), so hyper sees that end only after the responses. A reset is an error at once.
//!
//! hyper answers a request that it cannot parse by itself, without the fields that every response of
//! cless has. Its bytes are recognised (see [`MeteredIo::refusal`]) and dropped, and the socket
//! waits for the response that the connection provides instead.
//!
//! Bytes behind an upgrade request stay in `pending` until the outcome of the upgrade is known:
//! they are of the new protocol, or the next request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::proxy::client::ConnCounters;
use crate::proxy::wire::h1_framing::{FramingError, Inspector, ReadPhase, rewrite};
use crate::proxy::wire::vectored_tcp::VectoredTcp;

/// Limit of bytes behind an upgrade whose outcome is unknown.
const MAX_PENDING: usize = 16 * 1024;

pub(super) type Socket = Either<VectoredTcp<TcpStream>, Box<TlsStream<TcpStream>>>;

#[derive(Debug)]
pub(super) struct MeteredIo {
    socket: Socket,
    inspector: Inspector,
    counters: Arc<ConnCounters>,
    /// Bytes read from the socket that hyper has not read: those of the protocol detection, or
    /// those behind an upgrade request.
    pending: Vec<u8>,
    is_ended: bool,
    /// Inspected bytes that hyper has not read, because a rewritten target grew.
    rewritten: Vec<u8>,
    /// The current interim response, and the number of its bytes that are written.
    interim: (Vec<u8>, usize),
    /// hyper may answer by itself: all responses are written, and so many requests were begun then.
    /// `None`: not now, or another protocol.
    idle_at: Option<u32>,
    is_http1: bool,
    /// A response of hyper was dropped, and the socket waits for another one.
    is_refusing: bool,
    /// A framing error in the body behind the bytes that were passed on.
    body_error: Option<FramingError>,
}

impl MeteredIo {
    /// `pending`: bytes already read from the socket.
    pub(super) fn new(
        socket: Socket,
        inspector: Inspector,
        counters: Arc<ConnCounters>,
        pending: Vec<u8>,
    ) -> Self {
        let is_http1 = inspector.phase() != ReadPhase::Body;
        Self {
            socket,
            inspector,
            counters,
            pending,
            is_ended: false,
            rewritten: Vec::new(),
            interim: (Vec::new(), 0),
            idle_at: is_http1.then_some(0),
            is_http1,
            is_refusing: false,
            body_error: None,
        }
    }

    /// Inspects the new bytes, which begin at `before` in `buf`, and removes those that must not
    /// be passed on yet.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let fresh = &buf.filled()[before..];
        let found = self.inspector.inspect(fresh);
        self.counters.update(&self.inspector);
        let (passed, held) = fresh.split_at(found.pass);
        if let Some((request, error)) = found.error {
            self.counters.set_framing_error(request, error);
            self.body_error = found.is_in_body.then_some(error);
        }
        match self.body_error {
            Some(error) if passed.is_empty() => return Err(invalid_data(error)),
            None if !held.is_empty() => {
                self.pending.splice(..0, held.iter().copied());
            }
            _ => {}
        }
        let odd = self.inspector.odd();
        if odd.is_empty() {
            buf.set_filled(before + found.pass);
        } else {
            rewrite(passed, odd, &mut self.rewritten);
            buf.set_filled(before);
            give(&mut self.rewritten, buf);
        }
        Ok(())
    }

    /// Reads into `pending` during an upgrade, so that the end of the connection is noticed.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_ended && self.pending.len() < MAX_PENDING {
            let mut bytes = [std::mem::MaybeUninit::uninit(); 2048];
            let mut buf = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
            self.is_ended = buf.filled().is_empty();
            self.pending.extend_from_slice(buf.filled());
        }
        // A client that leaves before the switch cancels its request.
        match self.is_ended && self.pending.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// Writes the interim responses that wait. hyper has nothing to write then, and no response
    /// before they are written, so they are between two messages.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (bytes, sent) = &mut self.interim;
        if bytes.is_empty() {
            *bytes = self.counters.take_interim();
        }
        while *sent < bytes.len() {
            let written = Pin::new(&mut self.socket).poll_write(cx, &bytes[*sent..]);
            self.counters.add_written(&written);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => *sent += written,
            }
        }
        self.interim = (Vec::new(), 0);
        self.counters.interim_written();
        // The handler waits for this.
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    /// The status, if `first`, the begin of a write, is a response of hyper itself.
    ///
    /// hyper parses a head only once the response before it is flushed. So a write is its own if all
    /// responses so far are flushed and no request was given to the handler since.
    fn refusal(&self, first: &[u8]) -> Option<u16> {
        if self.idle_at? != self.counters.begun() {
            return None;
        }
        let status = first.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        let status = std::str::from_utf8(status).ok()?.parse().ok()?;
        (400..600).contains(&status).then_some(status)
    }

    /// Drops a response of hyper of this status.
    fn refuse(&mut self, status: u16) {
        self.idle_at = None;
        self.is_refusing = true;
        self.counters.set_refused(status);
    }

    /// Ready once the response in place of hyper's is known and written.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_refusing {
            // The task of the connection provides it in this turn.
            if !self.counters.has_interim() {
                return Poll::Pending;
            }
            self.is_refusing = false;
        }
        match self.counters.has_interim() {
            true => self.poll_interim(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    /// The client ended its sending side. Ready at once, unless a response is due.
    fn poll_half_closed(&mut self) -> Poll<io::Result<()>> {
        self.is_ended = true;
        self.counters.set_half_closed();
        let is_due = self.inspector.phase() == ReadPhase::Idle
            && self.inspector.heads() != self.counters.ended();
        if !is_due {
            return Poll::Ready(Ok(()));
        }
        let stream = match &self.socket {
            Socket::Left(stream) => &stream.0,
            Socket::Right(stream) => stream.get_ref().0,
        };
        match stream.take_error() {
            Ok(None) => Poll::Pending,
            Ok(Some(error)) | Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// Moves bytes from the front of `from` into the free space of `buf`.
fn give(from: &mut Vec<u8>, buf: &mut ReadBuf<'_>) {
    let take = from.len().min(buf.remaining());
    buf.put_slice(&from[..take]);
    from.drain(..take);
}

fn invalid_data(error: FramingError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for MeteredIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(response) = this.counters.final_response() {
            // The client is late already, so the socket is not awaited.
            let _ = Pin::new(&mut this.socket).poll_write(cx, response);
            let _ = Pin::new(&mut this.socket).poll_shutdown(cx);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if let Some(error) = this.body_error {
            return Poll::Ready(Err(invalid_data(error)));
        }
        if this.inspector.is_upgrade_pending() {
            match this.counters.take_upgrade_outcome() {
                None => return this.poll_pending(cx),
                Some(switched) => this.inspector.resolve_upgrade(switched),
            }
            this.counters.update(&this.inspector);
        }
        let before = buf.filled().len();
        if !this.rewritten.is_empty() {
            give(&mut this.rewritten, buf);
            return Poll::Ready(Ok(()));
        }
        if !this.pending.is_empty() {
            give(&mut this.pending, buf);
        } else if !this.is_ended {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
            this.counters.add_read(buf.filled().len() - before);
        }
        if buf.filled().len() == before {
            return this.poll_half_closed();
        }
        Poll::Ready(this.inspect(buf, before))
    }
}

impl AsyncWrite for MeteredIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(status) = self.refusal(bytes) {
            self.refuse(status);
            return Poll::Ready(Ok(bytes.len()));
        }
        if !self.interim.0.is_empty() {
            ready!(self.poll_interim(cx))?;
        }
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.counters.add_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(status) = bytes.first().and_then(|first| self.refusal(first)) {
            self.refuse(status);
            return Poll::Ready(Ok(bytes.iter().map(|slice| slice.len()).sum()));
        }
        if !self.interim.0.is_empty() {
            ready!(self.poll_interim(cx))?;
        }
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.counters.add_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        // TLS may hold records back until a flush.
        if matches!(self.socket, Socket::Right(_)) {
            self.counters.set_blocked(flushed.is_pending());
        }
        if self.is_http1 && flushed.is_ready() && self.counters.is_idle() {
            self.idle_at = Some(self.counters.begun());
        }
        // Without a shutdown, so that a client over TLS sees no clean end either.
        match flushed {
            Poll::Ready(Ok(())) if self.counters.is_cut() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
