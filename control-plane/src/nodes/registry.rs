//! The table of data planes and their latest reports. Pure: `now` is an argument.
//!
//! ```text
//!              connect                    stream ends
//!   (unknown) ─────────> CONNECTED ──────────────────────> STALE ── 5 min ──> forgotten
//!                         ^   │  same id connects again      │
//!                         │   └──> the older stream is       │
//!                         │        replaced                  │
//!                         └──────────────────────────────────┘
//! ```
//!
//! A node is identified by its random id. Its name is a unique label for people. While a node is
//! connected, another id with its name is rejected, so that two processes started with one name do
//! not replace each other forever. The name of a stale node is free.
//!
//! Nodes connected to another control plane on the same database come from
//! [`replicas`](super::replicas). If both know a node, the one it connected to last is right.

use crate::domain::{NodeName, Timestamp};
use crate::feed::Cursor;
use crate::nodes::report::{NodeIdentity, NodeReport, QuarantinedRoute, VersionReport};
use std::collections::BTreeMap;
use std::time::Duration;

/// Long enough to notice a missing node in `cless node list`, short enough to keep the list clean.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(300);

/// Identifies one stream of a node, so that the end of a replaced stream does not disconnect its
/// successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

/// Another connected node has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "node name `{name}` is used by another connected data plane: give each its own --node and \
     --cache-dir"
)]
pub(crate) struct NameTaken {
    pub(crate) name: NodeName,
}

/// The node has no open stream with this id, boot id and name to any control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotConnected;

/// One data plane.
#[derive(Debug, Clone)]
pub(crate) struct NodeEntry {
    pub(crate) identity: NodeIdentity,
    /// Identifies the process that called last.
    pub(crate) boot_id: String,
    /// The table it serves. `None`: none, or not reported yet.
    pub(crate) applied: Option<Cursor>,
    /// Services whose latest route it rejected.
    pub(crate) quarantined: Vec<QuarantinedRoute>,
    /// The reason why it rejected the last change. `None` once it applies one.
    pub(crate) rejection: Option<String>,
    /// The table that it serves, if that is newer than the database, which was then restored
    /// without a new epoch. `None` once it applies a change.
    pub(crate) ahead: Option<Cursor>,
    /// Start of its latest stream. `None`: it has not connected.
    pub(crate) connect_time: Option<Timestamp>,
    /// Expiry of the certificate that its latest stream presented. `None`: it had none.
    pub(crate) certificate_expire_time: Option<Timestamp>,
    /// Its last report and the time of its arrival.
    pub(crate) report: Option<(Timestamp, NodeReport)>,
    /// Its stream to this control plane.
    stream: Option<StreamId>,
    /// Whether it has a stream to another control plane.
    connected_to_peer: bool,
    /// Time at which it was last known to be alive.
    last_seen: Timestamp,
}

impl NodeEntry {
    pub(crate) fn new(identity: NodeIdentity, boot_id: String, last_seen: Timestamp) -> Self {
        Self {
            identity,
            boot_id,
            applied: None,
            quarantined: Vec::new(),
            rejection: None,
            ahead: None,
            connect_time: None,
            certificate_expire_time: None,
            report: None,
            stream: None,
            connected_to_peer: false,
            last_seen,
        }
    }

    /// Marks the entry as that of another control plane.
    #[must_use]
    pub(crate) fn into_peer_node(mut self, connected: bool, last_seen: Timestamp) -> Self {
        self.connected_to_peer = connected;
        self.last_seen = last_seen;
        self
    }

    /// Whether it has an open stream to this or another control plane.
    pub(crate) fn is_connected(&self) -> bool {
        self.stream.is_some() || self.connected_to_peer
    }

    /// Whether its stream is open and was opened with this id, boot id and name.
    pub(crate) fn holds_stream(&self, identity: &NodeIdentity, boot_id: &str) -> bool {
        self.is_connected()
            && self.identity.id == identity.id
            && self.identity.name == identity.name
            && self.boot_id == boot_id
    }

    pub(crate) fn stream(&self) -> Option<StreamId> {
        self.stream
    }

    /// Ranks two entries of one node: the greater is right.
    fn precedence(&self) -> (bool, Option<Timestamp>, Timestamp) {
        (self.is_connected(), self.connect_time, self.last_seen)
    }

    /// Time since it was last known to be alive; zero while it is connected.
    pub(crate) fn disconnected_for(&self, now: Timestamp) -> Duration {
        if self.is_connected() {
            Duration::ZERO
        } else {
            self.last_seen.until(now)
        }
    }

    /// Time at which it was last known to be alive. `None` while it is connected.
    pub(crate) fn disconnected_since(&self) -> Option<Timestamp> {
        (!self.is_connected()).then_some(self.last_seen)
    }

    /// The revision it serves. `None` if its table is of another epoch, which does not compare.
    pub(crate) fn applied_revision(&self, epoch: &str) -> Option<i64> {
        let applied = self.applied.as_ref().filter(|at| *at.epoch == *epoch)?;
        Some(applied.revision)
    }

    /// Whether its engine responds. `None`: not reported yet.
    pub(crate) fn engine_responds(&self) -> Option<bool> {
        let (_, report) = self.report.as_ref()?;
        Some(!report.engine.is_empty())
    }

    /// Whether it is out of service, as far as it has reported.
    pub(crate) fn is_drained(&self) -> bool {
        let report = self.report.as_ref();
        report.is_some_and(|(_, report)| report.drained)
    }

    /// Its reports about versions.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &VersionReport> {
        self.report.iter().flat_map(|(_, report)| &report.versions)
    }
}

/// The connected nodes that have applied a feed revision, and the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// Number of nodes that serve it, or a later revision of the same epoch.
    pub(crate) applied: u32,
    /// The other nodes, sorted by name.
    pub(crate) pending: Vec<NodeName>,
    /// The nodes whose table is newer than the database. They are pending, although each stream of
    /// theirs ends at once.
    pub(crate) ahead: Vec<NodeName>,
}

/// All data planes, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    nodes: BTreeMap<String, NodeEntry>,
    /// Nodes of other control planes, by id.
    peer_nodes: BTreeMap<String, NodeEntry>,
    last_stream: u64,
}

impl Registry {
    /// Registers a node's stream. It replaces an older one of the same id.
    pub(crate) fn connect(
        &mut self,
        identity: NodeIdentity,
        boot_id: String,
        now: Timestamp,
    ) -> Result<StreamId, NameTaken> {
        self.last_stream += 1;
        let stream = StreamId(self.last_stream);
        let node = self.touch(identity, boot_id, now)?;
        node.stream = Some(stream);
        node.connect_time = Some(now);
        Ok(stream)
    }

    /// A node's stream presented a certificate that expires then.
    pub(crate) fn record_certificate(
        &mut self,
        id: &str,
        stream: StreamId,
        expire_time: Option<Timestamp>,
    ) {
        if let Some(node) = self.current(id, stream) {
            node.certificate_expire_time = expire_time;
        }
    }

    /// A stream ended. Returns `false` if it was not the node's current stream.
    pub(crate) fn disconnect(&mut self, id: &str, stream: StreamId, now: Timestamp) -> bool {
        let Some(node) = self.current(id, stream) else {
            return false;
        };
        node.stream = None;
        node.last_seen = now;
        true
    }

    /// A node serves the table at `cursor`.
    pub(crate) fn record_applied(
        &mut self,
        id: &str,
        stream: StreamId,
        cursor: Cursor,
        quarantined: Vec<QuarantinedRoute>,
    ) {
        if let Some(node) = self.current(id, stream) {
            node.applied = Some(cursor);
            node.quarantined = quarantined;
            node.rejection = None;
            node.ahead = None;
        }
    }

    /// A node serves a table that is newer than the database. Returns `false` if that is known.
    pub(crate) fn record_ahead(&mut self, id: &str, stream: StreamId, cursor: Cursor) -> bool {
        let Some(node) = self.current(id, stream) else {
            return false;
        };
        node.ahead.replace(cursor.clone()) != Some(cursor)
    }

    /// A node rejected a change and serves the table at `serving`, if any.
    pub(crate) fn record_rejected(
        &mut self,
        id: &str,
        stream: StreamId,
        serving: Option<Cursor>,
        reason: String,
    ) {
        if let Some(node) = self.current(id, stream) {
            node.applied = serving;
            node.rejection = Some(reason);
        }
    }

    /// Replaces a node's report. It counts only from the holder of the node's stream, which may be
    /// open to another control plane: a load balancer can send the two to different ones.
    pub(crate) fn report(
        &mut self,
        identity: &NodeIdentity,
        boot_id: &str,
        report: NodeReport,
        now: Timestamp,
    ) -> Result<(), NotConnected> {
        let own = self.nodes.get_mut(&identity.id);
        let holder = match own.filter(|node| node.holds_stream(identity, boot_id)) {
            Some(own) => Some(own),
            None => {
                let peer = self.peer_nodes.get_mut(&identity.id);
                peer.filter(|node| node.holds_stream(identity, boot_id))
            }
        };
        let Some(node) = holder else {
            return Err(NotConnected);
        };
        node.report = Some((now, report));
        Ok(())
    }

    /// A node has stored whether it is drained. Its report says so only later.
    pub(crate) fn record_drained(&mut self, id: &str, drained: bool) {
        for nodes in [&mut self.nodes, &mut self.peer_nodes] {
            if let Some((_, report)) = nodes.get_mut(id).and_then(|node| node.report.as_mut()) {
                report.drained = drained;
            }
        }
    }

    /// Removes a node at once. The end of its stream then changes nothing.
    pub(crate) fn forget(&mut self, id: &str) {
        self.nodes.remove(id);
        self.peer_nodes.remove(id);
    }

    /// Removes nodes disconnected for [`FORGET_AFTER`]. Returns whether any was removed.
    pub(crate) fn forget_stale(&mut self, now: Timestamp) -> bool {
        let before = self.nodes.len();
        self.nodes
            .retain(|_, node| node.disconnected_for(now) < FORGET_AFTER);
        self.nodes.len() != before
    }

    /// Replaces the nodes of other control planes. A newer report that came here is kept.
    pub(crate) fn set_peer_nodes(&mut self, mut nodes: BTreeMap<String, NodeEntry>) {
        for (id, node) in &mut nodes {
            let before = self.peer_nodes.get_mut(id);
            let Some(before) = before.filter(|before| before.boot_id == node.boot_id) else {
                continue;
            };
            let time = |node: &NodeEntry| node.report.as_ref().map(|(time, _)| *time);
            if time(before) > time(node) {
                node.report = before.report.take();
            }
        }
        self.peer_nodes = nodes;
    }

    /// The nodes known from their own calls to this control plane.
    pub(crate) fn local(&self) -> impl Iterator<Item = &NodeEntry> {
        self.nodes.values()
    }

    /// All nodes, sorted by name. Ids and names are unique.
    pub(crate) fn nodes(&self) -> Vec<&NodeEntry> {
        let mut named: BTreeMap<&NodeName, &NodeEntry> = BTreeMap::new();
        // A peer's entry may be outdated: a node renamed since, or a name taken over by another id.
        let mut ids: BTreeMap<&str, &NodeEntry> = BTreeMap::new();
        for node in self.nodes.values().chain(self.peer_nodes.values()) {
            let known = ids.entry(&node.identity.id).or_insert(node);
            if known.precedence() < node.precedence() {
                *known = node;
            }
        }
        for node in ids.into_values() {
            let known = named.entry(&node.identity.name).or_insert(node);
            if known.precedence() < node.precedence() {
                *known = node;
            }
        }
        named.into_values().collect()
    }

    /// The connected nodes that have applied `revision` of `epoch`. Stale nodes do not count.
    pub(crate) fn propagation(&self, epoch: &str, revision: i64) -> Propagation {
        let mut found = Propagation::default();
        for node in self.nodes() {
            if node.ahead.as_ref().is_some_and(|at| *at.epoch == *epoch) {
                found.ahead.push(node.identity.name.clone());
                found.pending.push(node.identity.name.clone());
                continue;
            }
            if !node.is_connected() {
                continue;
            }
            if node
                .applied_revision(epoch)
                .is_some_and(|at| at >= revision)
            {
                found.applied += 1;
            } else {
                found.pending.push(node.identity.name.clone());
            }
        }
        found
    }

    /// The entries of a node, of this and of other control planes.
    fn by_id(&self, id: &str) -> impl Iterator<Item = &NodeEntry> {
        let entries = [self.nodes.get(id), self.peer_nodes.get(id)];
        entries.into_iter().flatten()
    }

    /// Whether this process of the node has a route stream, to this or another control plane.
    pub(crate) fn is_connected(&self, id: &str, boot_id: &str) -> bool {
        self.by_id(id)
            .any(|node| node.is_connected() && node.boot_id == boot_id)
    }

    /// Whether a report from this id, boot and name would count.
    pub(crate) fn holds_stream(&self, identity: &NodeIdentity, boot_id: &str) -> bool {
        self.by_id(&identity.id)
            .any(|node| node.holds_stream(identity, boot_id))
    }

    /// The node with this name.
    pub(crate) fn by_name(&self, name: &NodeName) -> Option<&NodeEntry> {
        self.nodes()
            .into_iter()
            .find(|node| node.identity.name == *name)
    }

    fn current(&mut self, id: &str, stream: StreamId) -> Option<&mut NodeEntry> {
        self.nodes
            .get_mut(id)
            .filter(|node| node.stream == Some(stream))
    }

    /// Finds or creates the entry of a node that called just now.
    fn touch(
        &mut self,
        identity: NodeIdentity,
        boot_id: String,
        now: Timestamp,
    ) -> Result<&mut NodeEntry, NameTaken> {
        let is_rival = |other: &&NodeEntry| {
            other.identity.name == identity.name && other.identity.id != identity.id
        };
        if self
            .peer_nodes
            .values()
            .any(|other| is_rival(&other) && other.is_connected())
        {
            return Err(NameTaken {
                name: identity.name,
            });
        }
        if let Some(rival) = self.nodes.values().find(is_rival) {
            if rival.is_connected() {
                return Err(NameTaken {
                    name: identity.name,
                });
            }
            let stale = rival.identity.id.clone();
            self.nodes.remove(&stale);
        }
        let node = self
            .nodes
            .entry(identity.id.clone())
            .or_insert_with(|| NodeEntry::new(identity.clone(), boot_id.clone(), now));
        node.identity = identity;
        node.last_seen = now;
        if node.boot_id != boot_id {
            node.boot_id = boot_id;
            // The report of an earlier process no longer holds.
            node.report = None;
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests;
