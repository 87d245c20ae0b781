//! Begin, Chunk, Commit -> a verified new table, or why not. Pure.
//!
//! ```text
//!          Begin            Commit, verified: the new table
//!   Idle --------> Open ------------------------------------> Idle
//!    |              | what breaks the order                    ^
//!    +--------------+------> Spoiled --------------------------+
//!     Chunk without Begin            Commit: the refusal
//! ```
//!
//! A change that breaks the contract is dropped at once, but refused only at its Commit: the plane
//! expects one answer per Commit.
//!
//! Laws: the table that serves is replaced by a whole, verified one or not at all; revisions never
//! go back within an epoch; no sequence of messages panics; what is staged is bounded.

use super::decode::{self, SharedSettings};
use super::epochs::Epochs;
use super::message::{Begin, Chunk, Commit, Message, Refusal};
use crate::route::{Candidate, Change, Digest, Scope, Table};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Bytes of routes that one change may bring. A hundred times the 6.4 MB of 10 000 routes.
const MAX_STAGED: usize = 640 << 20;

/// The table that serves, and the change that is arriving.
#[derive(Debug)]
pub(crate) struct Staging {
    serving: Arc<Table>,
    /// The plane that brought `serving` in this run: another cluster's tables are refused. A table
    /// from the disk cache binds nobody, so a node can be moved to another plane by a restart.
    committed: bool,
    left: Epochs,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Open(Box<Open>),
    Spoiled(Refusal),
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

/// What a message came to.
#[derive(Debug)]
pub(crate) enum Staged {
    /// Nothing yet.
    More,
    /// A new table, which `serving` now is.
    Committed(Arc<Table>),
    /// The change is refused; the table before it serves.
    Refused(Refusal),
}

impl Staging {
    /// Over the table that serves; `committed` if a plane brought it in this run, which has `left` these
    /// epochs.
    pub(crate) fn new(serving: Arc<Table>, committed: bool, left: Epochs) -> Self {
        Self {
            serving,
            committed,
            left,
            state: State::Idle,
        }
    }

    /// The table that serves.
    pub(crate) fn serving(&self) -> &Arc<Table> {
        &self.serving
    }

    /// A plane has said that `serving` is its newest table.
    pub(crate) fn confirm(&mut self) {
        self.committed = true;
    }

    /// Whether part of a change has arrived.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Takes a message; those that are no part of a change are ignored.
    pub(crate) fn step(&mut self, message: Message) -> Staged {
        let state = std::mem::replace(&mut self.state, State::Idle);
        let (state, staged) = match (message, state) {
            (Message::Commit(commit), state) => (State::Idle, self.close(state, &commit)),
            (
                Message::Garbled {
                    closes: true,
                    reason,
                },
                state,
            ) => {
                let refusal = match state {
                    State::Spoiled(refusal) => refusal,
                    State::Idle | State::Open(_) => Refusal::corrupt(reason),
                };
                (State::Idle, Staged::Refused(refusal))
            }
            (Message::Begin(begin), State::Idle) => (self.begin(begin), Staged::More),
            (Message::Begin(_), State::Open(_)) => (
                spoiled("a change began before the one before it was committed"),
                Staged::More,
            ),
            (Message::Chunk(chunk), State::Open(open)) => (self.chunk(open, chunk), Staged::More),
            (Message::Chunk(_), State::Idle) => {
                (spoiled("a chunk came outside a change"), Staged::More)
            }
            (
                Message::Garbled {
                    closes: false,
                    reason,
                },
                State::Idle | State::Open(_),
            ) => (spoiled(reason), Staged::More),
            (_, state) => (state, Staged::More),
        };
        self.state = state;
        staged
    }

    fn begin(&self, begin: Begin) -> State {
        match self.check_begin(&begin) {
            Ok(()) => State::Open(Box::new(Open {
                begin,
                next_part: 0,
                upserts: HashMap::new(),
                removed: HashSet::new(),
                staged: 0,
                settings: SharedSettings::default(),
            })),
            Err(refusal) => State::Spoiled(refusal),
        }
    }

    fn check_begin(&self, begin: &Begin) -> Result<(), Refusal> {
        let serving = &self.serving;
        let at = serving.cursor();
        if begin.cluster.is_empty() {
            return Err(Refusal::corrupt("the change names no cluster"));
        }
        let same_cluster = **serving.cluster() == *begin.cluster;
        if begin.scope == Scope::Delta
            && (begin.from.as_ref() != Some(at) || serving.is_initial() || !same_cluster)
        {
            return Err(Refusal::corrupt(
                "the delta does not start from the table this node has",
            ));
        }
        if begin.scope == Scope::Delta && begin.to.epoch != at.epoch {
            return Err(Refusal::corrupt("a delta cannot lead to another epoch"));
        }
        if self.committed && !same_cluster {
            return Err(Refusal::rejected(format!(
                "this node serves cluster {}, the change is of cluster {}; \
                 restart the node to move it",
                serving.cluster(),
                begin.cluster
            )));
        }
        if same_cluster && begin.to.epoch == at.epoch && begin.to.revision < at.revision {
            return Err(Refusal::rejected(format!(
                "revision {} is behind {}, which this node has",
                begin.to.revision, at.revision
            )));
        }
        if let Some(newer) = self.left.newer_than(&begin.to) {
            return Err(Refusal::rejected(format!(
                "revision {} of an epoch that this node left at revision {newer}: the control plane \
                 has not seen the restore yet",
                begin.to.revision
            )));
        }
        Ok(())
    }

    fn chunk(&self, mut open: Box<Open>, chunk: Chunk) -> State {
        match self.stage(&mut open, chunk) {
            Ok(()) => State::Open(open),
            Err(refusal) => State::Spoiled(refusal),
        }
    }

    fn stage(&self, open: &mut Open, chunk: Chunk) -> Result<(), Refusal> {
        if chunk.txn != open.begin.txn {
            return Err(Refusal::corrupt("a chunk is of another change"));
        }
        if chunk.part != open.next_part {
            return Err(Refusal::corrupt(format!(
                "part {} came where {} was due",
                chunk.part, open.next_part
            )));
        }
        open.next_part = open.next_part.saturating_add(1);
        for (uid, bytes) in chunk.upserts {
            open.staged = open.staged.saturating_add(bytes.len());
            if open.staged > MAX_STAGED {
                return Err(Refusal::rejected("the change is over 640 MiB"));
            }
            let candidate = self.candidate(&uid, &bytes, &mut open.settings);
            let uid = candidate.service_uid.clone();
            if uid.is_empty() || open.removed.contains(&uid) {
                return Err(Refusal::corrupt(
                    "a route has no service uid, or is removed as well",
                ));
            }
            if open.upserts.insert(uid, candidate).is_some() {
                return Err(Refusal::corrupt("a route came twice in one change"));
            }
        }
        for uid in chunk.removed {
            let known = open.begin.scope == Scope::Delta && self.serving.entry(&uid).is_some();
            if !known || open.upserts.contains_key(&*uid) || !open.removed.insert(uid.into()) {
                return Err(Refusal::corrupt("a route is removed that is not there"));
            }
        }
        Ok(())
    }

    /// Decodes a route, or takes the one that serves if its bytes are the same.
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

    fn close(&mut self, state: State, commit: &Commit) -> Staged {
        let open = match state {
            State::Open(open) => open,
            State::Spoiled(refusal) => return Staged::Refused(refusal),
            State::Idle => return Staged::Refused(Refusal::corrupt("a commit without a change")),
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
        self.left.leave(&self.serving, &begin.to);
        let table = Arc::new(self.serving.apply(Change {
            cluster,
            cursor: begin.to,
            scope: begin.scope,
            upserts: upserts.into_values().collect(),
            removed: removed.into_iter().collect(),
        }));
        self.serving = table.clone();
        self.committed = true;
        Staged::Committed(table)
    }

    fn verify(&self, open: &Open, commit: &Commit) -> Result<(), Refusal> {
        if commit.txn != open.begin.txn || commit.to != open.begin.to {
            return Err(Refusal::corrupt(
                "the commit is of another change than its begin",
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
            return Err(Refusal::corrupt(format!(
                "the table would have {count} routes, not {}",
                commit.count
            )));
        }
        if digest != commit.to.digest {
            return Err(Refusal::corrupt("the digest of the table differs"));
        }
        Ok(())
    }
}

/// A route as received, decoded if it can be.
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
        // Copied: a slice of the frame it came in would keep the whole frame.
        received: Bytes::copy_from_slice(bytes),
        digest,
        decoded,
        last_good: None,
    }
}

fn spoiled(reason: &'static str) -> State {
    State::Spoiled(Refusal::corrupt(reason))
}

#[cfg(test)]
mod tests;
