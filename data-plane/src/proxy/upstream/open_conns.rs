//! The open connections of one worker by instance: idle ones of HTTP/1, shared ones of HTTP/2.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use nohash_hasher::IntMap;

use super::dial_limiter::DialLimiter;
use super::http1::Http1Conn;
use super::http2::Http2Stream;
use super::shared_conns::SharedConns;

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
    shared: Rc<SharedConns>,
}

#[derive(Debug)]
pub(super) struct IdleConn {
    connection: Http1Conn,
    /// The tick at which it was released.
    since: u32,
    /// `Instance::pause_count` when it was made.
    pub(super) sleeps: u64,
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

    /// Closes the idle connections now, and the shared ones with their last streams.
    pub(super) fn close_all(&self, serial: u64) {
        if let Some(conns) = self.by_instance.borrow_mut().get_mut(&serial) {
            conns.idle.clear();
            conns.shared.close_all();
        }
    }

    pub(super) fn close_idle(&self, serial: u64) {
        if let Some(conns) = self.by_instance.borrow_mut().get_mut(&serial) {
            conns.idle.clear();
            conns.shared.close_idle();
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

    pub(super) fn shared(&self, serial: u64) -> Rc<SharedConns> {
        let mut all = self.by_instance.borrow_mut();
        all.entry(serial).or_default().shared.clone()
    }

    /// A stream of a shared connection, unless requests wait or none has room.
    pub(super) fn take_stream(&self, serial: u64, sleeps: u64) -> Option<Http2Stream> {
        self.by_instance.borrow().get(&serial)?.shared.take(sleeps)
    }

    /// Advances the tick and closes connections that have idled too long.
    pub(super) fn tick(&self) {
        let now = self.ticks.get().wrapping_add(1);
        self.ticks.set(now);
        for conns in self.by_instance.borrow_mut().values_mut() {
            conns.idle.retain_mut(|idle| {
                now.wrapping_sub(idle.since) < IDLE_TICKS && idle.connection.is_open()
            });
            conns.shared.tick();
        }
    }
}
