//! The event loop of a worker: accepts connections, executes commands of other workers, ticks.
//!
//! Workers share the listening address (`SO_REUSEPORT`). The kernel spreads few connections
//! unevenly, so the worker that accepts one passes it to the worker with the fewest.
//!
//! ```text
//!  Proxy ── stop, kill ──► worker 0: accept ─► connection ─► request ─► instance
//!                          worker 1: …    ◄── WorkerCommand: Serve, CloseIdle
//! ```

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::client::TICK;
use super::downstream::connection;
use super::peers::{AcceptedConn, Peers, WorkerCommand};
use super::worker::Worker;

/// Pause after a failed accept, mostly for lack of file descriptors, so that connections can end.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The event loop of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct EventLoop {
    worker: Rc<Worker>,
    peers: Peers,
}

impl EventLoop {
    pub(super) fn new(worker: Rc<Worker>, peers: Peers) -> Self {
        Self { worker, peers }
    }

    /// Serves until the returned future is dropped. `listeners`: sockets, true for HTTPS.
    pub(super) async fn run(
        self,
        listeners: Vec<(std::net::TcpListener, bool)>,
        mut commands: mpsc::UnboundedReceiver<WorkerCommand>,
    ) -> io::Result<()> {
        for (listener, encrypted) in listeners {
            let listener = TcpListener::from_std(listener)?;
            tokio::task::spawn_local(self.clone().accept(listener, encrypted));
        }
        let worker = &self.worker;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            tokio::select! {
                () = worker.proxy.stop.cancelled(), if !stopping => {
                    stopping = true;
                    worker.drain_clients();
                }
                command = commands.recv() => match command {
                    Some(WorkerCommand::Serve(conn)) => {
                        if let Ok(conn) = conn.try_map(TcpStream::from_std) {
                            self.serve(conn);
                        }
                    }
                    Some(WorkerCommand::CloseIdle(serial)) => worker.upstreams.close_idle(serial),
                    None => return Ok(()),
                },
                _ = ticks.tick() => worker.tick(),
            }
        }
    }

    async fn accept(self, listener: TcpListener, encrypted: bool) {
        let proxy = self.worker.proxy.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = proxy.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let address = peer.ip().to_canonical();
            let is_exempt = proxy.is_trusted(address);
            let permit = match proxy.conn_limits.acquire(address, is_exempt) {
                Ok(permit) => permit,
                Err(limit) => {
                    self.worker.stats.closed(limit);
                    debug!(%peer, limit, "connection refused: limit reached");
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%peer, %error, "connection ended before it was served");
                continue;
            }
            let Some((other, load)) = self.peers.least_loaded() else {
                continue;
            };
            let conn = AcceptedConn {
                stream,
                peer,
                encrypted,
                permit,
                load,
            };
            let Some(other) = other else {
                self.serve(conn);
                continue;
            };
            if let Ok(conn) = conn.try_map(TcpStream::into_std) {
                other.send(WorkerCommand::Serve(conn));
            }
        }
    }

    fn serve(&self, conn: AcceptedConn<TcpStream>) {
        let tracker = self.worker.proxy.connections.clone();
        let served = connection::serve(self.worker.clone(), conn);
        tokio::task::spawn_local(tracker.track_future(served));
    }
}
