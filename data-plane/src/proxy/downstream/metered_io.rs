//! The bytes of one client's connection: counted, inspected, and held at the gate.
//!
//! A [`Wire`] stands between hyper and the socket. It lets [`framing`](super::framing) look at every
//! byte of HTTP/1 before hyper does, and notes in a [`Meter`] what the worker needs to tell a slow
//! client from a busy one. No clock is read here: the worker compares counters at its ticks.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::framing::{Fault, Inspector, Phase};
use super::joined::Joined;

/// Bytes that may wait behind the gate, while it is not known what they are.
const MAX_STASH: usize = 16 * 1024;

/// Plain or encrypted.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(Joined<TcpStream>),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a connection's bytes say of its client. Written by the [`Wire`], read by its worker, on one
/// thread: atomics only because hyper wants an upgraded connection to be `Send`.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Bytes read.
    pub(super) read: AtomicU64,
    /// Bytes written.
    pub(super) written: AtomicU64,
    /// A write waits for the client.
    pub(super) blocked: AtomicBool,
    /// A [`Phase`].
    phase: AtomicU8,
    /// Heads seen whole.
    pub(super) heads: AtomicU32,
    gate: AtomicU8,
    /// The request at hand asks to switch, and what follows it waits.
    gated: AtomicBool,
    /// The first head that has a fault, and which; at most one a connection.
    fault: Mutex<Option<(u32, Fault)>>,
    faulty: AtomicBool,
    /// The connection is given up, and this is to be said before.
    last: Mutex<Option<Vec<u8>>>,
    given_up: AtomicBool,
}

const GATE_SHUT: u8 = 0;
const GATE_SWITCHED: u8 = 1;
const GATE_NEXT: u8 = 2;

impl Meter {
    /// What the client is about to send.
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Body,
        }
    }

    /// The fault of the request with this number, or of one before it.
    pub(super) fn fault(&self, request: u32) -> Option<Fault> {
        if !self.faulty.load(Ordering::Relaxed) {
            return None;
        }
        let fault = *self.fault.lock();
        fault
            .filter(|(head, _)| *head <= request)
            .map(|(_, fault)| fault)
    }

    /// Part of a head has come, and nothing is on its way to the client.
    pub(super) fn is_in_head(&self) -> bool {
        self.phase() == Phase::Head && !self.blocked.load(Ordering::Relaxed)
    }

    /// The reader, once it is polled again, says this and ends. Only between an answer and the next
    /// request: nothing else may be on its way.
    pub(super) fn say_last(&self, words: Vec<u8>) {
        *self.last.lock() = Some(words);
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Says what the bytes behind a request to switch are: the other protocol, or the next request.
    /// True if that was waited for, so that the connection is to be woken.
    pub(super) fn open_gate(&self, switched: bool) -> bool {
        let gated = self.gated.swap(false, Ordering::Relaxed);
        if gated {
            let to = if switched { GATE_SWITCHED } else { GATE_NEXT };
            self.gate.store(to, Ordering::Relaxed);
        }
        gated
    }

    fn note(&self, inspector: &Inspector) {
        self.phase.store(inspector.phase() as u8, Ordering::Relaxed);
        self.heads.store(inspector.heads(), Ordering::Relaxed);
        if inspector.is_gated() {
            self.gated.store(true, Ordering::Relaxed);
        }
    }
}

/// A client's connection, for hyper.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    inspector: Inspector,
    meter: Arc<Meter>,
    /// Read from the socket and not yet by hyper: what was read to tell the protocol, or what stands
    /// behind the gate.
    stash: Vec<u8>,
    ended: bool,
    /// The body at hand has a fault behind what was passed on.
    broken: Option<Fault>,
}

impl Wire {
    /// `stash`: what was read of it already.
    pub(super) fn new(
        socket: Socket,
        inspector: Inspector,
        meter: Arc<Meter>,
        stash: Vec<u8>,
    ) -> Self {
        Self {
            socket,
            inspector,
            meter,
            stash,
            ended: false,
            broken: None,
        }
    }

    /// Passes on what was just read, which is `buf` from `before`; what must wait goes to the stash.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let fresh = &buf.filled()[before..];
        let found = self.inspector.inspect(fresh);
        self.meter.note(&self.inspector);
        if let Some(fault) = found.fault {
            *self.meter.fault.lock() = Some(fault);
            self.meter.faulty.store(true, Ordering::Relaxed);
            if found.broken {
                buf.set_filled(before + found.pass);
                self.broken = Some(fault.1);
                return match found.pass {
                    0 => Err(io::Error::new(io::ErrorKind::InvalidData, fault.1)),
                    _ => Ok(()),
                };
            }
        }
        if found.pass < fresh.len() {
            let mut held = fresh[found.pass..].to_vec();
            held.append(&mut self.stash);
            self.stash = held;
            buf.set_filled(before + found.pass);
        }
        Ok(())
    }

    /// Says what is to be said last, as far as it can be without waiting for a client that is late
    /// already, and that no more comes.
    fn end(&mut self, cx: &mut Context<'_>) -> io::Error {
        let words = self.meter.last.lock().take();
        if let Some(words) = words {
            let _ = self.socket.poll_write(cx, &words);
            let _ = self.socket.poll_shutdown(cx);
        }
        io::ErrorKind::TimedOut.into()
    }

    /// At the gate: reads on into the stash, so that the end of the connection is seen.
    fn wait_at_gate(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ended && self.stash.len() < MAX_STASH {
            let mut bytes = [std::mem::MaybeUninit::uninit(); 2048];
            let mut buf = ReadBuf::uninit(&mut bytes);
            ready!(self.socket.poll_read(cx, &mut buf))?;
            self.ended = buf.filled().is_empty();
            self.stash.extend_from_slice(buf.filled());
        }
        // A client that leaves before the switch takes its request back.
        match self.ended && self.stash.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.meter.given_up.load(Ordering::Relaxed) {
            return Poll::Ready(Err(this.end(cx)));
        }
        if let Some(fault) = this.broken {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
        }
        if this.inspector.is_gated() {
            match this.meter.gate.swap(GATE_SHUT, Ordering::Relaxed) {
                GATE_SHUT => return this.wait_at_gate(cx),
                to => this.inspector.open_gate(to == GATE_SWITCHED),
            }
            this.meter.note(&this.inspector);
        }
        let before = buf.filled().len();
        if !this.stash.is_empty() {
            let take = this.stash.len().min(buf.remaining());
            buf.put_slice(&this.stash[..take]);
            this.stash.drain(..take);
        } else if !this.ended {
            ready!(this.socket.poll_read(cx, buf))?;
            let read = buf.filled().len() - before;
            this.meter.read.fetch_add(read as u64, Ordering::Relaxed);
        }
        Poll::Ready(this.inspect(buf, before))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.poll_write(cx, bytes);
        self.meter.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        };
        self.meter.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            // What the encryption holds back goes out here.
            Socket::Tls(stream) => {
                let flushed = Pin::new(stream).poll_flush(cx);
                self.meter
                    .blocked
                    .store(flushed.is_pending(), Ordering::Relaxed);
                flushed
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(cx)
    }
}

impl Meter {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.blocked.store(true, Ordering::Relaxed),
            Poll::Ready(Ok(bytes)) => {
                self.written.fetch_add(*bytes as u64, Ordering::Relaxed);
                self.blocked.store(false, Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl Socket {
    /// Reads what there is.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
