//! The task of a pool: it owns the queue and the state of every instance, and makes all decisions.
//!
//! The actor is a reconciler. After each message, timer or change of availability it hands free
//! slots to the queue in order, asks `scale::decide` what to start, resume, pause and reap, and
//! publishes its changes. It performs nothing itself: [`lifecycle`](crate::lifecycle) tasks call
//! the engine and report back by messages.
//!
//! Invariants: every [`Waiter`] is answered exactly once; a pool ends only with an empty queue and
//! no instance, and only once its version has left the route table.

pub(super) mod digest;
mod entry;
mod instances;
mod liveness;
mod pausing;
mod report;
mod scaling;
mod task_events;
mod verification;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, info_span};

use super::crash_backoff::CrashBackoff;
use super::message::{Message, RouteMembership, Waiter};
use super::refusal::Refusal;
use super::shared::Shared;
use crate::engine::availability::Availability;
use crate::engine::context::EngineContext;
use crate::engine::sandbox::Sandboxes;
use crate::instance::state::{Event, State};
use crate::metrics::Metrics;
use crate::report::{ColdStart, StartFailure};
use crate::scale::decide::VersionStatus;
use crate::scale::window::Window;
use entry::InstanceEntry;
use verification::Verification;

#[derive(Clone)]
pub(super) struct PoolContext {
    pub(super) engine: Arc<EngineContext>,
    pub(super) sandboxes: Arc<Sandboxes>,
    pub(super) metrics: Arc<Metrics>,
    /// Incremented at each change of the node report.
    pub(super) changed: watch::Sender<u64>,
    /// Whether the node is drained: no verification, and no instances for `min_instances`.
    pub(super) drained: watch::Sender<bool>,
}

impl PoolContext {
    pub(super) fn report_changed(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Time that the last failed start of a version is reported after it left the route table.
const FAILURE_RETENTION: Duration = Duration::from_secs(600);

pub(super) struct PoolActor {
    shared: Arc<Shared>,
    context: PoolContext,
    inbox: mpsc::UnboundedReceiver<Message>,
    membership: RouteMembership,
    queue: VecDeque<Waiter>,
    instances: BTreeMap<u64, InstanceEntry>,
    backoff: CrashBackoff,
    /// No refill before this time; `None`: refills are not delayed.
    refill_at: Option<Instant>,
    /// The port that a start found.
    port: Option<u16>,
    /// The port of the last start, for the report.
    port_in_force: Option<u16>,
    /// Whether this pool has pulled the image.
    image_pulled: bool,
    /// The digest that a start resolved.
    image_digest: Option<Arc<str>>,
    /// Whether a start has inspected the image.
    image_inspected: bool,
    /// The last failed start; `None` once a start succeeds.
    last_failure: Option<StartFailure>,
    /// The last instance that ended, or sent a malformed response, while it served. A successful
    /// start does not clear it.
    last_exit: Option<StartFailure>,
    last_cold_start: Option<ColdStart>,
    /// For a person; `None` while nothing is pulled.
    pull_progress: Option<String>,
    /// A doubt about the image, for a person.
    image_warning: Option<String>,
    verification: Option<Verification>,
    /// The number of instances that the recent load needed.
    load: Window,
    availability: watch::Receiver<Availability>,
    drained: watch::Receiver<bool>,
    stopping: Option<Stopping>,
    /// The report has changed since it was last published.
    dirty: bool,
}

struct Stopping {
    /// Ready instances stay for the next process.
    keep: bool,
    /// Dropped with the actor, which notifies the sender of the stop.
    _done: oneshot::Sender<()>,
}

impl PoolActor {
    pub(super) fn new(
        shared: Arc<Shared>,
        context: PoolContext,
        inbox: mpsc::UnboundedReceiver<Message>,
        membership: RouteMembership,
    ) -> Self {
        let mut actor = Self {
            shared,
            availability: context.engine.availability.subscribe(),
            drained: context.drained.subscribe(),
            context,
            inbox,
            membership: membership.clone(),
            queue: VecDeque::new(),
            instances: BTreeMap::new(),
            backoff: CrashBackoff::default(),
            refill_at: None,
            port: None,
            port_in_force: None,
            image_pulled: false,
            image_digest: None,
            image_inspected: false,
            last_failure: None,
            last_exit: None,
            last_cold_start: None,
            pull_progress: None,
            image_warning: None,
            verification: None,
            load: Window::default(),
            stopping: None,
            dirty: true,
        };
        actor.set_membership(membership);
        actor
    }

    /// Runs until the pool has ended. `forget` removes it from the registry.
    pub(super) async fn run(self, forget: impl FnOnce()) {
        let span = info_span!(
            parent: None,
            "pool",
            service = %self.shared.service,
            version = self.shared.key.number,
        );
        self.run_to_end(forget).instrument(span).await;
    }

    async fn run_to_end(mut self, forget: impl FnOnce()) {
        loop {
            // One `now` for decision and timer: an instance due between two would miss both.
            let now = Instant::now();
            self.reconcile(now);
            if self.finished() {
                break;
            }
            let wake = self.next_wake(now);
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle(message),
                    None => break,
                },
                () = tokio::time::sleep(wake) => {}
                // Never an error: `context` holds the sender.
                Ok(()) = self.availability.changed() => {}
                Ok(()) = self.drained.changed() => self.follow_verification(),
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.handle(message);
            }
        }
        forget();
        self.shared.wakers.end_if(|| true);
        // A request that arrived in between is routed again, to a new pool.
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            if let Message::Wait(waiter) = message {
                self.shared.end_wait();
                let _ = waiter.reply.send(Err(Refusal::Gone));
            }
        }
        self.context.report_changed();
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Wait(waiter) => {
                self.queue.push_back(waiter);
                if self.stopping.is_some() {
                    self.refuse_all(Refusal::ShuttingDown);
                } else if self.membership.status == VersionStatus::Deleted {
                    // The request was routed by an older table.
                    self.refuse_all(Refusal::Gone);
                }
            }
            Message::WaiterGone => self.drop_gone_waiters(),
            Message::SlotFreed => {}
            Message::Emptied(serial) => self.apply(serial, Event::Emptied),
            Message::Routed(membership) => self.set_membership(membership),
            Message::Unrouted(status) => self.set_status(status),
            Message::Task(serial, event) => self.task_event(serial, event),
            Message::Died { name, exit_code } => self.died(&name, exit_code),
            Message::PauseChanged { name, paused } => self.pause_changed(&name, paused),
            Message::CheckHealth(serial) => self.check_health(serial),
            Message::Malformed(message) => self.malformed(message),
            Message::Unhealthy(name) => self.unhealthy(&name),
            Message::NetworkLost(name) => self.network_lost(&name),
            Message::Adopt(container, address) => self.adopt(*container, address),
            Message::Stop { keep, done } => self.stop(keep, done),
        }
    }

    fn set_membership(&mut self, membership: RouteMembership) {
        self.shared.update_settings(&membership.settings);
        let status = membership.status;
        let before = std::mem::replace(&mut self.membership, membership);
        self.membership.status = before.status;
        self.follow_verification();
        self.set_status(status);
        if self.membership.version.image_generation != before.version.image_generation {
            self.reset_image();
        }
        let digest = self
            .membership
            .version
            .image_digest
            .as_deref()
            .map(Arc::from);
        self.drain_stale();
        // Last: a start that receives the digest must find itself cancelled, if it is stale.
        self.shared.set_fixed_digest(digest);
    }

    fn set_status(&mut self, status: VersionStatus) {
        let before = self.membership.status;
        if matches!(status, VersionStatus::Left | VersionStatus::Deleted) {
            self.withdraw_verification();
        }
        if status == VersionStatus::Deleted && before != VersionStatus::Deleted {
            self.refuse_all(Refusal::Gone);
            self.verification = None;
            self.drain_all();
        }
        self.membership.status = status;
    }

    /// Removes waiters that have disconnected or timed out.
    fn drop_gone_waiters(&mut self) {
        let before = self.queue.len();
        self.queue.retain(|waiter| !waiter.reply.is_closed());
        for _ in self.queue.len()..before {
            self.shared.end_wait();
        }
    }

    fn refuse_all(&mut self, refusal: Refusal) {
        for waiter in self.queue.drain(..) {
            self.shared.end_wait();
            let _ = waiter.reply.send(Err(refusal));
        }
    }

    fn drain_all(&mut self) {
        for serial in self.serials(|_| true) {
            self.apply(serial, Event::Drain);
        }
    }

    fn stop(&mut self, keep: bool, done: oneshot::Sender<()>) {
        self.refuse_all(Refusal::ShuttingDown);
        self.stopping = Some(Stopping { keep, _done: done });
        if keep {
            // A container that is not ready cannot be adopted.
            for serial in self.serials(State::is_starting) {
                self.apply(serial, Event::Drain);
            }
        } else {
            self.drain_all();
        }
        self.dirty = true;
    }

    /// Serves the queue, scales, and publishes changes. Idempotent.
    fn reconcile(&mut self, now: Instant) {
        self.serve_queue();
        self.complete_verification();
        self.end_verification_without_engine();
        if let Some(refusal) = self.refusal(now) {
            self.refuse_all(refusal);
        }
        match &self.stopping {
            None => self.scale(now),
            Some(stopping) if stopping.keep => self.release_ready(),
            Some(_) => {}
        }
        self.end_wakes();
        if self.dirty {
            self.dirty = false;
            self.publish_view();
        }
    }

    /// Ends the wakes that clients are charged for, once the version is awake or nothing starts.
    fn end_wakes(&self) {
        let is_awake = self.shared.is_awake.load(Ordering::Relaxed);
        let starts = self.count(State::is_starting) > 0;
        let over = || is_awake || !starts && self.shared.waiting() == 0;
        self.shared.wakers.end_if(over);
    }

    fn serve_queue(&mut self) {
        while !self.queue.is_empty() {
            let Some(instance) = self.shared.claim() else {
                return;
            };
            if let Some(waiter) = self.queue.pop_front() {
                self.shared.end_wait();
                // The waiter may be gone; its slot is free again then.
                if let Err(Ok(instance)) = waiter.reply.send(Ok(instance)) {
                    self.shared.release(&instance);
                }
            }
        }
    }

    /// The answer to all waiters, if no instance can serve them for now.
    fn refusal(&self, now: Instant) -> Option<Refusal> {
        // An instance in any state but ready needs the engine.
        if let Some(retry_after) = self.availability.borrow().refusal(now)
            && self.count(|state| state == State::Ready) == 0
        {
            return Some(Refusal::EngineUnavailable { retry_after });
        }
        if self.count(State::is_active) > 0 {
            return None;
        }
        let retry_after = self.backoff.refusal(now)?;
        Some(Refusal::BackingOff { retry_after })
    }

    /// Time until waiters are refused, if the engine stays unavailable; `None` without waiters.
    fn grace_remaining(&self, now: Instant) -> Option<Duration> {
        let waits = !self.queue.is_empty();
        let left = self.availability.borrow().grace_remaining(now);
        left.filter(|_| waits)
    }

    fn count(&self, matches: impl Fn(State) -> bool) -> u32 {
        let states = self.instances.values().map(|entry| entry.state);
        let found = states.filter(|state| matches(*state)).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    }

    fn serials(&self, matches: impl Fn(State) -> bool) -> Vec<u64> {
        let found = self.instances.iter().filter(|(_, one)| matches(one.state));
        found.map(|(serial, _)| *serial).collect()
    }

    fn finished(&self) -> bool {
        let empty = self.instances.is_empty() && self.queue.is_empty();
        let unrouted = match self.membership.status {
            VersionStatus::Deleted => true,
            // The reason of a failed verification stays visible for a while.
            VersionStatus::Left => !self.failed_recently(),
            VersionStatus::InTraffic | VersionStatus::Reachable => false,
        };
        empty && (self.stopping.is_some() || unrouted)
    }

    fn failed_recently(&self) -> bool {
        let failed = self.last_failure.as_ref();
        failed.is_some_and(|failure| {
            failure
                .at
                .elapsed()
                .is_ok_and(|age| age < FAILURE_RETENTION)
        })
    }
}
