//! Nodes of other control planes on the same database. Every replica writes its own nodes and reads
//! the others'.
//!
//! ```text
//!   node a ──stream──▶ replica 1 ──▶ node_status ◀── replica 2 ◀──stream── node b
//!                       registry: a, and b as written by replica 2
//! ```
//!
//! `cless node list`, verifications and `CheckPropagation` therefore count every node, whichever
//! replica answers. A peer's entries are about a second old; [`Replicas::refresh`] reads them now.
//! The nodes of a dead replica are stale until they connect to another one.
//!
//! SQLite has a single control plane; then this module does nothing.

use crate::domain::{NodeName, Timestamp};
use crate::feed::Cursor;
use crate::nodes::registry::{FORGET_AFTER, NodeEntry, StreamId};
use crate::nodes::report::{NodeIdentity, NodeReport, QuarantinedRoute};
use crate::nodes::{Nodes, now};
use crate::store::{self, PeerNodeStatus, Store};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Interval at which a replica renews its rows and reads the others'.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// A replica whose rows are not renewed for this long counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// Joins changes that arrive together.
const COALESCE: Duration = Duration::from_millis(50);

/// Decodes a report from its node's encoding.
pub(crate) type DecodeReport = fn(&[u8]) -> Option<NodeReport>;

/// A handle to the sharing of nodes. Clones share it.
#[derive(Clone)]
pub(crate) struct Replicas {
    nodes: Nodes,
    store: Store,
    decode: DecodeReport,
    /// Identifies this process.
    id: Arc<str>,
    /// Nodes of peers as last read, by node id.
    cache: Arc<Mutex<HashMap<String, CachedNode>>>,
}

/// A peer's node as last read.
#[derive(Debug)]
struct CachedNode {
    /// Version of the row it was read from.
    stamp: String,
    connected: bool,
    node: NodeEntry,
}

impl Replicas {
    pub(crate) fn new(nodes: Nodes, store: Store, decode: DecodeReport) -> Self {
        Self {
            nodes,
            store,
            decode,
            id: uuid::Uuid::new_v4().to_string().into(),
            cache: Arc::default(),
        }
    }

    /// Reads the nodes of other replicas now.
    pub(crate) async fn refresh(&self) -> Result<(), store::Error> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let mut cache = self.cache.lock().await;
        let statuses = self.store.peer_node_rows(&self.id).await?;
        let stale = statuses.iter().filter(|status| {
            cache
                .get(&status.node)
                .is_none_or(|cached| cached.stamp != status.stamp)
        });
        let wanted = stale.map(|status| status.node.clone()).collect();
        let mut said: HashMap<String, PeerNodeStatus> = self
            .store
            .peer_node_statuses(wanted)
            .await?
            .into_iter()
            .map(|said| (said.node.clone(), said))
            .collect();
        let mut changed = cache.len() != statuses.len();
        let mut next = HashMap::with_capacity(statuses.len());
        for status in statuses {
            let connected = status.connected && status.age < DEAD_AFTER;
            let before = cache.remove(&status.node);
            changed |= before
                .as_ref()
                .is_none_or(|before| before.stamp != status.stamp || before.connected != connected);
            let node = match (said.remove(&status.node), before) {
                (Some(said), _) => match NodeRecord::decode(&said, self.decode) {
                    Some(node) => node,
                    // Written by a newer program; the node is not counted here.
                    None => continue,
                },
                (None, Some(before)) => before.node,
                // The node moved to this replica between the two reads.
                (None, None) => continue,
            };
            // Disconnected since its replica counts as dead.
            let dead_for = status.age.saturating_sub(DEAD_AFTER);
            let node = node.into_peer_node(connected, now().minus(dead_for));
            let cached = CachedNode {
                stamp: status.stamp,
                connected,
                node,
            };
            next.insert(status.node, cached);
        }
        let all: BTreeMap<String, NodeEntry> = next
            .iter()
            .map(|(id, cached)| (id.clone(), cached.node.clone()))
            .collect();
        *cache = next;
        drop(cache);
        self.nodes.set_peer_nodes(all, changed);
        Ok(())
    }

    /// Writes and reads nodes until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        if !self.store.is_shared() {
            return;
        }
        let mut changes = self.nodes.subscribe();
        let mut written = HashMap::new();
        let mut failing = false;
        let mut tick = tokio::time::interval(TICK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ticked = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tick.tick() => true,
                // Never closed: this task holds a handle to the registry.
                _ = changes.changed() => {
                    tokio::time::sleep(COALESCE).await;
                    changes.borrow_and_update();
                    false
                }
            };
            match self.round(&mut written, ticked).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::error!(%error, "nodes cannot be shared with other control planes; retrying");
                    failing = true;
                }
                Err(_same) => {}
            }
        }
        if let Err(error) = self.store.mark_nodes_disconnected(&self.id).await {
            tracing::warn!(%error, "other control planes could not be notified of the shutdown");
        }
    }

    async fn round(
        &self,
        written: &mut HashMap<String, (Option<StreamId>, String)>,
        ticked: bool,
    ) -> Result<(), store::Error> {
        let own = self.nodes.local();
        written.retain(|id, _| own.iter().any(|node| node.identity.id == *id));
        for node in own {
            let stream = node.stream();
            let state = NodeRecord::new(&node).encode();
            let before = written.get(&node.identity.id);
            if before.is_some_and(|before| before.0 == stream && before.1 == state) {
                continue;
            }
            let said = PeerNodeStatus {
                node: node.identity.id.clone(),
                state,
                report: node
                    .report
                    .as_ref()
                    .map(|(_, report)| report.encoded.to_vec()),
            };
            if stream.is_some() && before.is_none_or(|before| before.0 != stream) {
                self.store.claim_node(&self.id, &said).await?;
            } else {
                self.store
                    .update_node_status(&self.id, stream.is_some(), &said)
                    .await?;
            }
            written.insert(said.node, (stream, said.state));
        }
        if ticked {
            self.store.renew_nodes(&self.id).await?;
            self.store.delete_stale_nodes(FORGET_AFTER).await?;
            self.refresh().await?;
        }
        Ok(())
    }
}

/// A node without its report, as replicas write it for each other. Its field names are in the
/// database.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NodeRecord {
    id: String,
    name: String,
    version: String,
    boot_id: String,
    applied: Option<(String, i64, [u8; 32])>,
    quarantined: Vec<(String, String, String)>,
    refusal: Option<String>,
    connect_time: Option<Timestamp>,
    report_time: Option<Timestamp>,
    #[serde(default)]
    certificate_expire_time: Option<Timestamp>,
}

impl NodeRecord {
    fn new(node: &NodeEntry) -> Self {
        Self {
            id: node.identity.id.clone(),
            name: node.identity.name.to_string(),
            version: node.identity.version.clone(),
            boot_id: node.boot_id.clone(),
            applied: node.applied.as_ref().map(|cursor| {
                (
                    cursor.epoch.to_string(),
                    cursor.revision,
                    cursor.digest.to_bytes(),
                )
            }),
            quarantined: node
                .quarantined
                .iter()
                .map(|route| {
                    (
                        route.service_uid.clone(),
                        route.service.clone(),
                        route.reason.clone(),
                    )
                })
                .collect(),
            refusal: node.rejection.clone(),
            connect_time: node.connect_time,
            report_time: node.report.as_ref().map(|(time, _)| *time),
            certificate_expire_time: node.certificate_expire_time,
        }
    }

    fn encode(&self) -> String {
        // Strings, numbers and lists always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn decode(said: &PeerNodeStatus, decode: DecodeReport) -> Option<NodeEntry> {
        let record: Self = serde_json::from_str(&said.state).ok()?;
        let report = said.report.as_deref().and_then(decode);
        let identity = NodeIdentity {
            id: record.id,
            name: NodeName::parse(record.name).ok()?,
            version: record.version,
        };
        let mut node = NodeEntry::new(identity, record.boot_id, Timestamp::default());
        node.applied = record
            .applied
            .map(|(epoch, revision, digest)| Cursor::new(epoch, revision, digest));
        node.quarantined = record
            .quarantined
            .into_iter()
            .map(|(service_uid, service, reason)| QuarantinedRoute {
                service_uid,
                service,
                reason,
            })
            .collect();
        node.rejection = record.refusal;
        node.connect_time = record.connect_time;
        node.certificate_expire_time = record.certificate_expire_time;
        node.report = record.report_time.zip(report);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_record_round_trips() {
        let identity = NodeIdentity {
            id: "1".into(),
            name: NodeName::parse("a").expect("a label"),
            version: "0.1".into(),
        };
        let mut node = NodeEntry::new(identity, "boot".into(), Timestamp::default());
        node.applied = Some(Cursor::new("e", 7, [9; 32]));
        node.quarantined = vec![QuarantinedRoute {
            service_uid: "u".into(),
            service: "s".into(),
            reason: "r".into(),
        }];
        node.rejection = Some("no".into());
        node.report = Some((Timestamp::from_micros(5), NodeReport::default()));
        let said = PeerNodeStatus {
            node: "1".into(),
            state: NodeRecord::new(&node).encode(),
            report: Some(Vec::new()),
        };
        let read = NodeRecord::decode(&said, |_| Some(NodeReport::default())).expect("readable");
        assert_eq!(NodeRecord::new(&read), NodeRecord::new(&node));
        let newer = PeerNodeStatus {
            state: "{}".into(),
            ..said
        };
        assert!(NodeRecord::decode(&newer, |_| None).is_none());
    }
}
