//! The network sandboxes of a node, and what to do about them. Pure.
//!
//! ```text
//!              created               taken               released
//!   Creating ──────────► Idle ──────────────────► Used ───────────► Removing ──► (gone)
//!      │                 │                                            ▲
//!      └─────────────────┴── failed, died, node stops ────────────────┘
//! ```
//!
//! A sandbox serves one instance and is never reused, because the instance may have changed its
//! network. A sandbox that dies in use stays with its instance, which is notified, until that is
//! gone.
//!
//! A creation costs as much CPU as half a start. So one sandbox is created at a time, and only
//! while no start is in progress. After a shortage of [`MAX_SHORTAGE`] a creation takes its turn
//! among the starts.
//!
//! Laws (tested below over random events): at most `size` are idle or being created. None is handed
//! out twice, or after its death. Each is removed exactly once, and never in use. None is created
//! out of turn during a start. After a stop none is created and all but the used ones are removed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Time without a start before a creation: requests come in bursts, and a creation would slow the
/// next start of a burst.
pub(super) const IDLE: Duration = Duration::from_millis(300);

/// The longest shortage on a node that is never idle.
pub(super) const MAX_SHORTAGE: Duration = Duration::from_secs(10);

/// Delay after the first failed creation; doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// A network that is ready for an instance, held by a pause container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) name: String,
    /// The pause container's engine id, which an instance joins by.
    pub(crate) id: String,
    /// The address of the instance that joins.
    pub(crate) address: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InventoryEvent {
    Tick {
        /// Time without a start; `None` while a start is in progress.
        idle_for: Option<Duration>,
        /// An unused name for a sandbox that may be created.
        name: String,
    },
    Created(Sandbox),
    CreateFailed,
    /// An instance of an earlier process uses this sandbox.
    Found {
        instance: String,
        sandbox: Sandbox,
    },
    /// The pause container of this name has ended.
    Died(String),
    /// The instance is gone, or does not use its sandbox.
    Released(String),
    /// The pause container of this name is removed.
    Removed(String),
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InventoryAction {
    /// Create a sandbox; report [`InventoryEvent::Created`] or [`InventoryEvent::CreateFailed`].
    Create {
        name: String,
        /// The creation acquires a start permit.
        in_turn: bool,
    },
    /// Remove the pause container, if it exists; report [`InventoryEvent::Removed`].
    Remove(String),
    /// Notify the instance that its network is lost.
    NotifyLost(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inventory {
    size: usize,
    idle: VecDeque<Sandbox>,
    creating: Option<String>,
    /// By instance.
    used: BTreeMap<String, Sandbox>,
    removing: BTreeSet<String>,
    short_since: Instant,
    failures: u32,
    /// No creation before this time; `None` after a success.
    retry_at: Option<Instant>,
    stopped: bool,
}

impl Inventory {
    pub(super) fn new(size: usize, now: Instant) -> Self {
        Self {
            size,
            idle: VecDeque::new(),
            creating: None,
            used: BTreeMap::new(),
            removing: BTreeSet::new(),
            short_since: now,
            failures: 0,
            retry_at: None,
            stopped: false,
        }
    }

    /// Hands the oldest idle sandbox to an instance.
    pub(super) fn take(&mut self, instance: &str, now: Instant) -> Option<Sandbox> {
        if self.stopped || self.used.contains_key(instance) {
            return None;
        }
        self.note_shortage(now);
        let sandbox = self.idle.pop_front()?;
        self.used.insert(instance.to_owned(), sandbox.clone());
        Some(sandbox)
    }

    /// Applies an event and returns the actions that follow.
    pub(super) fn on(&mut self, event: InventoryEvent, now: Instant) -> Vec<InventoryAction> {
        match event {
            InventoryEvent::Tick { idle_for, name } => self.tick(idle_for, name, now),
            InventoryEvent::Created(sandbox) => self.created(sandbox),
            InventoryEvent::CreateFailed => {
                self.retry_at = Some(now + retry_delay(self.failures));
                self.failures = self.failures.saturating_add(1);
                self.note_shortage(now);
                let partial = self.creating.take();
                partial
                    .and_then(|name| self.remove(name))
                    .into_iter()
                    .collect()
            }
            InventoryEvent::Found { instance, sandbox } => {
                if !self.knows(&sandbox.name) {
                    self.used.entry(instance).or_insert(sandbox);
                }
                Vec::new()
            }
            InventoryEvent::Died(name) => self.died(&name, now),
            InventoryEvent::Released(instance) => {
                let sandbox = self.used.remove(&instance);
                let removed = sandbox.and_then(|sandbox| self.remove(sandbox.name));
                removed.into_iter().collect()
            }
            InventoryEvent::Removed(name) => {
                self.removing.remove(&name);
                Vec::new()
            }
            InventoryEvent::Stop => {
                self.stopped = true;
                let idle = std::mem::take(&mut self.idle);
                let removed = idle.into_iter().filter_map(|one| self.remove(one.name));
                removed.collect()
            }
        }
    }

    fn tick(
        &mut self,
        idle_for: Option<Duration>,
        name: String,
        now: Instant,
    ) -> Vec<InventoryAction> {
        let waits = self.creating.is_some() || self.retry_in(now).is_some();
        if self.stopped || self.missing() == 0 || waits || self.knows(&name) {
            return Vec::new();
        }
        let idle = idle_for.is_some_and(|time| time >= IDLE);
        let short = now.saturating_duration_since(self.short_since) >= MAX_SHORTAGE;
        if !idle && !short {
            return Vec::new();
        }
        self.creating = Some(name.clone());
        let in_turn = !idle;
        vec![InventoryAction::Create { name, in_turn }]
    }

    fn created(&mut self, sandbox: Sandbox) -> Vec<InventoryAction> {
        if self.creating.as_ref() != Some(&sandbox.name) {
            return Vec::new();
        }
        self.creating = None;
        self.failures = 0;
        self.retry_at = None;
        if self.stopped {
            return self.remove(sandbox.name).into_iter().collect();
        }
        self.idle.push_back(sandbox);
        Vec::new()
    }

    fn died(&mut self, name: &str, now: Instant) -> Vec<InventoryAction> {
        if let Some(at) = self.idle.iter().position(|one| one.name == name) {
            self.note_shortage(now);
            self.idle.remove(at);
            return self.remove(name.to_owned()).into_iter().collect();
        }
        let used = self.used.iter().find(|(_, sandbox)| sandbox.name == name);
        let lost = used.map(|(instance, _)| InventoryAction::NotifyLost(instance.clone()));
        lost.into_iter().collect()
    }

    fn remove(&mut self, name: String) -> Option<InventoryAction> {
        self.removing
            .insert(name.clone())
            .then_some(InventoryAction::Remove(name))
    }

    /// Called before one leaves: a shortage begins when the inventory is full until now.
    fn note_shortage(&mut self, now: Instant) {
        if self.missing() == 0 {
            self.short_since = now;
        }
    }

    fn missing(&self) -> usize {
        let present = self.idle.len() + usize::from(self.creating.is_some());
        self.size.saturating_sub(present)
    }

    fn retry_in(&self, now: Instant) -> Option<Duration> {
        let left = self.retry_at?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Time until the next useful [`InventoryEvent::Tick`]; `None` if only another event changes anything.
    pub(super) fn next_tick(&self, now: Instant) -> Option<Duration> {
        let nothing_to_do = self.stopped || self.missing() == 0;
        let retry = self.retry_in(now).unwrap_or(IDLE);
        (!nothing_to_do).then_some(retry.max(IDLE))
    }

    pub(super) fn of(&self, instance: &str) -> Option<&Sandbox> {
        self.used.get(instance)
    }

    /// Idle and used sandboxes.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.idle.len(), self.used.len())
    }

    pub(super) fn alive(&self) -> Vec<String> {
        let all = self.idle.iter().chain(self.used.values());
        all.map(|sandbox| sandbox.name.clone()).collect()
    }

    /// Whether a sandbox, idle or used, has a pause container of this engine id.
    pub(super) fn has_id(&self, id: &str) -> bool {
        let mut all = self.idle.iter().chain(self.used.values());
        all.any(|sandbox| sandbox.id == id)
    }

    /// Whether the pause container of this name is known, in any state.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.creating.as_deref() == Some(name)
            || self.removing.contains(name)
            || self.idle.iter().any(|one| one.name == name)
            || self.used.values().any(|one| one.name == name)
    }
}

fn retry_delay(failures: u32) -> Duration {
    RETRY_FIRST
        .saturating_mul(1 << failures.min(16))
        .min(RETRY_MAX)
}

#[cfg(test)]
mod tests;
