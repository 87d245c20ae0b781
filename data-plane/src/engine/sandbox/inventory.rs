//! Which network sandboxes there are, and what is to be done about them. Pure.
//!
//! ```text
//!              made                 taken               released
//!   Making ──────────► Idle ──────────────────► Used ───────────► Removing ──► (gone)
//!      │                 │                                            ▲
//!      └─────────────────┴── failed, died, not wanted any more ───────┘
//! ```
//!
//! A sandbox serves one instance and is never given to a second: what a tenant did to its network
//! goes with it. One that dies in use stays with its instance, which is told, until that is gone too.
//!
//! Making one costs as much CPU as half a start, so one is made at a time, and only while nothing
//! starts on the node. A node that is never quiet for [`STARVED`] makes one all the same, but in turn
//! with the starts.
//!
//! Laws (tested below over random events): at most `size` are idle or in the making; none is given
//! out twice, nor after it died; each is removed exactly once, and none that is in use; nothing is
//! made out of turn while something starts; stopped, none is made and all but those in use go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::instance::backoff::Backoff;

/// How long nothing must have started before one is made: requests come in bursts, and the next of
/// one should not find the engine busy with this.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// How long the stock may be short on a node where always something starts.
pub(super) const STARVED: Duration = Duration::from_secs(10);

/// A ready-made network, held by a pause container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::instance) struct Sandbox {
    /// Of the pause container.
    pub(in crate::instance) name: String,
    /// The engine's id of it, by which a container joins.
    pub(in crate::instance) id: String,
    /// Where whatever joins it can be dialled.
    pub(in crate::instance) address: IpAddr,
}

/// What happens to sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Time has passed.
    Look {
        /// How long nothing has been starting; `None` while something is.
        quiet_for: Option<Duration>,
        /// A name never used before, for one that may be made.
        name: String,
    },
    /// The one in the making is ready.
    Made(Sandbox),
    /// It is not, and never will be.
    MakeFailed,
    /// An instance of an earlier process was found in it.
    Found { instance: String, sandbox: Sandbox },
    /// The pause container of this name has ended.
    Died(String),
    /// The instance is gone, or does without.
    Released(String),
    /// The engine has removed the one of this name.
    Removed(String),
    /// The node stops.
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Make one; report [`Event::Made`] or [`Event::MakeFailed`].
    Make {
        name: String,
        /// It waits for its turn among the starts, for they never end.
        in_turn: bool,
    },
    /// Remove it, or what there is of it; report [`Event::Removed`].
    Remove(String),
    /// Tell the instance that its network is gone.
    Tell(String),
}

/// The sandboxes of a node.
#[derive(Debug)]
pub(super) struct Stock {
    size: usize,
    idle: VecDeque<Sandbox>,
    making: Option<String>,
    /// By the instance that is in it.
    used: BTreeMap<String, Sandbox>,
    removing: BTreeSet<String>,
    short_since: Instant,
    backoff: Backoff,
    stopped: bool,
}

impl Stock {
    /// Keeps `size` ready.
    pub(super) fn new(size: usize, now: Instant) -> Self {
        Self {
            size,
            idle: VecDeque::new(),
            making: None,
            used: BTreeMap::new(),
            removing: BTreeSet::new(),
            short_since: now,
            backoff: Backoff::default(),
            stopped: false,
        }
    }

    /// Gives the oldest idle one to an instance.
    pub(super) fn take(&mut self, instance: &str, now: Instant) -> Option<Sandbox> {
        if self.stopped || self.used.contains_key(instance) {
            return None;
        }
        self.shortens(now);
        let sandbox = self.idle.pop_front()?;
        self.used.insert(instance.to_owned(), sandbox.clone());
        Some(sandbox)
    }

    /// Takes note of an event and says what to do.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Look { quiet_for, name } => self.look(quiet_for, name, now),
            Event::Made(sandbox) => self.made(sandbox),
            Event::MakeFailed => {
                self.backoff.failed(now);
                self.shortens(now);
                let half_made = self.making.take();
                half_made
                    .and_then(|name| self.remove(name))
                    .into_iter()
                    .collect()
            }
            Event::Found { instance, sandbox } => {
                if !self.knows(&sandbox.name) {
                    self.used.entry(instance).or_insert(sandbox);
                }
                Vec::new()
            }
            Event::Died(name) => self.died(&name, now),
            Event::Released(instance) => {
                let sandbox = self.used.remove(&instance);
                let removed = sandbox.and_then(|sandbox| self.remove(sandbox.name));
                removed.into_iter().collect()
            }
            Event::Removed(name) => {
                self.removing.remove(&name);
                Vec::new()
            }
            Event::Stop => {
                self.stopped = true;
                let idle = std::mem::take(&mut self.idle);
                let removed = idle.into_iter().filter_map(|one| self.remove(one.name));
                removed.collect()
            }
        }
    }

    fn look(&mut self, quiet_for: Option<Duration>, name: String, now: Instant) -> Vec<Action> {
        let waits = self.making.is_some() || self.backoff.remaining(now).is_some();
        if self.stopped || self.room() == 0 || waits || self.knows(&name) {
            return Vec::new();
        }
        let quiet = quiet_for.is_some_and(|time| time >= QUIET);
        let starved = now.saturating_duration_since(self.short_since) >= STARVED;
        if !quiet && !starved {
            return Vec::new();
        }
        self.making = Some(name.clone());
        let in_turn = !quiet;
        vec![Action::Make { name, in_turn }]
    }

    fn made(&mut self, sandbox: Sandbox) -> Vec<Action> {
        if self.making.as_ref() != Some(&sandbox.name) {
            return Vec::new();
        }
        self.making = None;
        self.backoff = Backoff::default();
        if self.stopped {
            return self.remove(sandbox.name).into_iter().collect();
        }
        self.idle.push_back(sandbox);
        Vec::new()
    }

    fn died(&mut self, name: &str, now: Instant) -> Vec<Action> {
        if let Some(at) = self.idle.iter().position(|one| one.name == name) {
            self.shortens(now);
            self.idle.remove(at);
            return self.remove(name.to_owned()).into_iter().collect();
        }
        let used = self.used.iter().find(|(_, sandbox)| sandbox.name == name);
        let told = used.map(|(instance, _)| Action::Tell(instance.clone()));
        told.into_iter().collect()
    }

    /// Unless its removal has been asked for.
    fn remove(&mut self, name: String) -> Option<Action> {
        self.removing
            .insert(name.clone())
            .then_some(Action::Remove(name))
    }

    /// An idle one, or one in the making, is about to go.
    fn shortens(&mut self, now: Instant) {
        if self.room() == 0 {
            self.short_since = now;
        }
    }

    fn room(&self) -> usize {
        let there = self.idle.len() + usize::from(self.making.is_some());
        self.size.saturating_sub(there)
    }

    /// How long there is nothing to look for; `None` until something happens.
    pub(super) fn next_look(&self, now: Instant) -> Option<Duration> {
        let idle = self.stopped || self.room() == 0;
        let retry = self.backoff.remaining(now).unwrap_or(QUIET);
        (!idle).then_some(retry.max(QUIET))
    }

    /// The one that an instance is in.
    pub(super) fn of(&self, instance: &str) -> Option<&Sandbox> {
        self.used.get(instance)
    }

    /// Ready for an instance, and used by one.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.idle.len(), self.used.len())
    }

    /// Those that must be running.
    pub(super) fn alive(&self) -> Vec<String> {
        let all = self.idle.iter().chain(self.used.values());
        all.map(|sandbox| sandbox.name.clone()).collect()
    }

    /// Whether a container of this name is one of these, whatever becomes of it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.making.as_deref() == Some(name)
            || self.removing.contains(name)
            || self.idle.iter().any(|one| one.name == name)
            || self.used.values().any(|one| one.name == name)
    }
}

#[cfg(test)]
#[path = "inventory/tests.rs"]
mod tests;
