//! The data planes, in memory: who is connected, what each serves, what each last said.
//!
//! [`registry`] is the pure table; this file is its shell: one lock, held for moments and never
//! across an await, and a `watch` that ticks at every change. [`reconcile`] turns what nodes say
//! into writes (an image's digest, the outcome of a verification); [`replicas`] shares it with other
//! control planes on the same database.

pub(crate) mod reconcile;
pub(crate) mod registry;
pub(crate) mod replicas;
pub(crate) mod report;

use crate::domain::{NodeName, Timestamp};
use crate::feed::Cursor;
use parking_lot::Mutex;
use registry::{NameTaken, Node, Propagation, Registry, StreamId};
use report::{Identity, Quarantined, Report};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A handle on the registry; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Nodes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<()>,
    clock: fn() -> Timestamp,
}

#[derive(Debug, Default)]
struct State {
    registry: Registry,
    /// What ends the stream of each connected node.
    streams: HashMap<String, CancellationToken>,
}

impl Nodes {
    /// A registry without nodes.
    pub(crate) fn new() -> Self {
        Self::with_clock(now)
    }

    /// The same, by another clock than the system's.
    fn with_clock(clock: fn() -> Timestamp) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changes: watch::Sender::new(()),
                clock,
            }),
        }
    }

    /// Enters a node's stream; it leaves when the connection is dropped. An older stream of the
    /// same node is told that it was replaced.
    pub(crate) fn connect(
        &self,
        identity: Identity,
        boot_id: String,
    ) -> Result<Connection, NameTaken> {
        let id = identity.id.clone();
        let replaced = CancellationToken::new();
        let stream = {
            let mut state = self.shared.state.lock();
            let stream = state.registry.connect(identity, boot_id, self.now())?;
            if let Some(older) = state.streams.insert(id.clone(), replaced.clone()) {
                older.cancel();
            }
            stream
        };
        self.changed();
        Ok(Connection {
            nodes: self.clone(),
            id,
            stream,
            replaced,
        })
    }

    /// Takes in a node's report.
    pub(crate) fn report(
        &self,
        identity: Identity,
        boot_id: String,
        report: Report,
    ) -> Result<(), NameTaken> {
        self.shared
            .state
            .lock()
            .registry
            .report(identity, boot_id, report, self.now())?;
        self.changed();
        Ok(())
    }

    /// Reads the registry. `read` must be short: it holds the lock.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Registry) -> T) -> T {
        read(&self.shared.state.lock().registry)
    }

    /// All nodes, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Node> {
        self.read(|registry| registry.nodes().into_iter().cloned().collect())
    }

    /// The nodes that this control plane knows itself.
    pub(crate) fn own(&self) -> Vec<Node> {
        self.read(|registry| registry.own().cloned().collect())
    }

    /// Replaces what other control planes say of their nodes; `changed` if it is not what it was.
    pub(crate) fn set_elsewhere(&self, nodes: BTreeMap<String, Node>, changed: bool) {
        self.shared.state.lock().registry.set_elsewhere(nodes);
        if changed {
            self.changed();
        }
    }

    /// The node of this name.
    pub(crate) fn named(&self, name: &NodeName) -> Option<Node> {
        self.read(|registry| registry.named(name).cloned())
    }

    /// Which of the connected nodes have applied `revision` of `epoch`.
    pub(crate) fn propagation(&self, epoch: &str, revision: i64) -> Propagation {
        self.read(|registry| registry.propagation(epoch, revision))
    }

    /// Names of the connected nodes, in order.
    pub(crate) fn connected(&self) -> Vec<NodeName> {
        self.read(|registry| {
            let connected = registry
                .nodes()
                .into_iter()
                .filter(|node| node.is_connected());
            connected.map(|node| node.identity.name.clone()).collect()
        })
    }

    /// Ticks at every change of the registry.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// Drops nodes that have been gone for long.
    pub(crate) fn forget(&self) {
        if self.shared.state.lock().registry.forget(self.now()) {
            self.changed();
        }
    }

    fn now(&self) -> Timestamp {
        (self.shared.clock)()
    }

    fn changed(&self) {
        self.shared.changes.send_replace(());
    }
}

/// A node's open stream.
#[derive(Debug)]
pub(crate) struct Connection {
    nodes: Nodes,
    id: String,
    stream: StreamId,
    replaced: CancellationToken,
}

impl Connection {
    /// The node serves the table at `cursor`.
    pub(crate) fn applied(&self, cursor: Cursor, quarantined: Vec<Quarantined>) {
        let mut state = self.nodes.shared.state.lock();
        state
            .registry
            .applied(&self.id, self.stream, cursor, quarantined);
        drop(state);
        self.nodes.changed();
    }

    /// The node refused a change.
    pub(crate) fn refused(&self, serving: Option<Cursor>, reason: String) {
        let mut state = self.nodes.shared.state.lock();
        state
            .registry
            .refused(&self.id, self.stream, serving, reason);
        drop(state);
        self.nodes.changed();
    }

    /// Ends when the same node opens another stream.
    pub(crate) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.nodes.shared.state.lock();
        if state
            .registry
            .disconnect(&self.id, self.stream, self.nodes.now())
        {
            state.streams.remove(&self.id);
        }
        drop(state);
        self.nodes.changed();
    }
}

/// The wall clock, read at this edge only.
fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
pub(crate) mod tests;
