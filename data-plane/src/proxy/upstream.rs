//! One worker's connections to instances, kept open between requests.
//!
//! [`Upstreams`] finds or makes a connection and returns a [`Lease`] of it. Connections are keyed
//! by the instance's serial number and never by address: the engine reuses addresses of removed
//! containers. They are generic over the request body ([`UploadBody`]) and know nothing of
//! requests.
//!
//! Each worker has its own connections, so there is no lock. Workers share two facts per instance:
//!
//! - The number of open connections, at most `concurrency` over all workers. A worker that is about
//!   to exceed it asks the others to close idle ones ([`Peers::close_idle`]). Each of the rest
//!   carries a request, and an instance has at most `concurrency` of them.
//! - Starvation. A server that handles one connection at a time may be waiting on an idle one. If a
//!   new connection gets no response within [`STARVATION_TIMEOUT`], all workers close their idle
//!   connections to the instance and keep none until the response arrives.
//!
//! The most recently used idle connection is taken first, so that the surplus of a burst expires.

mod dial_limiter;
mod head_waker;
mod http1;
mod http2;
mod lease;
mod open_conns;
mod request_body;
mod send_error;
mod shared_conns;
mod stream_placement;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use self::dial_limiter::DialTurn;
use self::http1::Http1Conn;
pub(crate) use self::http1::UpgradedConn;
use self::http2::{Http2Conn, Http2Stream};
use self::lease::Connection;
pub(crate) use self::lease::Lease;
use self::open_conns::{IdleConn, OpenConns};
pub(crate) use self::request_body::UploadBody;
pub(crate) use self::send_error::Repeatable;
use self::shared_conns::SharedConns;
use crate::instance::Instance;
use crate::proxy::peers::Peers;
use crate::proxy::wire::vectored_tcp::VectoredTcp;

/// Time for an instance on this machine to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// After this long without a response on a new connection, the instance may be waiting on an idle
/// one. Reconnecting costs next to nothing if the instance is merely slow.
pub(crate) const STARVATION_TIMEOUT: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamProtocol {
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.3).
    H2c,
}

/// A worker's connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upstreams {
    conns: Rc<OpenConns>,
    peers: Peers,
    /// Limit of the fields of a response head over HTTP/1.
    max_fields: usize,
}

impl Upstreams {
    /// `max_fields`: limit of the fields of a response head over HTTP/1.
    pub(crate) fn new(peers: Peers, max_fields: usize) -> Self {
        Self {
            conns: Rc::default(),
            peers,
            max_fields,
        }
    }

    /// A connection that is already open and ready to send.
    pub(crate) fn take_open(
        &self,
        instance: &Arc<Instance>,
        protocol: UpstreamProtocol,
    ) -> Option<Lease> {
        match protocol {
            UpstreamProtocol::Http1 => loop {
                let idle = self.conns.take_idle(instance.serial())?;
                if let Some(lease) = self.reuse(instance, idle) {
                    return Some(lease);
                }
            },
            UpstreamProtocol::H2c => self.take_shared(instance),
        }
    }

    /// Leases an idle connection, unless it is closed, too old, or from before a pause.
    fn reuse(&self, instance: &Arc<Instance>, idle: IdleConn) -> Option<Lease> {
        let sleeps = idle.sleeps;
        if sleeps != instance.pause_count() {
            return None;
        }
        let connection = self.conns.check_idle(idle)?;
        Some(self.lease(instance, Connection::Http1(connection), sleeps, true))
    }

    fn take_shared(&self, instance: &Arc<Instance>) -> Option<Lease> {
        let sleeps = instance.pause_count();
        let stream = self.conns.take_stream(instance.serial(), sleeps)?;
        Some(self.lease_stream(instance, stream, sleeps))
    }

    fn lease_stream(&self, instance: &Arc<Instance>, stream: Http2Stream, sleeps: u64) -> Lease {
        let reused = stream.reused;
        self.lease(instance, Connection::Http2(stream), sleeps, reused)
    }

    fn lease(
        &self,
        instance: &Arc<Instance>,
        connection: Connection,
        sleeps: u64,
        reused: bool,
    ) -> Lease {
        Lease {
            connection,
            instance: instance.clone(),
            conns: self.conns.clone(),
            sleeps,
            reused,
        }
    }

    /// Makes a new connection, or takes one that another request releases meanwhile, unless it must
    /// be `fresh`. `max_connections`: limit over all workers.
    ///
    /// # Errors
    /// If the instance does not accept within 3 s.
    pub(crate) async fn connect(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
        protocol: UpstreamProtocol,
        max_connections: u32,
        fresh: bool,
    ) -> std::io::Result<Lease> {
        self.track(instance);
        match protocol {
            UpstreamProtocol::Http1 => {
                self.make_room(instance, max_connections);
                match fresh {
                    true => self.dial_http1(instance, address).await,
                    false => self.connect_http1(instance, address).await,
                }
            }
            UpstreamProtocol::H2c => {
                let connecting = self.connect_http2(instance, address, max_connections);
                connecting.await
            }
        }
    }

    /// Has the other workers close idle connections, if the limit is reached.
    fn make_room(&self, instance: &Instance, max_connections: u32) {
        if instance.connections_open() >= max_connections as usize {
            self.peers.close_idle(instance.serial());
        }
    }

    async fn connect_http1(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
    ) -> std::io::Result<Lease> {
        let limiter = self.conns.dial_limiter(instance.serial());
        loop {
            match limiter.turn().await? {
                DialTurn::Reuse(idle) => {
                    if let Some(lease) = self.reuse(instance, idle) {
                        return Ok(lease);
                    }
                }
                DialTurn::Dial => {
                    let dialled = self.dial_http1(instance, address).await;
                    return dialled.inspect_err(|error| limiter.fail_waiters(error));
                }
            }
        }
    }

    async fn dial_http1(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
    ) -> std::io::Result<Lease> {
        let (sleeps, open) = (instance.pause_count(), instance.connection());
        let connection = Http1Conn::new(dial(address).await?, self.max_fields, open);
        Ok(self.lease(instance, Connection::Http1(connection), sleeps, false))
    }

    async fn connect_http2(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
        max_connections: u32,
    ) -> std::io::Result<Lease> {
        let shared = self.conns.shared(instance.serial());
        let turn = shared.turn(instance.pause_count()).await;
        let mut dial = || {
            self.make_room(instance, max_connections);
            // A task of its own, so that the request takes a stream that becomes free meanwhile.
            tokio::task::spawn_local(dial_http2(shared.clone(), instance.clone(), address));
        };
        let stream = poll_fn(|cx| turn.poll_stream(instance.pause_count(), &mut dial, cx)).await?;
        Ok(self.lease_stream(instance, stream, instance.pause_count()))
    }

    /// Drops an instance's idle connections whenever it is paused, and all when it retires. Starts
    /// one task per instance.
    fn track(&self, instance: &Arc<Instance>) {
        let serial = instance.serial();
        if !self.conns.insert(serial) {
            return;
        }
        let (conns, retired) = (self.conns.clone(), instance.retired().clone());
        let mut asleep = instance.watch_pauses();
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    () = retired.cancelled() => break,
                    Ok(()) = asleep.changed() => {}
                }
                conns.close_all(serial);
            }
            conns.remove(serial);
        });
    }

    pub(crate) fn close_idle(&self, serial: u64) {
        self.conns.close_idle(serial);
    }

    pub(crate) fn close_idle_everywhere(&self, instance: &Instance) {
        self.close_idle(instance.serial());
        self.peers.close_idle(instance.serial());
    }

    pub(crate) fn tick(&self) {
        self.conns.tick();
    }
}

async fn dial_http2(shared: Rc<SharedConns>, instance: Arc<Instance>, address: SocketAddr) {
    let (sleeps, open) = (instance.pause_count(), instance.connection());
    let made = async {
        let stream = VectoredTcp(dial(address).await?);
        Http2Conn::new(stream, address, open, shared.waker()).await
    };
    let made = made.await;
    shared.dialled(made, sleeps, instance.pause_count());
}

async fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
