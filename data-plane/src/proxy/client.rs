//! One client's connection: identity, counters and limits, as its requests and its worker see it.

mod counters;
mod timeouts;

use std::cell::{Cell, Ref, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use http::HeaderValue;
use tracing::Span;

pub(super) use self::counters::ConnCounters;
pub(super) use self::timeouts::{CloseReason, TICK};
use self::timeouts::{ConnSnapshot, ConnTimeouts};
use super::options::Limits;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    Plain,
    /// TLS, with the server name of the handshake, if the client sent one.
    Tls(Option<Box<str>>),
}

/// A client's connection. Lives on one thread.
#[derive(Debug)]
pub(super) struct ClientConn {
    /// The peer; an IPv4 address of an IPv6 socket is shown as IPv4.
    pub(super) peer: SocketAddr,
    /// The peer's address for `X-Forwarded-For`.
    pub(super) peer_text: HeaderValue,
    /// The operator trusts the peer's forwarding headers.
    pub(super) is_trusted: bool,
    pub(super) counters: Arc<ConnCounters>,
    transport: RefCell<Transport>,
    is_http2: Cell<bool>,
    in_flight: Cell<u32>,
    uploading: Cell<u32>,
    resets: Cell<u32>,
    timeouts: Cell<ConnTimeouts>,
    /// Set once the connection is to be cut.
    closed: Cell<Option<CloseReason>>,
    /// The connection ends after the requests in flight.
    is_draining: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl ClientConn {
    pub(super) fn new(peer: SocketAddr, is_trusted: bool) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let text = HeaderValue::try_from(peer.ip().to_string());
        Self {
            peer,
            peer_text: text.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            is_trusted,
            counters: Arc::default(),
            transport: RefCell::new(Transport::Plain),
            is_http2: Cell::new(false),
            in_flight: Cell::new(0),
            uploading: Cell::new(0),
            resets: Cell::new(0),
            timeouts: Cell::default(),
            closed: Cell::new(None),
            is_draining: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// The span of log lines about this connection. Made only where one is written.
    pub(super) fn span(&self) -> Span {
        let protocol = match self.is_http2() {
            true => "h2",
            false => "http/1.1",
        };
        tracing::debug_span!("client", peer = %self.peer, scheme = self.scheme(), protocol)
    }

    pub(super) fn set_tls(&self, server_name: Option<&str>) {
        self.transport
            .replace(Transport::Tls(server_name.map(Box::from)));
    }

    pub(super) fn transport(&self) -> Ref<'_, Transport> {
        self.transport.borrow()
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        match &*self.transport.borrow() {
            Transport::Plain => "http",
            Transport::Tls(_) => "https",
        }
    }

    pub(super) fn set_http2(&self) {
        self.is_http2.set(true);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.get()
    }

    /// Counts a new request; returns its index, from 0.
    pub(super) fn begin_request(&self) -> u32 {
        let index = self.counters.begin_request();
        self.in_flight.set(self.in_flight.get() + 1);
        index
    }

    pub(super) fn end_request(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.counters.end_request();
    }

    /// Counts a request body that starts or stops waiting for the client.
    pub(super) fn set_uploading(&self, waits: bool) {
        let now = self.uploading.get();
        self.uploading.set(match waits {
            true => now + 1,
            false => now.saturating_sub(1),
        });
    }

    /// Counts a request that the client cancelled. Too many close an HTTP/2 connection.
    pub(super) fn add_reset(&self, limits: &Limits) {
        let resets = self.resets.get() + 1;
        self.resets.set(resets);
        if self.is_http2() && timeouts::too_many_resets(resets, self.counters.begun(), limits) {
            self.close(CloseReason::Resets);
        }
    }

    /// Checks the time limits, and drains or closes the connection if one is exceeded. `now` counts
    /// from any fixed point.
    pub(super) fn check_timeouts(&self, now: Duration, limits: &Limits) -> Option<CloseReason> {
        let counters = &self.counters;
        if counters.is_half_closed() {
            // No event tells of a reset behind the end.
            self.wake();
        }
        let snapshot = ConnSnapshot {
            phase: counters.phase(),
            heads: match self.is_http2() {
                true => counters.begun(),
                false => counters.heads.load(Ordering::Relaxed),
            },
            is_http2: self.is_http2(),
            in_flight: self.in_flight.get(),
            uploading: self.uploading.get(),
            blocked: counters.blocked.load(Ordering::Relaxed),
            read: counters.read.load(Ordering::Relaxed),
            written: counters.written.load(Ordering::Relaxed),
        };
        let mut timeouts = self.timeouts.get();
        let exceeded = timeouts.check(now, snapshot, limits);
        self.timeouts.set(timeouts);
        match exceeded {
            // HTTP/2 announces the end with GOAWAY. A second timeout cuts the connection.
            Some(CloseReason::Idle) if !self.is_draining() => self.drain(),
            Some(reason) => self.close(reason),
            None => {}
        }
        exceeded
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.closed.set(Some(reason));
        self.wake();
    }

    /// Ends the connection after the requests in flight.
    pub(super) fn drain(&self) {
        self.is_draining.set(true);
        self.wake();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// The reason why the connection is cut; `None` while it is open.
    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.closed.get()
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        match &mut *self.waker.borrow_mut() {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }
}
