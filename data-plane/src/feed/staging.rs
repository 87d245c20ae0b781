//! Assembles Begin, Chunk and Commit into a verified table. Pure.
//!
//! ```text
//!          Begin            Commit, verified: the new table
//!   Idle --------> Open ------------------------------------> Idle
//!    |              | contract violation                       ^
//!    +--------------+------> Invalid --------------------------+
//!     Chunk without Begin            Commit: the refusal
//! ```
//!
//! A violation drops the change at once, but is reported only at its Commit: the control plane
//! expects one reply per Commit.
//!
//! Laws: the serving table is replaced by a complete, verified one or not at all; revisions never
//! decrease within an epoch; no sequence of messages panics; staged bytes are bounded.

use super::decode::{self, SharedSettings};
use super::epochs::PastEpochs;
use super::message::{Begin, ChangeRefusal, Chunk, Commit, Message};
use crate::route::{Candidate, Change, Digest, Scope, Table};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Bytes of routes in one change: 100 times the 6.4 MB of 10 000 routes.
const MAX_STAGED: usize = 640 << 20;

/// The serving table and the change in transit.
#[derive(Debug)]
pub(crate) struct Staging {
    serving: Arc<Table>,
    /// Whether a control plane delivered or confirmed `serving` in this run. If so, tables of other
    /// clusters are refused. A table from disk does not bind: a restart can move a node.
    confirmed: bool,
    past_epochs: PastEpochs,
    state: StagingState,
}

#[derive(Debug)]
enum StagingState {
    Idle,
    Open(Box<Open>),
    Invalid(ChangeRefusal),
}

#[derive(Debug)]
struct Open {
    begin: Begin,
    next_part: u32,
    upserts: HashMap<Arc<str>, Candidate>,
    removed: HashSet<Arc<str>>,
    staged: usize,
    settings: SharedSettings,
}

#[derive(Debug)]
pub(crate) enum Staged {
    Pending,
    /// A new table, now `serving`.
    Committed(Arc<Table>),
    /// The change is refused; the previous table serves.
    Refused(ChangeRefusal),
}

impl Staging {
    /// Starts from the serving table. See [`Session::new`](super::session::Session::new).
    pub(crate) fn new(serving: Arc<Table>, confirmed: bool, past_epochs: PastEpochs) -> Self {
        Self {
            serving,
            confirmed,
            past_epochs,
            state: StagingState::Idle,
        }
    }

    pub(crate) fn serving(&self) -> &Arc<Table> {
        &self.serving
    }

    /// Records that the control plane confirmed `serving` as its newest table.
    pub(crate) fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// Whether a change is in transit.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, StagingState::Idle)
    }

    /// Handles a message; messages that are not part of a change are ignored.
    pub(crate) fn step(&mut self, message: Message) -> Staged {
        let state = std::mem::replace(&mut self.state, StagingState::Idle);
        let (state, staged) = match (message, state) {
            (Message::Commit(commit), state) => (StagingState::Idle, self.close(state, &commit)),
            (
                Message::Malformed {
                    is_commit: true,
                    reason,
                },
                state,
            ) => {
                let refusal = match state {
                    StagingState::Invalid(refusal) => refusal,
                    StagingState::Idle | StagingState::Open(_) => ChangeRefusal::corrupt(reason),
                };
                (StagingState::Idle, Staged::Refused(refusal))
            }
            (Message::Begin(begin), StagingState::Idle) => (self.begin(begin), Staged::Pending),
            (Message::Begin(_), StagingState::Open(_)) => (
                invalid("a change began before the previous one was committed"),
                Staged::Pending,
            ),
            (Message::Chunk(chunk), StagingState::Open(open)) => {
                (self.chunk(open, chunk), Staged::Pending)
            }
            (Message::Chunk(_), StagingState::Idle) => {
                (invalid("a chunk arrived outside a change"), Staged::Pending)
            }
            (
                Message::Malformed {
                    is_commit: false,
                    reason,
                },
                StagingState::Idle | StagingState::Open(_),
            ) => (invalid(reason), Staged::Pending),
            (_, state) => (state, Staged::Pending),
        };
        self.state = state;
        staged
    }

    fn begin(&self, begin: Begin) -> StagingState {
        match self.check_begin(&begin) {
            Ok(()) => StagingState::Open(Box::new(Open {
                begin,
                next_part: 0,
                upserts: HashMap::new(),
                removed: HashSet::new(),
                staged: 0,
                settings: SharedSettings::default(),
            })),
            Err(refusal) => StagingState::Invalid(refusal),
        }
    }

    fn check_begin(&self, begin: &Begin) -> Result<(), ChangeRefusal> {
        let serving = &self.serving;
        let at = serving.cursor();
        if begin.cluster.is_empty() {
            return Err(ChangeRefusal::corrupt("the change names no cluster"));
        }
        let same_cluster = **serving.cluster() == *begin.cluster;
        if begin.scope == Scope::Delta
            && (begin.from.as_ref() != Some(at) || serving.is_initial() || !same_cluster)
        {
            return Err(ChangeRefusal::corrupt(
                "the delta does not start from the table this node has",
            ));
        }
        if begin.scope == Scope::Delta && begin.to.epoch != at.epoch {
            return Err(ChangeRefusal::corrupt(
                "a delta cannot lead to another epoch",
            ));
        }
        if self.confirmed && !same_cluster {
            return Err(ChangeRefusal::rejected(format!(
                "this node serves cluster {}, the change is of cluster {}; \
                 restart the node to move it",
                serving.cluster(),
                begin.cluster
            )));
        }
        if same_cluster && begin.to.epoch == at.epoch && begin.to.revision < at.revision {
            return Err(ChangeRefusal::rejected(format!(
                "revision {} is behind {}, which this node has",
                begin.to.revision, at.revision
            )));
        }
        if let Some(newer) = self.past_epochs.newer_than(&begin.to) {
            return Err(ChangeRefusal::rejected(format!(
                "revision {} of an epoch that this node left at revision {newer}: the control plane \
                 has not yet read the restored database",
                begin.to.revision
            )));
        }
        Ok(())
    }

    fn chunk(&self, mut open: Box<Open>, chunk: Chunk) -> StagingState {
        match self.stage(&mut open, chunk) {
            Ok(()) => StagingState::Open(open),
            Err(refusal) => StagingState::Invalid(refusal),
        }
    }

    fn stage(&self, open: &mut Open, chunk: Chunk) -> Result<(), ChangeRefusal> {
        if chunk.txn != open.begin.txn {
            return Err(ChangeRefusal::corrupt("a chunk belongs to another change"));
        }
        if chunk.part != open.next_part {
            return Err(ChangeRefusal::corrupt(format!(
                "part {} arrived instead of part {}",
                chunk.part, open.next_part
            )));
        }
        open.next_part = open.next_part.saturating_add(1);
        for (uid, bytes) in chunk.upserts {
            open.staged = open.staged.saturating_add(bytes.len());
            if open.staged > MAX_STAGED {
                return Err(ChangeRefusal::rejected("the change is over 640 MiB"));
            }
            let candidate = self.candidate(&uid, &bytes, &mut open.settings);
            let uid = candidate.service_uid.clone();
            if uid.is_empty() || open.removed.contains(&uid) {
                return Err(ChangeRefusal::corrupt(
                    "a route has no service uid, or is also removed",
                ));
            }
            if open.upserts.insert(uid, candidate).is_some() {
                return Err(ChangeRefusal::corrupt("a route occurs twice in one change"));
            }
        }
        for uid in chunk.removed {
            let known = open.begin.scope == Scope::Delta && self.serving.entry(&uid).is_some();
            if !known || open.upserts.contains_key(&*uid) || !open.removed.insert(uid.into()) {
                return Err(ChangeRefusal::corrupt("a removed route does not exist"));
            }
        }
        Ok(())
    }

    /// Decodes a route, or reuses the serving one if the bytes are equal.
    fn candidate(&self, uid: &str, bytes: &[u8], settings: &mut SharedSettings) -> Candidate {
        let digest = Digest::of(bytes);
        if let Some(entry) = self
            .serving
            .entry(uid)
            .filter(|entry| entry.digest() == digest)
            && let Some(route) = entry.serving().filter(|_| entry.is_good())
        {
            return Candidate {
                service_uid: route.service_uid.clone(),
                received: entry.received().clone(),
                digest,
                decoded: Ok(route.clone()),
                last_good: None,
            };
        }
        candidate(uid, bytes, digest, settings)
    }

    fn close(&mut self, state: StagingState, commit: &Commit) -> Staged {
        let open = match state {
            StagingState::Open(open) => open,
            StagingState::Invalid(refusal) => return Staged::Refused(refusal),
            StagingState::Idle => {
                return Staged::Refused(ChangeRefusal::corrupt("a commit without a change"));
            }
        };
        if let Err(refusal) = self.verify(&open, commit) {
            return Staged::Refused(refusal);
        }
        let Open {
            begin,
            upserts,
            removed,
            ..
        } = *open;
        let cluster = match self.serving.cluster() {
            same if **same == *begin.cluster => same.clone(),
            _ => begin.cluster.into(),
        };
        self.past_epochs.record(&self.serving, &begin.to);
        let table = Arc::new(self.serving.apply(Change {
            cluster,
            cursor: begin.to,
            scope: begin.scope,
            upserts: upserts.into_values().collect(),
            removed: removed.into_iter().collect(),
        }));
        self.serving = table.clone();
        self.confirmed = true;
        Staged::Committed(table)
    }

    fn verify(&self, open: &Open, commit: &Commit) -> Result<(), ChangeRefusal> {
        if commit.txn != open.begin.txn || commit.to != open.begin.to {
            return Err(ChangeRefusal::corrupt(
                "the commit belongs to another change than its begin",
            ));
        }
        let (mut digest, mut count) = match open.begin.scope {
            Scope::Snapshot => (Digest::ZERO, 0),
            Scope::Delta => (self.serving.cursor().digest, self.serving.len()),
        };
        let gone = |uid: &Arc<str>| match open.begin.scope {
            Scope::Snapshot => None,
            Scope::Delta => self.serving.entry(uid),
        };
        for uid in open.removed.iter().chain(open.upserts.keys()) {
            if let Some(entry) = gone(uid) {
                digest = digest.minus(entry.digest());
                count -= 1;
            }
        }
        for candidate in open.upserts.values() {
            digest = digest.plus(candidate.digest);
            count += 1;
        }
        if count as u64 != commit.count {
            return Err(ChangeRefusal::corrupt(format!(
                "the table would have {count} routes, not {}",
                commit.count
            )));
        }
        if digest != commit.to.digest {
            return Err(ChangeRefusal::corrupt("the digest of the table differs"));
        }
        Ok(())
    }
}

/// A route as received, decoded if it is valid.
pub(crate) fn candidate(
    uid: &str,
    bytes: &[u8],
    digest: Digest,
    settings: &mut SharedSettings,
) -> Candidate {
    let decoded = decode::route(uid, bytes, settings)
        .map(Arc::new)
        .map_err(|error| error.to_string().into());
    Candidate {
        service_uid: match &decoded {
            Ok(route) => route.service_uid.clone(),
            Err(_) => uid.into(),
        },
        // A copy: a slice would keep the whole received frame alive.
        received: Bytes::copy_from_slice(bytes),
        digest,
        decoded,
        last_good: None,
    }
}

fn invalid(reason: &'static str) -> StagingState {
    StagingState::Invalid(ChangeRefusal::corrupt(reason))
}

#[cfg(test)]
mod tests;
