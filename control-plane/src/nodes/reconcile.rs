//! Turns node reports into writes: image digests and verification outcomes.
//!
//! Every round rereads the whole state, so no report is special. The next report replaces a lost
//! one, a repeated one has no effect, and a restarted control plane resumes verifications. The
//! decision ([`due_writes`]) is pure. The loop runs when the registry changes, and every second for
//! deadlines.

use crate::domain::{
    ImageDigest, NodeOutcome, Timestamp, Uid, VerificationEvent, VerificationState, Version,
};
use crate::nodes::registry::NodeEntry;
use crate::nodes::report::VersionReport;
use crate::nodes::{Nodes, now};
use crate::store::{self, FeedSource as _, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A node disconnected for less still counts, so that a rotated stream or a short network failure
/// does not drop it from a verification.
const RECONNECT_GRACE: Duration = Duration::from_secs(5);
/// Time for nodes to reconnect after this process starts; covers their reconnect back-off.
const STARTUP_GRACE: Duration = Duration::from_secs(15);
/// Precision of deadlines.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Joins reports that arrive together.
const COALESCE: Duration = Duration::from_millis(20);

/// A write due because of a node's report, a disconnect or a deadline.
#[derive(Debug, Clone, PartialEq)]
enum DueWrite {
    /// The first digest reported for a version, and the number of resets that it belongs to.
    Digest(Uid, ImageDigest, u32),
    /// An event of a version's pending verification.
    Verification(Uid, VerificationEvent),
}

/// A version and a number of resets of its image.
type ImageKey = (Uid, u32);

/// The writes due now. `pending` are the versions with a pending verification, `with_digest` those
/// whose digest is stored, `started` is the start of this process.
fn due_writes(
    nodes: &[NodeEntry],
    pending: &[Version],
    with_digest: &BTreeSet<ImageKey>,
    started: Timestamp,
    now: Timestamp,
) -> Vec<DueWrite> {
    let mut writes = Vec::new();
    let mut resolved = BTreeSet::new();
    for seen in nodes.iter().flat_map(NodeEntry::versions) {
        let Some(digest) = seen.proven_digest() else {
            continue;
        };
        let key = image_key(seen);
        if !with_digest.contains(&key) && resolved.insert(key.clone()) {
            writes.push(DueWrite::Digest(key.0, digest.clone(), key.1));
        }
    }
    for version in pending {
        let events = verification_events(nodes, version, started, now).into_iter();
        writes.extend(events.map(|event| DueWrite::Verification(version.uid.clone(), event)));
    }
    writes
}

fn image_key(seen: &VersionReport) -> ImageKey {
    (seen.version_uid.clone(), seen.image_generation)
}

fn verification_events(
    nodes: &[NodeEntry],
    version: &Version,
    started: Timestamp,
    now: Timestamp,
) -> Vec<VerificationEvent> {
    let Some(verification) = version.verification.as_ref().filter(|v| v.is_pending()) else {
        return Vec::new();
    };
    let mut events = Vec::new();
    for part in verification.nodes() {
        let node = nodes.iter().find(|node| node.identity.name == *part.node);
        let disconnected = match node {
            // A drained node verifies nothing.
            Some(node) if node.is_connected() => node.is_drained(),
            Some(node) => node.disconnected_for(now) >= RECONNECT_GRACE,
            None => started.until(now) >= STARTUP_GRACE,
        };
        if disconnected {
            events.push(VerificationEvent::Disconnected {
                node: part.node.clone(),
            });
            continue;
        }
        let answer = node
            .into_iter()
            .flat_map(NodeEntry::versions)
            .find_map(|seen| {
                let outcome = seen.verify.as_ref()?;
                (seen.version_uid == version.uid && outcome.id == verification.id())
                    .then_some(outcome)
            });
        let outcome = match answer.map(|answer| (answer.state, answer)) {
            Some((VerificationState::Verified, answer)) => NodeOutcome::Verified(answer.cold_start),
            Some((VerificationState::Failed, answer)) => {
                NodeOutcome::Failed(answer.failure.clone())
            }
            Some((VerificationState::Unverified, answer)) => {
                NodeOutcome::Unverified(answer.failure.clone())
            }
            Some((VerificationState::Pending, _)) | None => continue,
        };
        if *part.outcome == NodeOutcome::Pending {
            events.push(VerificationEvent::Outcome {
                id: verification.id().to_owned(),
                node: part.node.clone(),
                outcome,
            });
        }
    }
    if now >= verification.deadline() {
        events.push(VerificationEvent::Tick);
    }
    events
}

/// Runs until `shutdown`.
pub(crate) async fn run(nodes: Nodes, store: Store, shutdown: CancellationToken) {
    let mut changes = nodes.subscribe();
    let mut reconciler = Reconciler {
        nodes,
        store,
        with_digest: BTreeSet::new(),
        not_asked: BTreeMap::new(),
        started: now(),
    };
    let mut failing = false;
    loop {
        match reconciler.round().await {
            Ok(()) => failing = false,
            // Logged once per outage; the next round retries everything.
            Err(error) if !failing => {
                tracing::error!(%error, "node reports cannot be written; retrying");
                failing = true;
            }
            Err(_same) => {}
        }
        let woken = async {
            // If the registry is closed, the timeout remains.
            let _ = tokio::time::timeout(TICK_INTERVAL, changes.changed()).await;
            tokio::time::sleep(COALESCE).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = woken => { changes.borrow_and_update(); }
        }
    }
}

struct Reconciler {
    nodes: Nodes,
    store: Store,
    /// Reported versions whose digest is stored.
    with_digest: BTreeSet<ImageKey>,
    /// Reported versions that the feed did not carry at this revision.
    not_asked: BTreeMap<ImageKey, i64>,
    started: Timestamp,
}

impl Reconciler {
    async fn round(&mut self) -> Result<(), store::Error> {
        self.nodes.forget_stale();
        let nodes = self.nodes.all();
        let pending = self.store.pending_verifications().await?;
        let now = now();
        // A digest of a version that the feed did not carry is tried again after the next write.
        let head = *self.store.subscribe().borrow();
        self.not_asked.retain(|_, at| *at == head);
        for write in due_writes(&nodes, &pending, &self.with_digest, self.started, now) {
            let result = match write {
                DueWrite::Digest(uid, digest, generation) => {
                    let key = (uid, generation);
                    if self.not_asked.contains_key(&key) {
                        continue;
                    }
                    let result = self
                        .store
                        .set_image_digest(&key.0, digest, generation, now)
                        .await;
                    match &result {
                        Ok(written) if written.resource.needs_digest() => {
                            self.not_asked.insert(key, head);
                        }
                        Ok(_) | Err(store::Error::NotFound { .. }) => {
                            self.with_digest.insert(key);
                        }
                        Err(_) => {}
                    }
                    result
                }
                DueWrite::Verification(uid, event) => {
                    self.store.apply_verification(&uid, event, now).await
                }
            };
            match result {
                Ok(_) => {}
                // The version was deleted, and the node does not know yet.
                Err(store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let reported: BTreeSet<_> = nodes
            .iter()
            .flat_map(NodeEntry::versions)
            .map(image_key)
            .collect();
        self.with_digest.retain(|key| reported.contains(key));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
