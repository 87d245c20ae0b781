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
    /// When it was last known to live.
    seen: Timestamp,
}

impl Node {
    /// Whether it has an open stream.
    pub(crate) fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// How long ago it was last known to live, if it is not connected.
    pub(crate) fn gone_for(&self, now: Timestamp) -> Duration {
        if self.is_connected() {
            Duration::ZERO
        } else {
            self.seen.until(now)
        }
    }

    /// What it reported of versions.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &VersionReport> {
        self.report.iter().flat_map(|(_, report)| &report.versions)
    }
}

/// All data planes, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    nodes: BTreeMap<String, Node>,
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

    /// All nodes, in the order of their names.
    pub(crate) fn nodes(&self) -> Vec<&Node> {
        let mut nodes: Vec<_> = self.nodes.values().collect();
        nodes.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
        nodes
    }

    /// The node of this name.
    pub(crate) fn named(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.values().find(|node| node.identity.name == *name)
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
        let rival = self
            .nodes
            .values()
            .find(|other| other.identity.name == identity.name && other.identity.id != identity.id);
        if let Some(rival) = rival {
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
            .or_insert_with(|| Node {
                identity: identity.clone(),
                boot_id: boot_id.clone(),
                applied: None,
                quarantined: Vec::new(),
                refusal: None,
                connect_time: None,
                report: None,
                stream: None,
                seen: now,
            });
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity(id: &str, name: &str) -> Identity {
        Identity {
            id: id.into(),
            name: named(name),
            version: "1".into(),
        }
    }

    fn named(name: &str) -> NodeName {
        NodeName::parse(name).expect("a label")
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_live_nodes_name_is_refused_and_a_dead_ones_is_free() {
        let mut registry = Registry::default();
        let first = registry
            .connect(identity("1", "a"), "b".into(), at(0))
            .expect("free");
        let taken = registry.connect(identity("2", "a"), "b".into(), at(1));
        assert_eq!(taken, Err(NameTaken { name: named("a") }));
        let report = registry.report(identity("2", "a"), "b".into(), Report::default(), at(1));
        assert!(report.is_err());
        assert!(registry.disconnect("1", first, at(2)));
        registry
            .connect(identity("2", "a"), "b".into(), at(3))
            .expect("free now");
        let ids: Vec<_> = registry
            .nodes()
            .iter()
            .map(|node| node.identity.id.clone())
            .collect();
        assert_eq!(ids, ["2"]);
    }

    #[test]
    fn the_end_of_a_replaced_stream_changes_nothing() {
        let mut registry = Registry::default();
        let old = registry
            .connect(identity("1", "a"), "b".into(), at(0))
            .expect("free");
        let new = registry
            .connect(identity("1", "a"), "b".into(), at(1))
            .expect("own");
        assert!(!registry.disconnect("1", old, at(2)));
        registry.refused("1", old, None, "late".into());
        let node = registry.named(&named("a")).expect("known");
        assert!(node.is_connected() && node.refusal.is_none());
        assert!(registry.disconnect("1", new, at(3)));
    }

    #[test]
    fn a_new_boot_voids_what_the_old_one_reported() {
        let mut registry = Registry::default();
        let report = |registry: &mut Registry, boot: &str| {
            registry
                .report(identity("1", "a"), boot.into(), Report::default(), at(0))
                .expect("free");
        };
        report(&mut registry, "b1");
        registry
            .connect(identity("1", "a"), "b1".into(), at(1))
            .expect("own");
        assert!(registry.named(&named("a")).expect("known").report.is_some());
        registry
            .connect(identity("1", "a"), "b2".into(), at(1))
            .expect("own");
        assert!(registry.named(&named("a")).expect("known").report.is_none());
    }

    #[test]
    fn a_stale_node_is_forgotten_in_the_end_and_a_connected_one_never() {
        let mut registry = Registry::default();
        let stream = registry
            .connect(identity("1", "a"), "b".into(), at(0))
            .expect("free");
        assert!(!registry.forget(at(100_000)));
        registry.disconnect("1", stream, at(100_000));
        assert!(!registry.forget(at(100_299)));
        assert!(registry.forget(at(100_300)));
        assert!(registry.nodes().is_empty());
    }

    proptest! {
        /// Names are unique, and a connected node is never pushed out.
        #[test]
        fn names_stay_unique(
            steps in proptest::collection::vec((0..4u8, 0..4u8, 0..3u8), 1..60),
        ) {
            let mut registry = Registry::default();
            let mut live: BTreeMap<String, (NodeName, StreamId)> = BTreeMap::new();
            for (tick, (id, name, what)) in (0u64..).zip(steps) {
                let (id, name) = (format!("id{id}"), named(&format!("n{name}")));
                match what {
                    0 => {
                        let taken = live.iter().any(|(i, (n, _))| *i != id && *n == name);
                        let got = registry.connect(Identity { id: id.clone(), name: name.clone(), version: String::new() }, "b".into(), at(tick));
                        prop_assert_eq!(got.is_err(), taken);
                        if let Ok(stream) = got {
                            live.insert(id, (name, stream));
                        }
                    }
                    1 => {
                        let renamed = registry.report(
                            Identity { id: id.clone(), name: name.clone(), version: String::new() }, "b".into(), Report::default(), at(tick));
                        if let (Ok(()), Some(entry)) = (renamed, live.get_mut(&id)) {
                            entry.0 = name;
                        }
                    }
                    _ => {
                        if let Some((_, stream)) = live.remove(&id) {
                            prop_assert!(registry.disconnect(&id, stream, at(tick)));
                        }
                    }
                }
                let nodes = registry.nodes();
                prop_assert!(nodes.windows(2).all(|w| w[0].identity.name < w[1].identity.name));
                let connected = nodes.iter().filter(|node| node.is_connected()).count();
                prop_assert_eq!(connected, live.len());
            }
        }
    }
}
