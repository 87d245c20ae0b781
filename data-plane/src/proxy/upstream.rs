//! One worker's connections to instances, kept open between requests and keyed by instance.
//!
//! Never by address: the engine gives the address of a container that went to the next one. When an
//! instance retires or is put to sleep, its idle connections are dropped at once, and one that was
//! made before a sleep is not used after it.
//!
//! No lock: each worker has its own. What one must know of the others is in the instance:
//!
//! - At most `concurrency` connections to it are open, over all workers: who is about to open one more
//!   has the others close an idle one ([`Peers::close_idle`]).
//! - An instance that serves one connection at a time must not wait on an idle one. A new connection
//!   that is not answered within [`HUNGRY`] makes its instance *hungry*: idle connections to it
//!   are closed on all workers, and none is kept until the answer is there.
//!
//! The idle connection used last is taken first, so that a burst's surplus idles out. A burst that
//! meets no connection dials a few at once, and shares what it gets ([`dials`]). [`http1`], [`http2`]: what a
//! connection is; [`lease`]: one in use.

#[path = "upstream/dial_limiter.rs"]
mod dials;
pub(super) mod http1;
mod http2;
mod lease;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use self::dials::{Dials, Turn};
use self::http1::Http1;
use self::http2::Http2;
pub(super) use self::lease::Lease;
use self::lease::Sender;
use super::ints::IntMap;
use super::joined::Joined;
use super::worker::Peers;
use crate::instance::guard::Instance;

/// Ticks of the worker for which a connection is kept idle, 1 to 1.5 s: less than the keep-alive of
/// common servers (gunicorn's 2 s, Node's 5 s), so that an instance seldom closes one just as a request
/// is written to it, which could not be sent again. A new connection on this machine costs about 0.1 ms.
const IDLE_TICKS: u32 = 3;
/// A container on this machine that takes longer to accept is not accepting.
const CONNECT: Duration = Duration::from_secs(3);
/// After this long without an answer on a new connection, the instance may be waiting on an old one.
/// To reconnect then costs an instance that is merely slow next to nothing.
pub(super) const HUNGRY: Duration = Duration::from_millis(100);
/// The protocol towards an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speak {
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.3).
    H2c,
}

/// A worker's connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Upstreams {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    known: RefCell<IntMap<u64, Known>>,
    peers: Peers,
    /// Ticks of the worker.
    ticks: Cell<u32>,
}

/// Connections to one instance.
#[derive(Debug, Default)]
struct Known {
    idle: Vec<Idle>,
    dials: Dials<Idle>,
    shared: Option<Shared>,
    /// Held while the shared connection is made, so that many requests at once make one.
    dialling: Rc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Idle {
    connection: Http1,
    since: u32,
    /// [`Instance::sleeps`] when it was made.
    sleeps: u64,
}

/// An HTTP/2 connection, shared by all requests.
#[derive(Debug)]
struct Shared {
    connection: Http2,
    sleeps: u64,
}

impl Upstreams {
    /// None yet. `peers`: the other workers.
    pub(super) fn new(peers: Peers) -> Self {
        Self {
            inner: Rc::new(Inner {
                known: RefCell::default(),
                peers,
                ticks: Cell::new(0),
            }),
        }
    }

    /// A connection that is open already, ready to send.
    pub(super) fn open(&self, instance: &Arc<Instance>, speak: Speak) -> Option<Lease> {
        match speak {
            Speak::Http1 => self.idle(instance),
            Speak::H2c => self.shared(instance),
        }
    }

    /// An idle connection, the one used last.
    fn idle(&self, instance: &Arc<Instance>) -> Option<Lease> {
        loop {
            let found = {
                let mut known = self.inner.known.borrow_mut();
                known.get_mut(&instance.serial())?.idle.pop()?
            };
            if let Some(lease) = self.take_up(instance, found) {
                return Some(lease);
            }
        }
    }

    /// The next request on a connection that is done with the last, if it may carry one more.
    fn take_up(&self, instance: &Arc<Instance>, idle: Idle) -> Option<Lease> {
        let old = self.inner.ticks.get().wrapping_sub(idle.since) >= IDLE_TICKS;
        if old || idle.sleeps != instance.sleeps() {
            return None;
        }
        let mut connection = idle.connection;
        let reusable = connection.is_open();
        reusable.then(|| self.lease(instance, Sender::Http1(connection), idle.sleeps, true))
    }

    fn shared(&self, instance: &Arc<Instance>) -> Option<Lease> {
        let mut all = self.inner.known.borrow_mut();
        let known = all.get_mut(&instance.serial())?;
        let shared = known.shared.as_mut()?;
        if shared.sleeps != instance.sleeps() || shared.connection.is_closed() {
            known.shared = None;
            return None;
        }
        let (connection, sleeps) = (shared.connection.clone(), shared.sleeps);
        Some(self.lease(instance, Sender::H2c(connection), sleeps, true))
    }

    fn lease(&self, instance: &Arc<Instance>, sender: Sender, sleeps: u64, reused: bool) -> Lease {
        Lease {
            sender,
            instance: instance.clone(),
            upstreams: self.clone(),
            sleeps,
            reused,
        }
    }

    /// A new connection; `most` are open over all workers.
    ///
    /// # Errors
    /// If the instance does not accept within 3 s.
    pub(super) async fn connect(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
        speak: Speak,
        most: u32,
    ) -> std::io::Result<Lease> {
        self.watch(instance);
        if instance.connections_open() >= most as usize {
            self.inner.peers.close_idle(instance.serial());
        }
        match speak {
            Speak::Http1 => self.reach_http1(instance, address).await,
            Speak::H2c => {
                let dialling = {
                    let mut known = self.inner.known.borrow_mut();
                    known.entry(instance.serial()).or_default().dialling.clone()
                };
                let _turn = dialling.lock().await;
                match self.shared(instance) {
                    Some(lease) => Ok(lease),
                    None => self.connect_h2c(instance, address).await,
                }
            }
        }
    }

    /// One that another request has done with, or a new one when it is this one's turn to dial.
    async fn reach_http1(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
    ) -> std::io::Result<Lease> {
        let dials = {
            let mut known = self.inner.known.borrow_mut();
            known.entry(instance.serial()).or_default().dials.clone()
        };
        loop {
            match dials.turn().await? {
                Turn::Use(idle) => {
                    if let Some(lease) = self.take_up(instance, idle) {
                        return Ok(lease);
                    }
                }
                Turn::Dial => {
                    let connected = self.connect_http1(instance, address).await;
                    return connected.inspect_err(|error| dials.failed(error));
                }
            }
        }
    }

    async fn connect_http1(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
    ) -> std::io::Result<Lease> {
        let (sleeps, open) = (instance.sleeps(), instance.connection());
        let connection = Http1::new(dial(address).await?, open);
        Ok(self.lease(instance, Sender::Http1(connection), sleeps, false))
    }

    async fn connect_h2c(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
    ) -> std::io::Result<Lease> {
        let (sleeps, open) = (instance.sleeps(), instance.connection());
        let connection = Http2::new(Joined(dial(address).await?), address, open).await?;
        if let Some(known) = self.inner.known.borrow_mut().get_mut(&instance.serial()) {
            let connection = connection.clone();
            known.shared = Some(Shared { connection, sleeps });
        }
        Ok(self.lease(instance, Sender::H2c(connection), sleeps, false))
    }

    /// Drops an instance's idle connections whenever it is put to sleep, and when it retires. Once
    /// per instance.
    fn watch(&self, instance: &Arc<Instance>) {
        let serial = instance.serial();
        let mut known = self.inner.known.borrow_mut();
        if known.contains_key(&serial) {
            return;
        }
        known.insert(serial, Known::default());
        let (upstreams, retired) = (self.clone(), instance.retired().clone());
        let mut asleep = instance.falls_asleep();
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    () = retired.cancelled() => break,
                    Ok(()) = asleep.changed() => {}
                }
                upstreams.close(serial);
            }
            upstreams.inner.known.borrow_mut().remove(&serial);
        });
    }

    /// Closes what idles towards an instance. What is shared closes with its last stream.
    fn close(&self, serial: u64) {
        if let Some(known) = self.inner.known.borrow_mut().get_mut(&serial) {
            known.idle.clear();
            known.shared = None;
        }
    }

    /// Another worker needs the instance: what idles towards it is closed.
    pub(super) fn close_idle(&self, serial: u64) {
        if let Some(known) = self.inner.known.borrow_mut().get_mut(&serial) {
            known.idle.clear();
        }
    }

    /// The instance seems to wait on an idle connection: those are closed everywhere.
    pub(super) fn feed(&self, instance: &Instance) {
        self.close_idle(instance.serial());
        self.inner.peers.close_idle(instance.serial());
    }

    /// A tick of the worker: closes connections that were idle for too long.
    pub(super) fn tick(&self) {
        let now = self.inner.ticks.get().wrapping_add(1);
        self.inner.ticks.set(now);
        for known in self.inner.known.borrow_mut().values_mut() {
            known.idle.retain_mut(|one| {
                now.wrapping_sub(one.since) < IDLE_TICKS && one.connection.is_open()
            });
        }
    }
}

async fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
