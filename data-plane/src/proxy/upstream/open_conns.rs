//! The open connections of one worker by instance: idle ones of HTTP/1, shared ones of HTTP/2.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use nohash_hasher::IntMap;
use tokio::sync::Mutex;

use super::dial_limiter::DialLimiter;
use super::http1::Http1Conn;
use super::http2::Http2Conn;

/// Ticks of the worker for which a connection stays idle: 1 to 1.5 s. Common servers keep theirs
/// open longer (gunicorn 2 s, Node 5 s), so an instance seldom closes one just as a request is
/// written to it, which could not be sent again. A new local connection costs about 0.1 ms.
const IDLE_TICKS: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct OpenConns {
    by_instance: RefCell<IntMap<u64, InstanceConns>>,
    ticks: Cell<u32>,
}

#[derive(Debug, Default)]
struct InstanceConns {
    idle: Vec<IdleConn>,
    dial_limiter: DialLimiter<IdleConn>,
    shared: Option<SharedConn>,
    /// Held while the shared connection is made, so that concurrent requests make only one.
    connecting: Rc<Mutex<()>>,
}

#[derive(Debug)]
pub(super) struct IdleConn {
    connection: Http1Conn,
    /// The tick at which it was released.
    since: u32,
    /// `Instance::pause_count` when it was made.
    pub(super) sleeps: u64,
}

#[derive(Debug)]
struct SharedConn {
    connection: Http2Conn,
    sleeps: u64,
}

impl OpenConns {
    /// Adds an instance. False if it is known already.
    pub(super) fn insert(&self, serial: u64) -> bool {
        let mut all = self.by_instance.borrow_mut();
        let is_new = !all.contains_key(&serial);
        if is_new {
            all.insert(serial, InstanceConns::default());
        }
        is_new
    }

    pub(super) fn remove(&self, serial: u64) {
        self.by_instance.borrow_mut().remove(&serial);
    }

    /// Closes the idle connections now, and the shared one with its last stream.
    pub(super) fn close_all(&self, serial: u64) {
        if let Some(conns) = self.by_instance.borrow_mut().get_mut(&serial) {
            conns.idle.clear();
            conns.shared = None;
        }
    }

    pub(super) fn close_idle(&self, serial: u64) {
        if let Some(conns) = self.by_instance.borrow_mut().get_mut(&serial) {
            conns.idle.clear();
        }
    }

    /// The idle connection that was used last.
    pub(super) fn take_idle(&self, serial: u64) -> Option<IdleConn> {
        self.by_instance.borrow_mut().get_mut(&serial)?.idle.pop()
    }

    /// The connection, if it is open and has not idled too long.
    pub(super) fn check_idle(&self, idle: IdleConn) -> Option<Http1Conn> {
        let expired = self.ticks.get().wrapping_sub(idle.since) >= IDLE_TICKS;
        let mut connection = idle.connection;
        (!expired && connection.is_open()).then_some(connection)
    }

    /// Gives a connection to the longest waiting request, or keeps it idle.
    pub(super) fn keep(&self, serial: u64, connection: Http1Conn, sleeps: u64) {
        // The task that tracks the instance adds and removes the entry: without it, it has retired.
        if let Some(conns) = self.by_instance.borrow_mut().get_mut(&serial) {
            let since = self.ticks.get();
            let idle = IdleConn {
                connection,
                since,
                sleeps,
            };
            conns.idle.extend(conns.dial_limiter.offer(idle));
        }
    }

    pub(super) fn dial_limiter(&self, serial: u64) -> DialLimiter<IdleConn> {
        let mut all = self.by_instance.borrow_mut();
        all.entry(serial).or_default().dial_limiter.clone()
    }

    pub(super) fn connecting(&self, serial: u64) -> Rc<Mutex<()>> {
        let mut all = self.by_instance.borrow_mut();
        all.entry(serial).or_default().connecting.clone()
    }

    /// The shared connection, unless it is closed or from before a pause.
    pub(super) fn shared(&self, serial: u64, sleeps: u64) -> Option<Http2Conn> {
        let mut all = self.by_instance.borrow_mut();
        let conns = all.get_mut(&serial)?;
        let shared = conns.shared.as_mut()?;
        if shared.sleeps != sleeps || shared.connection.is_closed() {
            conns.shared = None;
            return None;
        }
        Some(shared.connection.clone())
    }

    pub(super) fn share(&self, serial: u64, connection: Http2Conn, sleeps: u64) {
        if let Some(conns) = self.by_instance.borrow_mut().get_mut(&serial) {
            conns.shared = Some(SharedConn { connection, sleeps });
        }
    }

    /// Advances the tick and closes connections that have idled too long.
    pub(super) fn tick(&self) {
        let now = self.ticks.get().wrapping_add(1);
        self.ticks.set(now);
        for conns in self.by_instance.borrow_mut().values_mut() {
            conns.idle.retain_mut(|idle| {
                now.wrapping_sub(idle.since) < IDLE_TICKS && idle.connection.is_open()
            });
        }
    }
}
