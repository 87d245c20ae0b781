//! The HTTP/2 connections of one worker to one instance, and the requests that wait for a stream.
//!
//! Most peers allow more streams than an instance has requests, so there is one connection, and a
//! request takes a stream of it at once. Otherwise the requests queue at a fair lock. Its holder is
//! the head of the queue: it is placed ([`place`]) whenever a stream ends, the peer's settings
//! change, or a connection is opened or ends.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::sync::{Mutex, MutexGuard};

use super::head_waker::HeadWaker;
use super::http2::{Http2Conn, Http2Stream};
use super::stream_placement::{Placement, place};

/// Ticks of the worker without a stream after which a surplus connection is closed: 1 to 1.5 s.
const IDLE_TICKS: u32 = 3;
/// Ticks without further attempts, after a surplus connection could not be opened.
const RETRY_TICKS: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct SharedConns {
    /// Oldest first.
    conns: RefCell<Vec<SharedConn>>,
    queue: Mutex<()>,
    head: Rc<HeadWaker>,
    is_dialling: Cell<bool>,
    /// The error of the last attempt to open a connection, for the head.
    failed: RefCell<Option<io::Error>>,
    /// Ticks until another surplus connection may be opened.
    retry_ticks: Cell<u32>,
}

#[derive(Debug)]
struct SharedConn {
    connection: Http2Conn,
    /// `Instance::pause_count` when it was made.
    sleeps: u64,
    /// Ticks without a stream.
    idle_ticks: u32,
}

/// The turn of the head of the queue.
pub(super) struct QueueTurn<'a> {
    shared: &'a SharedConns,
    _lock: MutexGuard<'a, ()>,
}

impl SharedConns {
    /// A stream, unless requests wait or no connection has room.
    pub(super) fn take(&self, sleeps: u64) -> Option<Http2Stream> {
        let _lock = self.queue.try_lock().ok()?;
        let mut conns = self.conns.borrow_mut();
        conns.retain_mut(|conn| conn.is_open(sleeps));
        match place(conns.iter().map(|conn| conn.connection.load()), false) {
            Placement::On(index) => conns.get_mut(index).map(SharedConn::open_stream),
            Placement::Dial | Placement::Wait => None,
        }
    }

    /// Waits until the earlier requests have their streams. Dropped, it leaves the queue.
    pub(super) async fn turn(&self, sleeps: u64) -> QueueTurn<'_> {
        let turn = QueueTurn {
            _lock: self.queue.lock().await,
            shared: self,
        };
        // Of earlier requests, which have left.
        self.failed.take();
        let mut conns = self.conns.borrow_mut();
        conns.retain_mut(|conn| conn.is_open(sleeps));
        drop(conns);
        turn
    }

    /// Wakes the head of the queue once a stream may have become free.
    pub(super) fn waker(&self) -> Rc<HeadWaker> {
        self.head.clone()
    }

    /// Adds a connection, or the error with which it could not be opened. `before`, `now`:
    /// `Instance::pause_count` before and after; a pause waits until no connection is open.
    pub(super) fn dialled(&self, outcome: io::Result<Http2Conn>, before: u64, now: u64) {
        self.is_dialling.set(false);
        match outcome {
            Ok(_) if before != now => {}
            Ok(connection) => self.conns.borrow_mut().push(SharedConn {
                connection,
                sleeps: now,
                idle_ticks: 0,
            }),
            Err(error) => {
                self.failed.replace(Some(error));
            }
        }
        self.head.wake();
    }

    /// Closes the connections, each with its last stream.
    pub(super) fn close_all(&self) {
        self.conns.borrow_mut().clear();
        self.head.wake();
    }

    /// Closes the surplus connections without a stream.
    pub(super) fn close_idle(&self) {
        self.close_surplus(|_| true);
    }

    /// Closes the surplus connections that have idled too long.
    pub(super) fn tick(&self) {
        for conn in self.conns.borrow_mut().iter_mut() {
            conn.idle_ticks += 1;
        }
        self.close_surplus(|conn| conn.idle_ticks >= IDLE_TICKS);
        let left = self.retry_ticks.get();
        if left > 0 {
            self.retry_ticks.set(left - 1);
            self.head.wake();
        }
    }

    fn close_surplus(&self, is_closed: impl Fn(&SharedConn) -> bool) {
        let mut is_first = true;
        self.conns.borrow_mut().retain(|conn| {
            let is_surplus = !std::mem::take(&mut is_first);
            !(is_surplus && conn.connection.load().streams == 0 && is_closed(conn))
        });
    }
}

impl QueueTurn<'_> {
    /// The stream of the head. Calls `dial` to have a connection opened, whose outcome
    /// [`SharedConns::dialled`] takes.
    ///
    /// # Errors
    /// If no connection is left and none can be opened.
    pub(super) fn poll_stream(
        &self,
        sleeps: u64,
        dial: &mut dyn FnMut(),
        cx: &Context<'_>,
    ) -> Poll<io::Result<Http2Stream>> {
        let shared = self.shared;
        shared.head.set(cx);
        let mut conns = shared.conns.borrow_mut();
        let mut refused = None;
        conns.retain_mut(|conn| {
            let is_open = conn.is_open(sleeps);
            if !is_open && !conn.connection.was_used() {
                refused = Some(conn.open_stream());
            }
            is_open
        });
        if let Some(error) = shared.failed.take() {
            if conns.is_empty() {
                return Poll::Ready(Err(error));
            }
            shared.retry_ticks.set(RETRY_TICKS);
        }
        let may_dial = !shared.is_dialling.get()
            && refused.is_none()
            && (shared.retry_ticks.get() == 0 || conns.is_empty());
        match place(conns.iter().map(|conn| conn.connection.load()), may_dial) {
            Placement::On(index) => match conns.get_mut(index) {
                Some(conn) => Poll::Ready(Ok(conn.open_stream())),
                None => Poll::Pending,
            },
            // A connection that ended before it took a request: the request fails with its error.
            _ if let Some(refused) = refused => Poll::Ready(Ok(refused)),
            Placement::Dial => {
                shared.is_dialling.set(true);
                drop(conns);
                dial();
                Poll::Pending
            }
            Placement::Wait => Poll::Pending,
        }
    }
}

impl Drop for QueueTurn<'_> {
    fn drop(&mut self) {
        self.shared.head.clear();
    }
}

impl SharedConn {
    /// Whether it takes requests, and is not from before a pause.
    fn is_open(&mut self, sleeps: u64) -> bool {
        self.sleeps == sleeps && !self.connection.is_closed()
    }

    fn open_stream(&mut self) -> Http2Stream {
        self.idle_ticks = 0;
        self.connection.open_stream()
    }
}
