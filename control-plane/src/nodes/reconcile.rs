//! What nodes report, turned into writes: an image's digest, the outcome of a verification.
//!
//! Rereads everything on each round, so that no report is special: a lost one is made good by the
//! next, a repeated one does nothing, and a control plane that restarts takes pending verifications
//! up where they stood. The decision is pure ([`consequences`]); the loop around it runs when the
//! registry changes and each second, for deadlines.

use crate::domain::{
    ImageDigest, NodeOutcome, Timestamp, Uid, VerificationEvent, VerificationState, Version,
};
use crate::nodes::registry::Node;
use crate::nodes::{Nodes, now};
use crate::store::{self, Store};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A stream that is rotated, or a cable that is moved, does not count as a node that is gone.
const RECONNECT_WITHIN: Duration = Duration::from_secs(5);
/// After a restart of this process nodes come back within their back-off; most far sooner.
const RETURN_WITHIN: Duration = Duration::from_secs(15);
/// Deadlines are kept to about this.
const TICK: Duration = Duration::from_secs(1);
/// Reports that come together are taken together.
const COALESCE: Duration = Duration::from_millis(20);

/// A write that follows from what nodes say.
#[derive(Debug, Clone, PartialEq)]
enum Consequence {
    /// The first resolved digest of a version's image.
    Digest(Uid, ImageDigest),
    /// Something happened to a version's pending verification.
    Verification(Uid, VerificationEvent),
}

/// What follows. `pending` are versions with a verification that is pending; `settled` are those
/// whose digest is known; `started` is when this process began to listen.
fn consequences(
    nodes: &[Node],
    pending: &[Version],
    settled: &BTreeSet<Uid>,
    started: Timestamp,
    now: Timestamp,
) -> Vec<Consequence> {
    let mut found = Vec::new();
    let mut resolved = BTreeSet::new();
    for seen in nodes.iter().flat_map(Node::versions) {
        if let Some(digest) = &seen.image_digest
            && !settled.contains(&seen.version_uid)
            && resolved.insert(&seen.version_uid)
        {
            found.push(Consequence::Digest(
                seen.version_uid.clone(),
                digest.clone(),
            ));
        }
    }
    for version in pending {
        let events = verification_events(nodes, version, started, now).into_iter();
        found.extend(events.map(|event| Consequence::Verification(version.uid.clone(), event)));
    }
    found
}

fn verification_events(
    nodes: &[Node],
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
        let gone = match node {
            Some(node) if node.is_connected() => false,
            Some(node) => node.gone_for(now) >= RECONNECT_WITHIN,
            None => started.until(now) >= RETURN_WITHIN,
        };
        if gone {
            events.push(VerificationEvent::Disconnected {
                node: part.node.clone(),
            });
            continue;
        }
        let answer = node.into_iter().flat_map(Node::versions).find_map(|seen| {
            let outcome = seen.verify.as_ref()?;
            (seen.version_uid == version.uid && outcome.id == verification.id()).then_some(outcome)
        });
        let outcome = match answer.map(|answer| (answer.state, answer)) {
            Some((VerificationState::Verified, answer)) => NodeOutcome::Verified(answer.cold_start),
            Some((VerificationState::Failed, answer)) => {
                NodeOutcome::Failed(answer.failure.clone())
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
        settled: BTreeSet::new(),
        started: now(),
    };
    let mut failing = false;
    loop {
        match reconciler.round().await {
            Ok(()) => failing = false,
            // Said once; the next round tries all of it again.
            Err(error) if !failing => {
                tracing::error!(%error, "what nodes report cannot be written; trying on");
                failing = true;
            }
            Err(_same) => {}
        }
        let woken = async {
            // A closed registry leaves the tick.
            let _ = tokio::time::timeout(TICK, changes.changed()).await;
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
    /// Versions whose digest needs no write; only ones that are still reported.
    settled: BTreeSet<Uid>,
    started: Timestamp,
}

impl Reconciler {
    async fn round(&mut self) -> Result<(), store::Error> {
        self.nodes.forget();
        let nodes = self.nodes.all();
        let pending = self.store.pending_verifications().await?;
        let now = now();
        for consequence in consequences(&nodes, &pending, &self.settled, self.started, now) {
            let (uid, done) = match consequence {
                Consequence::Digest(uid, digest) => {
                    let done = self.store.set_image_digest(&uid, digest, now).await;
                    self.settled.insert(uid.clone());
                    (uid, done)
                }
                Consequence::Verification(uid, event) => {
                    let done = self.store.apply_verification(&uid, event, now).await;
                    (uid, done)
                }
            };
            match done {
                Ok(_) => {}
                // Deleted meanwhile, or reported by a node that has not heard yet.
                Err(store::Error::NotFound { .. }) => {}
                Err(error) => {
                    self.settled.remove(&uid);
                    return Err(error);
                }
            }
        }
        let reported: BTreeSet<_> = nodes
            .iter()
            .flat_map(Node::versions)
            .map(|seen| &seen.version_uid)
            .collect();
        self.settled.retain(|uid| reported.contains(uid));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
