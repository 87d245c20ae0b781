//! The data planes, in memory: which nodes are connected, what each serves and last reported.
//!
//! [`registry`] is the pure table. This file is its shell: one lock, held briefly and never across
//! an await, and a `watch` that signals every change. [`reconcile`] turns reports into writes;
//! [`replicas`] shares the table with other control planes on the same database. [`control`] keeps
//! the streams that carry questions to nodes: [`resolve`] asks them about images, [`drain`] takes them
//! out of service. [`planes`] has the addresses of the control planes, which nodes learn there.

pub(crate) mod control;
pub(crate) mod drain;
pub(crate) mod planes;
pub(crate) mod reconcile;
pub(crate) mod registry;
pub(crate) mod replicas;
pub(crate) mod report;
pub(crate) mod resolve;

use crate::domain::{NodeName, Timestamp};
use crate::feed::Cursor;
use control::{Answer, ControlStream, ControlStreams, QuestionContent};
use parking_lot::Mutex;
use registry::{NameTaken, NodeEntry, NotConnected, Propagation, Registry, StreamId};
use report::{NodeIdentity, NodeReport, QuarantinedRoute};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// A handle to the registry. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Nodes {
    inner: Arc<NodesInner>,
}

#[derive(Debug)]
struct NodesInner {
    state: Mutex<NodesState>,
    control: ControlStreams,
    changes: watch::Sender<()>,
    clock: fn() -> Timestamp,
}

#[derive(Debug, Default)]
struct NodesState {
    registry: Registry,
    /// By node id: cancelled when a newer stream replaces the connected one.
    streams: HashMap<String, CancellationToken>,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self::with_clock(now)
    }

    fn with_clock(clock: fn() -> Timestamp) -> Self {
        Self {
            inner: Arc::new(NodesInner {
                state: Mutex::default(),
                control: ControlStreams::default(),
                changes: watch::Sender::new(()),
                clock,
            }),
        }
    }

    /// Registers a node's stream until the connection is dropped. An older stream of the same node
    /// is notified that it is replaced.
    pub(crate) fn connect(
        &self,
        identity: NodeIdentity,
        boot_id: String,
    ) -> Result<NodeConnection, NameTaken> {
        let id = identity.id.clone();
        let replaced = CancellationToken::new();
        let stream = {
            let mut state = self.inner.state.lock();
            let stream = state.registry.connect(identity, boot_id, self.now())?;
            if let Some(older) = state.streams.insert(id.clone(), replaced.clone()) {
                older.cancel();
            }
            stream
        };
        self.notify();
        Ok(NodeConnection {
            nodes: self.clone(),
            id,
            stream,
            replaced,
        })
    }

    /// Replaces the report of a node whose stream is open.
    pub(crate) fn report(
        &self,
        identity: &NodeIdentity,
        boot_id: &str,
        report: NodeReport,
    ) -> Result<(), NotConnected> {
        self.inner
            .state
            .lock()
            .registry
            .report(identity, boot_id, report, self.now())?;
        self.notify();
        Ok(())
    }

    /// Whether a report from this id and boot would count.
    pub(crate) fn holds_stream(&self, identity: &NodeIdentity, boot_id: &str) -> bool {
        self.read(|registry| registry.holds_stream(identity, boot_id))
    }

    /// Reads the registry. `read` holds the lock, so it must be short.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Registry) -> T) -> T {
        read(&self.inner.state.lock().registry)
    }

    /// All nodes, in the order of their names.
    pub(crate) fn all(&self) -> Vec<NodeEntry> {
        self.read(|registry| registry.nodes().into_iter().cloned().collect())
    }

    /// The nodes known from their own calls to this control plane.
    pub(crate) fn local(&self) -> Vec<NodeEntry> {
        self.read(|registry| registry.local().cloned().collect())
    }

    /// Replaces the nodes of other control planes. `changed` says whether they differ.
    pub(crate) fn set_peer_nodes(&self, nodes: BTreeMap<String, NodeEntry>, changed: bool) {
        self.inner.state.lock().registry.set_peer_nodes(nodes);
        if changed {
            self.notify();
        }
    }

    /// The node with this name.
    pub(crate) fn by_name(&self, name: &NodeName) -> Option<NodeEntry> {
        self.read(|registry| registry.by_name(name).cloned())
    }

    /// The connected nodes that have applied `revision` of `epoch`, and the others.
    pub(crate) fn propagation(&self, epoch: &str, revision: i64) -> Propagation {
        self.read(|registry| registry.propagation(epoch, revision))
    }

    /// Names of the connected nodes that are not drained, sorted.
    pub(crate) fn in_service(&self) -> Vec<NodeName> {
        self.read(|registry| {
            let nodes = registry.nodes().into_iter();
            let serving = nodes.filter(|node| node.is_connected() && !node.is_drained());
            serving.map(|node| node.identity.name.clone()).collect()
        })
    }

    /// Registers a control stream of a node that has a route stream with this id and boot id.
    pub(crate) fn open_control(
        &self,
        node: &str,
        boot_id: &str,
    ) -> Result<ControlStream, NotConnected> {
        if !self.read(|registry| registry.is_connected(node, boot_id)) {
            return Err(NotConnected);
        }
        let (node, boot_id) = (node.to_owned(), boot_id.to_owned());
        Ok(self.inner.control.open(node, boot_id))
    }

    /// A control stream ended.
    pub(crate) fn close_control(&self, stream: &ControlStream) {
        self.inner.control.close(stream);
    }

    /// Whether the node's current process has a control stream here.
    fn can_ask(&self, node: &NodeEntry) -> bool {
        self.inner.control.has(&node.identity.id, &node.boot_id)
    }

    /// Asks a node; see [`ControlStreams::ask`].
    fn ask(
        &self,
        node: &NodeEntry,
        question: QuestionContent,
    ) -> Option<oneshot::Receiver<Answer>> {
        self.inner.control.ask(&node.identity.id, question)
    }

    /// Passes on a node's answer to a question.
    pub(crate) fn answer(&self, stream: &ControlStream, question: u64, answer: Answer) {
        self.inner.control.answer(stream, question, answer);
    }

    /// Records that a node has stored whether it is drained, ahead of its next report.
    pub(crate) fn record_drained(&self, id: &str, drained: bool) {
        self.inner.state.lock().registry.record_drained(id, drained);
        self.notify();
    }

    /// Signals every change of the registry.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// Forgets a node that was removed from the cluster. Its streams end with its credential.
    pub(crate) fn forget(&self, id: &str) {
        self.inner.state.lock().registry.forget(id);
        self.notify();
    }

    /// Removes nodes that have been disconnected for 5 min.
    pub(crate) fn forget_stale(&self) {
        if self.inner.state.lock().registry.forget_stale(self.now()) {
            self.notify();
        }
    }

    fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    fn notify(&self) {
        self.inner.changes.send_replace(());
    }
}

/// The cause and the remedy of a node's table that is newer than the database.
pub(crate) const RESTORED: &str = "its route table is newer than the database, so the database was \
    restored without a new epoch: stop the control plane, run `cless-control-plane new-epoch`, and \
    start it again; until then the node keeps its table and gets no change";

/// A node's open stream. Dropping it disconnects the node.
#[derive(Debug)]
pub(crate) struct NodeConnection {
    nodes: Nodes,
    id: String,
    stream: StreamId,
    replaced: CancellationToken,
}

impl NodeConnection {
    /// The stream presented a certificate that expires then.
    pub(crate) fn record_certificate(&self, expire_time: Option<Timestamp>) {
        let mut state = self.nodes.inner.state.lock();
        state
            .registry
            .record_certificate(&self.id, self.stream, expire_time);
    }

    /// The node serves the table at `cursor`.
    pub(crate) fn record_applied(&self, cursor: Cursor, quarantined: Vec<QuarantinedRoute>) {
        let mut state = self.nodes.inner.state.lock();
        state
            .registry
            .record_applied(&self.id, self.stream, cursor, quarantined);
        drop(state);
        self.nodes.notify();
    }

    /// The node rejected a change and serves the table at `serving`, if any.
    pub(crate) fn record_rejected(&self, serving: Option<Cursor>, reason: String) {
        let mut state = self.nodes.inner.state.lock();
        state
            .registry
            .record_rejected(&self.id, self.stream, serving, reason);
        drop(state);
        self.nodes.notify();
    }

    /// The node serves a table that is newer than the database. Returns `false` if that is known.
    pub(crate) fn record_ahead(&self, cursor: Cursor) -> bool {
        let mut state = self.nodes.inner.state.lock();
        let new = state.registry.record_ahead(&self.id, self.stream, cursor);
        drop(state);
        self.nodes.notify();
        new
    }

    /// Completes when the same node opens another stream.
    pub(crate) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for NodeConnection {
    fn drop(&mut self) {
        let mut state = self.nodes.inner.state.lock();
        if state
            .registry
            .disconnect(&self.id, self.stream, self.nodes.now())
        {
            state.streams.remove(&self.id);
        }
        drop(state);
        self.nodes.notify();
    }
}

/// The wall clock. The rest of the module takes `now` as an argument.
fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
pub(crate) mod tests;
