//! Messages between workers: new connections, and requests to close idle ones.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::conn_limits::ConnPermit;

/// A command to a worker from another one.
#[derive(Debug)]
pub(super) enum WorkerCommand {
    Serve(AcceptedConn<std::net::TcpStream>),
    /// Close idle connections to the instance with this serial number.
    CloseIdle(u64),
}

/// A client's connection that was accepted and counted. `S`: its socket, of the standard library
/// while it moves to another worker's runtime.
#[derive(Debug)]
pub(super) struct AcceptedConn<S> {
    pub(super) stream: S,
    pub(super) peer: SocketAddr,
    pub(super) encrypted: bool,
    pub(super) permit: ConnPermit,
    pub(super) load: LoadGuard,
}

impl<S> AcceptedConn<S> {
    pub(super) fn try_map<T>(
        self,
        f: impl FnOnce(S) -> io::Result<T>,
    ) -> io::Result<AcceptedConn<T>> {
        Ok(AcceptedConn {
            stream: f(self.stream)?,
            peer: self.peer,
            encrypted: self.encrypted,
            permit: self.permit,
            load: self.load,
        })
    }
}

/// One connection in the load of the worker that serves it, until this is dropped.
#[derive(Debug)]
pub(super) struct LoadGuard(Arc<AtomicUsize>);

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends commands to a worker and knows how many connections it has.
#[derive(Debug, Clone)]
pub(super) struct WorkerHandle {
    commands: mpsc::UnboundedSender<WorkerCommand>,
    load: Arc<AtomicUsize>,
}

impl WorkerHandle {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<WorkerCommand>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let load = Arc::default();
        (Self { commands, load }, receiver)
    }

    pub(super) fn send(&self, command: WorkerCommand) {
        // A worker that has ended drops its commands, which closes the connection.
        let _ = self.commands.send(command);
    }
}

#[derive(Debug, Clone)]
pub(super) struct Peers {
    workers: Arc<[WorkerHandle]>,
    own: usize,
}

impl Peers {
    /// `own`: the index of this worker.
    pub(super) fn new(workers: Arc<[WorkerHandle]>, own: usize) -> Self {
        Self { workers, own }
    }

    /// Requests every other worker to close idle connections to an instance.
    pub(super) fn close_idle(&self, serial: u64) {
        for (index, worker) in self.workers.iter().enumerate() {
            if index != self.own {
                worker.send(WorkerCommand::CloseIdle(serial));
            }
        }
    }

    /// Adds a connection to the worker that has the fewest. The worker is `None` if it is this one.
    pub(super) fn least_loaded(&self) -> Option<(Option<&WorkerHandle>, LoadGuard)> {
        let by_load = |(index, worker): &(usize, &WorkerHandle)| {
            (worker.load.load(Ordering::Relaxed), *index != self.own)
        };
        let (index, worker) = self.workers.iter().enumerate().min_by_key(by_load)?;
        worker.load.fetch_add(1, Ordering::Relaxed);
        let load = LoadGuard(worker.load.clone());
        Some(((index != self.own).then_some(worker), load))
    }
}
