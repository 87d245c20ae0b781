//! One client's connection, as its worker knows it, and the count of all of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;

use super::options::Limits;
use super::watch::{self, Closed, Reading, Watch};
use super::wire::Meter;

/// How the other end is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    /// Plain TCP.
    Plain,
    /// TLS, with the host that the client named in its handshake.
    Tls(Option<Box<str>>),
}

/// A client's connection. On one thread.
#[derive(Debug)]
pub(super) struct Client {
    /// The other end, an IPv4 client of an IPv6 socket as IPv4.
    pub(super) peer: SocketAddr,
    /// Its address, as it goes into `X-Forwarded-For`.
    pub(super) peer_text: HeaderValue,
    /// What it says of those before it is believed.
    pub(super) trusted: bool,
    pub(super) meter: Arc<Meter>,
    transport: RefCell<Transport>,
    http2: Cell<bool>,
    requests: Cell<u32>,
    in_flight: Cell<u32>,
    uploading: Cell<u32>,
    resets: Cell<u32>,
    watch: Cell<Watch>,
    closed: Cell<Option<Closed>>,
    /// Told to end once its requests have.
    draining: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    pub(super) fn new(peer: SocketAddr, trusted: bool) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let text = HeaderValue::try_from(peer.ip().to_string());
        Self {
            peer,
            peer_text: text.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            trusted,
            meter: Arc::default(),
            transport: RefCell::new(Transport::Plain),
            http2: Cell::new(false),
            requests: Cell::new(0),
            in_flight: Cell::new(0),
            uploading: Cell::new(0),
            resets: Cell::new(0),
            watch: Cell::default(),
            closed: Cell::new(None),
            draining: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// TLS is spoken.
    pub(super) fn encrypted(&self, server_name: Option<&str>) {
        self.transport
            .replace(Transport::Tls(server_name.map(Box::from)));
    }

    pub(super) fn transport(&self) -> std::cell::Ref<'_, Transport> {
        self.transport.borrow()
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        match &*self.transport.borrow() {
            Transport::Plain => "http",
            Transport::Tls(_) => "https",
        }
    }

    /// HTTP/2 is spoken.
    pub(super) fn speaks_http2(&self) {
        self.http2.set(true);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.get()
    }

    /// A request has begun; its number, from 0.
    pub(super) fn request_began(&self) -> u32 {
        let number = self.requests.get();
        self.requests.set(number.wrapping_add(1));
        self.in_flight.set(self.in_flight.get() + 1);
        number
    }

    pub(super) fn request_ended(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// A body waits for the client, or does not any more.
    pub(super) fn uploading(&self, waits: bool) {
        let now = self.uploading.get();
        self.uploading.set(if waits {
            now + 1
        } else {
            now.saturating_sub(1)
        });
    }

    /// The client took a request back.
    pub(super) fn took_back(&self, limits: &Limits) {
        let resets = self.resets.get() + 1;
        self.resets.set(resets);
        if self.http2.get() && watch::too_many_resets(resets, self.requests.get(), limits) {
            self.close(Closed::Resets);
        }
    }

    /// One look at whether it has cost enough; tells if it has.
    pub(super) fn look(&self, now: Duration, limits: &Limits) -> Option<Closed> {
        let seen = Reading {
            phase: self.meter.phase(),
            heads: match self.http2.get() {
                true => self.requests.get(),
                false => self.meter.heads.load(Ordering::Relaxed),
            },
            http2: self.http2.get(),
            in_flight: self.in_flight.get(),
            uploading: self.uploading.get(),
            blocked: self.meter.blocked.load(Ordering::Relaxed),
            read: self.meter.read.load(Ordering::Relaxed),
            written: self.meter.written.load(Ordering::Relaxed),
        };
        let mut watch = self.watch.get();
        let closed = watch.look(now, seen, limits);
        self.watch.set(watch);
        match closed {
            // Told first: HTTP/2 has a word for it. At the second time it is cut.
            Some(Closed::Idle) if !self.draining.get() => self.drain(),
            Some(closed) => self.close(closed),
            None => {}
        }
        closed
    }

    /// Cuts it.
    pub(super) fn close(&self, why: Closed) {
        self.closed.set(Some(why));
        self.wake();
    }

    /// Has it end once its requests have.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.wake();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Why it is cut, if it is.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed.get()
    }

    /// Has its task look at it.
    pub(super) fn wake(&self) {
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The task that serves it.
    pub(super) fn served_by(&self, waker: &Waker) {
        match &mut *self.waker.borrow_mut() {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }
}

/// All connections of clients. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Census {
    inner: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    all: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
    max_by_address: usize,
}

/// A connection that is counted, until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    census: Census,
    address: Option<IpAddr>,
}

impl Census {
    pub(super) fn new(max: usize, max_by_address: usize) -> Self {
        Self {
            inner: Arc::new(Counts {
                all: AtomicUsize::new(0),
                by_address: Mutex::default(),
                max,
                max_by_address,
            }),
        }
    }

    /// Counts a connection; an address is not `limited` if it stands for many clients.
    ///
    /// # Errors
    /// The label of the limit that is reached.
    pub(super) fn enter(&self, address: IpAddr, limited: bool) -> Result<Seat, &'static str> {
        let mut seat = Seat {
            census: self.clone(),
            address: None,
        };
        if self.inner.all.fetch_add(1, Ordering::Relaxed) >= self.inner.max {
            return Err("max_connections");
        }
        if limited {
            let mut by_address = self.inner.by_address.lock();
            let count = by_address.entry(address).or_insert(0);
            if *count >= self.inner.max_by_address {
                return Err("max_connections_per_ip");
            }
            *count += 1;
            seat.address = Some(address);
        }
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.census.inner.all.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.census.inner.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_takes_more_seats_than_its_share() {
        let census = Census::new(4, 2);
        let (a, b) = (IpAddr::from([1, 1, 1, 1]), IpAddr::from([2, 2, 2, 2]));
        let seats = (
            census.enter(a, true).unwrap(),
            census.enter(a, true).unwrap(),
        );
        assert_eq!(census.enter(a, true).unwrap_err(), "max_connections_per_ip");
        let _trusted = census.enter(a, false).unwrap();
        let _other = census.enter(b, true).unwrap();
        assert_eq!(census.enter(b, true).unwrap_err(), "max_connections");
        drop(seats);
        assert!(census.enter(a, true).is_ok());
        assert_eq!(census.inner.all.load(Ordering::Relaxed), 2);
    }
}
