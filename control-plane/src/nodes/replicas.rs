//! Nodes of other control planes on the same database: each replica writes what its own nodes say and reads the rest.
//!
//! ```text
//!   node a ──stream──▶ replica 1 ──▶ node_status ◀── replica 2 ◀──stream── node b
//!                       registry: a, and b as replica 2 said it
//! ```
//!
//! So `cless node list`, a proof of a version and `CheckPropagation` count every node, whichever replica they are asked
//! of. What another replica's nodes say is at most about a second old; whoever must know better reads anew
//! ([`Replicas::refresh`]). A node belongs to the replica that it connected to last. A replica that dies stops vouching
//! for its rows: its nodes are stale until they are connected elsewhere, which takes them far less.
//!
//! On SQLite there is one control plane, and all of this does nothing.

use crate::domain::{NodeName, Timestamp};
use crate::feed::Cursor;
use crate::nodes::registry::{Node, StreamId};
use crate::nodes::report::{Identity, Quarantined, Report};
use crate::nodes::{Nodes, now};
use crate::store::{self, PeerNodeStatus, Store};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// How often a replica vouches for its nodes and reads the others'.
const TICK: Duration = Duration::from_secs(1);
/// A replica that has not vouched for this long is taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// Changes that come together are written together.
const COALESCE: Duration = Duration::from_millis(50);
/// As the registry forgets its own nodes.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Reads a report as its node encoded it.
pub(crate) type DecodeReport = fn(&[u8]) -> Option<Report>;

/// A handle; clones share it.
#[derive(Clone)]
pub(crate) struct Replicas {
    nodes: Nodes,
    store: Store,
    decode: DecodeReport,
    /// This process.
    id: Arc<str>,
    /// What was read of each node, by its id.
    known: Arc<Mutex<HashMap<String, Known>>>,
}

/// What was read of a node.
#[derive(Debug)]
struct Known {
    /// Of the row that it was read from.
    stamp: String,
    connected: bool,
    node: Node,
}

impl Replicas {
    /// For the nodes of this process and the database that it shares.
    pub(crate) fn new(nodes: Nodes, store: Store, decode: DecodeReport) -> Self {
        Self {
            nodes,
            store,
            decode,
            id: uuid::Uuid::new_v4().to_string().into(),
            known: Arc::default(),
        }
    }

    /// Reads what other replicas' nodes say now.
    pub(crate) async fn refresh(&self) -> Result<(), store::Error> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let mut known = self.known.lock().await;
        let statuses = self.store.peer_node_rows(&self.id).await?;
        let stale = statuses.iter().filter(|status| {
            known
                .get(&status.node)
                .is_none_or(|known| known.stamp != status.stamp)
        });
        let wanted = stale.map(|status| status.node.clone()).collect();
        let mut said: HashMap<String, PeerNodeStatus> = self
            .store
            .peer_node_statuses(wanted)
            .await?
            .into_iter()
            .map(|said| (said.node.clone(), said))
            .collect();
        let mut changed = known.len() != statuses.len();
        let mut next = HashMap::with_capacity(statuses.len());
        for status in statuses {
            let connected = status.connected && status.age < DEAD_AFTER;
            let before = known.remove(&status.node);
            changed |= before
                .as_ref()
                .is_none_or(|before| before.stamp != status.stamp || before.connected != connected);
            let node = match (said.remove(&status.node), before) {
                (Some(said), _) => match Shared::read(&said, self.decode) {
                    Some(node) => node,
                    // Of a newer program; the node is not counted here.
                    None => continue,
                },
                (None, Some(before)) => before.node,
                // It moved to this replica between the two reads.
                (None, None) => continue,
            };
            // Gone since it was last vouched for, and not before it was taken for dead.
            let gone = status.age.saturating_sub(DEAD_AFTER);
            let node = node.elsewhere(connected, now().minus(gone));
            let known = Known {
                stamp: status.stamp,
                connected,
                node,
            };
            next.insert(status.node, known);
        }
        let all: BTreeMap<String, Node> = next
            .iter()
            .map(|(id, known)| (id.clone(), known.node.clone()))
            .collect();
        *known = next;
        drop(known);
        self.nodes.set_elsewhere(all, changed);
        Ok(())
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        if !self.store.is_shared() {
            return;
        }
        let mut changes = self.nodes.subscribe();
        let mut written = HashMap::new();
        let mut failing = false;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ticked = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tick.tick() => true,
                // The registry lives as long as this.
                _ = changes.changed() => {
                    tokio::time::sleep(COALESCE).await;
                    changes.borrow_and_update();
                    false
                }
            };
            match self.round(&mut written, ticked).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::error!(%error, "nodes cannot be shared with other control planes; trying on");
                    failing = true;
                }
                Err(_same) => {}
            }
        }
        if let Err(error) = self.store.mark_nodes_disconnected(&self.id).await {
            tracing::warn!(%error, "other control planes do not hear that this one ends");
        }
    }

    async fn round(
        &self,
        written: &mut HashMap<String, (Option<StreamId>, String)>,
        ticked: bool,
    ) -> Result<(), store::Error> {
        let own = self.nodes.own();
        written.retain(|id, _| own.iter().any(|node| node.identity.id == *id));
        for node in own {
            let stream = node.stream();
            let state = Shared::of(&node).write();
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
            self.store.delete_stale_nodes(FORGOTTEN_AFTER).await?;
            self.refresh().await?;
        }
        Ok(())
    }
}

/// A node but for its report, as replicas write it for each other.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Shared {
    id: String,
    name: String,
    version: String,
    boot_id: String,
    applied: Option<(String, i64, [u8; 32])>,
    quarantined: Vec<(String, String, String)>,
    refusal: Option<String>,
    connect_time: Option<Timestamp>,
    report_time: Option<Timestamp>,
}

impl Shared {
    fn of(node: &Node) -> Self {
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
            refusal: node.refusal.clone(),
            connect_time: node.connect_time,
            report_time: node.report.as_ref().map(|(time, _)| *time),
        }
    }

    fn write(&self) -> String {
        // Strings, numbers and lists of them always can be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn read(said: &PeerNodeStatus, decode: DecodeReport) -> Option<Node> {
        let shared: Self = serde_json::from_str(&said.state).ok()?;
        let report = said.report.as_deref().and_then(decode);
        let identity = Identity {
            id: shared.id,
            name: NodeName::parse(shared.name).ok()?,
            version: shared.version,
        };
        let mut node = Node::new(identity, shared.boot_id, Timestamp::default());
        node.applied = shared
            .applied
            .map(|(epoch, revision, digest)| Cursor::new(epoch, revision, digest));
        node.quarantined = shared
            .quarantined
            .into_iter()
            .map(|(service_uid, service, reason)| Quarantined {
                service_uid,
                service,
                reason,
            })
            .collect();
        node.refusal = shared.refusal;
        node.connect_time = shared.connect_time;
        node.report = shared.report_time.zip(report);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reads_as_it_was_written() {
        let identity = Identity {
            id: "1".into(),
            name: NodeName::parse("a").expect("a label"),
            version: "0.1".into(),
        };
        let mut node = Node::new(identity, "boot".into(), Timestamp::default());
        node.applied = Some(Cursor::new("e", 7, [9; 32]));
        node.quarantined = vec![Quarantined {
            service_uid: "u".into(),
            service: "s".into(),
            reason: "r".into(),
        }];
        node.refusal = Some("no".into());
        node.report = Some((Timestamp::from_micros(5), Report::default()));
        let said = PeerNodeStatus {
            node: "1".into(),
            state: Shared::of(&node).write(),
            report: Some(Vec::new()),
        };
        let read = Shared::read(&said, |_| Some(Report::default())).expect("readable");
        assert_eq!(Shared::of(&read), Shared::of(&node));
        let newer = PeerNodeStatus {
            state: "{}".into(),
            ..said
        };
        assert!(Shared::read(&newer, |_| None).is_none());
    }
}
