//! Connections to instances, kept open between requests and keyed by instance.
//!
//! Never by address: the engine gives the address of a container that went to the next one. When an
//! instance retires or is put to sleep, its idle connections are dropped at once, and one that was
//! made before a sleep is not used after it.
//!
//! At most `concurrency` connections per instance exist, because each is held by a request with a
//! place or idle for the next one, and the idle one used last is taken first: an instance that
//! serves one connection at a time is not left waiting on an idle one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tracing::debug;

use super::body::RequestBody;
use crate::instance::guard::Instance;

/// The longest a connection is kept idle: less than the keep-alive of common servers (gunicorn's 2 s,
/// Node's 5 s), so that an instance seldom closes one just as a request is written to it, which
/// could not be sent again. A new connection on this machine costs about 0.1 ms.
const IDLE: Duration = Duration::from_millis(1500);
/// A container on this machine that takes longer to accept is not accepting.
const CONNECT: Duration = Duration::from_secs(3);

/// Connections of a node to its instances. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    idle: Arc<Mutex<HashMap<u64, Vec<Idle>>>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
    /// [`Instance::sleeps`] when it was made.
    sleeps: u64,
}

/// A connection in use. Dropped, it is closed; given back, it is kept for the next request.
#[derive(Debug)]
pub struct Lease {
    sender: SendRequest<RequestBody>,
    instance: Arc<Instance>,
    connections: Connections,
    sleeps: u64,
    reused: bool,
}

impl Lease {
    /// What sends on it.
    pub fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.sender
    }

    /// It served a request before, so the instance may have closed it meanwhile.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Keeps it for the next request, unless it is closed or its instance takes none.
    pub fn give_back(self) {
        let slept = self.sleeps != self.instance.sleeps();
        if slept || self.sender.is_closed() || self.instance.retired().is_cancelled() {
            return;
        }
        let serial = self.instance.serial();
        let idle = Idle {
            sender: self.sender,
            since: Instant::now(),
            sleeps: self.sleeps,
        };
        self.connections
            .idle
            .lock()
            .entry(serial)
            .or_default()
            .push(idle);
        // Retired in between: the entry must not outlive it.
        if self.instance.retired().is_cancelled() {
            self.connections.idle.lock().remove(&serial);
        }
    }
}

impl Connections {
    /// An idle connection to `instance`, the one used last, ready to send.
    pub async fn idle(&self, instance: &Arc<Instance>) -> Option<Lease> {
        loop {
            let found = {
                let mut idle = self.idle.lock();
                idle.get_mut(&instance.serial())?.pop()?
            };
            if found.sleeps != instance.sleeps() {
                continue;
            }
            let mut sender = found.sender;
            // Both bodies of its last request are done, so this takes a turn of the connection's
            // task at most; an error means it is closed.
            if found.since.elapsed() < IDLE && sender.ready().await.is_ok() {
                return Some(Lease {
                    sender,
                    instance: instance.clone(),
                    connections: self.clone(),
                    sleeps: found.sleeps,
                    reused: true,
                });
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// If the instance does not accept within 3 s.
    pub async fn connect(
        &self,
        instance: &Arc<Instance>,
        address: SocketAddr,
    ) -> std::io::Result<Lease> {
        let (sleeps, open) = (instance.sleeps(), instance.connection());
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%address, %error, "a connection to an instance ended");
            }
            drop(open);
        });
        self.watch(instance);
        Ok(Lease {
            sender,
            instance: instance.clone(),
            connections: self.clone(),
            sleeps,
            reused: false,
        })
    }

    /// Drops an instance's idle connections whenever it is put to sleep, and when it retires. Once
    /// per instance.
    fn watch(&self, instance: &Arc<Instance>) {
        let serial = instance.serial();
        let first = {
            let mut idle = self.idle.lock();
            let first = !idle.contains_key(&serial);
            idle.entry(serial).or_default();
            first
        };
        if first {
            let (connections, retired) = (self.clone(), instance.retired().clone());
            let mut asleep = instance.falls_asleep();
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        () = retired.cancelled() => break,
                        Ok(()) = asleep.changed() => {}
                    }
                    if let Some(idle) = connections.idle.lock().get_mut(&serial) {
                        idle.clear();
                    }
                }
                connections.idle.lock().remove(&serial);
            });
        }
    }

    /// Closes connections that were idle for too long. Run now and then.
    pub fn close_idle(&self) {
        for connections in self.idle.lock().values_mut() {
            connections.retain(|one| one.since.elapsed() < IDLE && !one.sender.is_closed());
        }
    }
}
