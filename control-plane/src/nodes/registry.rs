//! Which data planes there are and what they last said: a pure table, `now` passed in.
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
//! A node *is* its random id. Its name is a label for people, and unique: while the id that holds a
//! name is connected another id is refused it, so that two processes started with one name do not
//! chase each other away for ever; a name whose holder is gone is free to take.
//!
//! Nodes that are connected to another control plane on the same database are known as that one says
//! ([`replicas`](super::replicas)); a node that both know is taken from where it connected last.

use crate::domain::{NodeName, Timestamp};
use crate::feed::Cursor;
use crate::nodes::report::{Identity, Quarantined, Report, VersionReport};
use std::collections::BTreeMap;
use std::time::Duration;

/// Long enough to see in `cless node list` what is missing, short enough not to litter it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Names one stream of one node, so that the end of a replaced stream does not end its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

/// Another live node has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "node name `{name}` is used by another connected data plane; give each its own --node, and its \
     own --cache-dir"
)]
pub(crate) struct NameTaken {
    /// The name in question.
    pub(crate) name: NodeName,
}

/// One data plane.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Who it says it is.
    pub(crate) identity: Identity,
    /// The process it was when it last spoke.
    pub(crate) boot_id: String,
    /// The table it serves.
    pub(crate) applied: Option<Cursor>,
    /// Routes it keeps at their last good value.
    pub(crate) quarantined: Vec<Quarantined>,
    /// Why it refused the last change, until it applies one.
    pub(crate) refusal: Option<String>,
    /// When its stream was opened; kept while stale.
    pub(crate) connect_time: Option<Timestamp>,
    /// Its last report and when it came.
    pub(crate) report: Option<(Timestamp, Report)>,
    stream: Option<StreamId>,
    /// Whether it has a stream to another control plane.
    elsewhere: bool,
    /// When it was last known to live.
    seen: Timestamp,
}

impl Node {
    /// One of which nothing but this is known.
    pub(crate) fn new(identity: Identity, boot_id: String, seen: Timestamp) -> Self {
        Self {
            identity,
            boot_id,
            applied: None,
            quarantined: Vec::new(),
            refusal: None,
            connect_time: None,
            report: None,
            stream: None,
            elsewhere: false,
            seen,
        }
    }

    /// The same node as another control plane has it.
    #[must_use]
    pub(crate) fn elsewhere(mut self, connected: bool, seen: Timestamp) -> Self {
        self.elsewhere = connected;
        self.seen = seen;
        self
    }

    /// Whether it has an open stream, be it to another control plane.
    pub(crate) fn is_connected(&self) -> bool {
        self.stream.is_some() || self.elsewhere
    }

    /// Its stream to this control plane.
    pub(crate) fn stream(&self) -> Option<StreamId> {
        self.stream
    }

    /// Of two accounts of a node the one with the greater is right.
    fn authority(&self) -> (bool, Option<Timestamp>, Timestamp) {
        (self.is_connected(), self.connect_time, self.seen)
    }

    /// How long ago it was last known to live, if it is not connected.
    pub(crate) fn gone_for(&self, now: Timestamp) -> Duration {
        if self.is_connected() {
            Duration::ZERO
        } else {
            self.seen.until(now)
        }
    }

    /// When it was last known to live, if it is not connected.
    pub(crate) fn gone_since(&self) -> Option<Timestamp> {
        (!self.is_connected()).then_some(self.seen)
    }

    /// The revision of `epoch` that it serves. Revisions of two epochs do not compare.
    pub(crate) fn serves(&self, epoch: &str) -> Option<i64> {
        let applied = self.applied.as_ref().filter(|at| *at.epoch == *epoch)?;
        Some(applied.revision)
    }

    /// What it reported of versions.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &VersionReport> {
        self.report.iter().flat_map(|(_, report)| &report.versions)
    }
}

/// How far a revision of the feed has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// Connected nodes that serve it, or a later one of the same epoch.
    pub(crate) applied: u32,
    /// Connected nodes that do not, in the order of their names.
    pub(crate) pending: Vec<NodeName>,
}

/// All data planes, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    nodes: BTreeMap<String, Node>,
    /// As other control planes say.
    elsewhere: BTreeMap<String, Node>,
    last_stream: u64,
}

impl Registry {
    /// A stream of a node was opened. An older one of the same id is replaced.
    pub(crate) fn connect(
        &mut self,
        identity: Identity,
        boot_id: String,
        now: Timestamp,
    ) -> Result<StreamId, NameTaken> {
        self.last_stream += 1;
        let stream = StreamId(self.last_stream);
        let node = self.heard(identity, boot_id, now)?;
        node.stream = Some(stream);
        node.connect_time = Some(now);
        Ok(stream)
    }

    /// A stream ended; `false` if it was not the node's current one.
    pub(crate) fn disconnect(&mut self, id: &str, stream: StreamId, now: Timestamp) -> bool {
        let Some(node) = self.current(id, stream) else {
            return false;
        };
        node.stream = None;
        node.seen = now;
        true
    }

    /// A node serves the table at `cursor`.
    pub(crate) fn applied(
        &mut self,
        id: &str,
        stream: StreamId,
        cursor: Cursor,
        quarantined: Vec<Quarantined>,
    ) {
        if let Some(node) = self.current(id, stream) {
            node.applied = Some(cursor);
            node.quarantined = quarantined;
            node.refusal = None;
        }
    }

    /// A node refused a change and serves the table at `serving`, if any.
    pub(crate) fn refused(
        &mut self,
        id: &str,
        stream: StreamId,
        serving: Option<Cursor>,
        reason: String,
    ) {
        if let Some(node) = self.current(id, stream) {
            node.applied = serving;
            node.refusal = Some(reason);
        }
    }

    /// A node said how it is.
    pub(crate) fn report(
        &mut self,
        identity: Identity,
        boot_id: String,
        report: Report,
        now: Timestamp,
    ) -> Result<(), NameTaken> {
        self.heard(identity, boot_id, now)?.report = Some((now, report));
        Ok(())
    }

    /// Drops what has been gone for long; `true` if anything was.
    pub(crate) fn forget(&mut self, now: Timestamp) -> bool {
        let before = self.nodes.len();
        self.nodes
            .retain(|_, node| node.gone_for(now) < FORGOTTEN_AFTER);
        self.nodes.len() != before
    }

    /// Replaces what other control planes say of their nodes.
    pub(crate) fn set_elsewhere(&mut self, nodes: BTreeMap<String, Node>) {
        self.elsewhere = nodes;
    }

    /// Nodes that this control plane knows itself.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All nodes, in the order of their names, which are unique.
    pub(crate) fn nodes(&self) -> Vec<&Node> {
        let mut named: BTreeMap<&NodeName, &Node> = BTreeMap::new();
        // An id that took another name, or a name that another id took, is shown as who has it now.
        let mut ids: BTreeMap<&str, &Node> = BTreeMap::new();
        for node in self.nodes.values().chain(self.elsewhere.values()) {
            let known = ids.entry(&node.identity.id).or_insert(node);
            if known.authority() < node.authority() {
                *known = node;
            }
        }
        for node in ids.into_values() {
            let known = named.entry(&node.identity.name).or_insert(node);
            if known.authority() < node.authority() {
                *known = node;
            }
        }
        named.into_values().collect()
    }

    /// Which of the connected nodes have applied `revision` of `epoch`. One that is gone counts neither way: nobody
    /// waits for it.
    pub(crate) fn propagation(&self, epoch: &str, revision: i64) -> Propagation {
        let mut found = Propagation::default();
        for node in self.nodes().into_iter().filter(|node| node.is_connected()) {
            if node.serves(epoch).is_some_and(|at| at >= revision) {
                found.applied += 1;
            } else {
                found.pending.push(node.identity.name.clone());
            }
        }
        found
    }

    /// The node of this name.
    pub(crate) fn named(&self, name: &NodeName) -> Option<&Node> {
        self.nodes()
            .into_iter()
            .find(|node| node.identity.name == *name)
    }

    fn current(&mut self, id: &str, stream: StreamId) -> Option<&mut Node> {
        self.nodes
            .get_mut(id)
            .filter(|node| node.stream == Some(stream))
    }

    /// Finds or enters a node that spoke just now.
    fn heard(
        &mut self,
        identity: Identity,
        boot_id: String,
        now: Timestamp,
    ) -> Result<&mut Node, NameTaken> {
        let is_rival = |other: &&Node| {
            other.identity.name == identity.name && other.identity.id != identity.id
        };
        if self
            .elsewhere
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
            let gone = rival.identity.id.clone();
            self.nodes.remove(&gone);
        }
        let node = self
            .nodes
            .entry(identity.id.clone())
            .or_insert_with(|| Node::new(identity.clone(), boot_id.clone(), now));
        node.identity = identity;
        node.seen = now;
        if node.boot_id != boot_id {
            node.boot_id = boot_id;
            // What the process before this one said of its instances is no longer so.
            node.report = None;
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests;
