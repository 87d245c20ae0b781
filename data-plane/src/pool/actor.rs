//! The one task per pool that decides: it owns the queue and every instance's state.
//!
//! It is a reconciler: whatever wakes it (a message, a timer), it hands free places to the queue in
//! order, asks `scale::decide` what to start, wake, pause and reap, and publishes what changed. It performs nothing
//! itself; the engine is called by detached tasks, whose findings come back as messages.
//!
//! Invariants: every [`Waiter`] is answered exactly once; a pool ends only with an empty queue and
//! no instance, and only once its version has left the route table.

#[path = "actor/digest.rs"]
mod image;
#[path = "actor/liveness.rs"]
mod liveness;
#[path = "message.rs"]
mod message;
#[path = "actor/task_events.rs"]
mod progress;
#[path = "actor/scaling.rs"]
mod scaling;
#[path = "actor/pausing.rs"]
mod sleeping;
#[path = "actor/instances.rs"]
mod tenant;
#[path = "../instance/owner/trouble.rs"]
mod trouble;
#[path = "actor/report.rs"]
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::backoff::Backoff;
use super::engine::Engine;
use super::outage::Outage;
use super::pool::{Refusal, Shared};
use super::report::{ColdStart, StartFailure, VerifyResult};
use super::state::{Event, State};
use crate::metrics::Metrics;
use crate::scale::decide::Standing;
use crate::scale::window::Window;
use tenant::{Tenant, is_starting};

pub(super) use image::is_stale;
pub(super) use message::{Membership, Message, Progress, Waiter};

/// The node-wide surroundings of a pool.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) engine: Arc<Engine>,
    pub(super) metrics: Arc<Metrics>,
    /// Told whenever something that is reported changed.
    pub(super) changed: tokio::sync::watch::Sender<u64>,
}

/// How long a version that left the route table is reported with the failure of its last start.
const REMEMBER: Duration = Duration::from_secs(600);

struct Proof {
    id: String,
    result: VerifyResult,
    /// A start was asked for it, so the next outcome of a start is its outcome.
    tried: bool,
}

impl Proof {
    fn wants_a_start(&self) -> bool {
        self.result == VerifyResult::Pending && !self.tried
    }
}

/// See the module.
pub(super) struct Owner {
    shared: Arc<Shared>,
    around: Surroundings,
    inbox: mpsc::UnboundedReceiver<Message>,
    member: Membership,
    queue: VecDeque<Waiter>,
    tenants: BTreeMap<u64, Tenant>,
    backoff: Backoff,
    port: Option<u16>,
    /// Since this pool began.
    pulled: bool,
    image_digest: Option<Arc<str>>,
    /// A start has looked at the image, so the next need not.
    looked: bool,
    last_failure: Option<StartFailure>,
    /// The last end of an instance that served; a good start does not make it untold.
    last_end: Option<StartFailure>,
    last_cold_start: Option<ColdStart>,
    pull_progress: Option<String>,
    proof: Option<Proof>,
    /// How many instances the load of late filled.
    load: Window,
    /// Whether the engine answers.
    outage: tokio::sync::watch::Receiver<Outage>,
    stopping: Option<Stopping>,
    dirty: bool,
}

/// The node stops.
struct Stopping {
    /// What is ready stays for the next process.
    keep: bool,
    /// Answered by being dropped, with the owner.
    _done: oneshot::Sender<()>,
}

impl Owner {
    pub(super) fn new(
        shared: Arc<Shared>,
        around: Surroundings,
        inbox: mpsc::UnboundedReceiver<Message>,
        member: Membership,
    ) -> Self {
        let mut owner = Self {
            shared,
            outage: around.engine.outage.subscribe(),
            around,
            inbox,
            member: member.clone(),
            queue: VecDeque::new(),
            tenants: BTreeMap::new(),
            backoff: Backoff::default(),
            port: None,
            pulled: false,
            image_digest: None,
            looked: false,
            last_failure: None,
            last_end: None,
            last_cold_start: None,
            pull_progress: None,
            proof: None,
            load: Window::default(),
            stopping: None,
            dirty: true,
        };
        owner.set_member(member);
        owner
    }

    /// Runs until the pool has no more reason to exist. `forget` takes it out of the node's map.
    pub(super) async fn run(mut self, forget: impl FnOnce()) {
        loop {
            // One `now` for both: what falls due between two would neither be reaped nor waited for.
            let now = Instant::now();
            self.settle(now);
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
                // Its sender is in `around`.
                Ok(()) = self.outage.changed() => {}
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.handle(message);
            }
        }
        forget();
        // What came in between is told to look again; a new pool answers it.
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            if let Message::Wait(waiter) = message {
                self.shared.served();
                let _ = waiter.reply.send(Err(Refusal::Gone));
            }
        }
        self.around.changed.send_modify(|count| *count += 1);
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Wait(waiter) => {
                self.queue.push_back(waiter);
                if self.stopping.is_some() {
                    self.refuse_all(Refusal::ShuttingDown);
                } else if self.member.standing == Standing::Deleted {
                    // It chose by the table before: it is to choose again.
                    self.refuse_all(Refusal::Gone);
                }
            }
            Message::GaveUp => self.sweep(),
            Message::Freed => {}
            Message::Emptied(serial) => self.apply(serial, Event::Emptied),
            Message::Member(member) => self.set_member(member),
            Message::Left(standing) => self.set_standing(standing),
            Message::Progress(serial, progress) => self.progress(serial, progress),
            Message::Died(name) => self.died(&name),
            Message::Suspected(serial) => self.look_at(serial),
            Message::Unhealthy(name) => self.unhealthy(&name),
            Message::NetworkLost(name) => self.network_lost(&name),
            Message::Adopt(container, address) => self.adopt(*container, address),
            Message::Stop { keep, done } => self.stop(keep, done),
        }
    }

    fn set_member(&mut self, member: Membership) {
        self.shared.settings_changed(&member.settings);
        if let Some(order) = &member.version.verify
            && self.proof.as_ref().is_none_or(|proof| proof.id != order.id)
        {
            self.proof = Some(Proof {
                id: order.id.clone(),
                result: VerifyResult::Pending,
                tried: false,
            });
            self.dirty = true;
        }
        self.set_standing(member.standing);
        let digest = member.version.image_digest.as_deref().map(Arc::from);
        self.member = member;
        self.drain_stale();
        // After that: a start that hears of it must find itself given up, if it is.
        self.shared.fix_digest(digest);
    }

    fn set_standing(&mut self, standing: Standing) {
        if standing == Standing::Deleted && self.member.standing != Standing::Deleted {
            self.refuse_all(Refusal::Gone);
            self.proof = None;
            self.drain_all();
        }
        self.member.standing = standing;
    }

    /// Takes those out of the queue that no longer wait.
    fn sweep(&mut self) {
        let before = self.queue.len();
        self.queue.retain(|waiter| !waiter.reply.is_closed());
        for _ in self.queue.len()..before {
            self.shared.served();
        }
    }

    fn refuse_all(&mut self, refusal: Refusal) {
        for waiter in self.queue.drain(..) {
            self.shared.served();
            let _ = waiter.reply.send(Err(refusal));
        }
    }

    fn drain_all(&mut self) {
        for serial in self.tenants.keys().copied().collect::<Vec<_>>() {
            self.apply(serial, Event::Drain);
        }
    }

    fn stop(&mut self, keep: bool, done: oneshot::Sender<()>) {
        self.refuse_all(Refusal::ShuttingDown);
        self.stopping = Some(Stopping { keep, _done: done });
        if keep {
            // What is half started cannot be adopted.
            let half = self.serials(is_starting);
            for serial in half {
                self.apply(serial, Event::Drain);
            }
        } else {
            self.drain_all();
        }
        self.dirty = true;
    }

    /// Hands out places, decides, starts and reaps until nothing more is to be done now.
    fn settle(&mut self, now: Instant) {
        self.hand_out();
        self.prove();
        if let Some(refusal) = self.nothing_to_wait_for(now) {
            self.refuse_all(refusal);
        }
        match &self.stopping {
            None => self.scale(now),
            Some(stopping) if stopping.keep => self.leave_awake(),
            Some(_) => {}
        }
        if self.dirty {
            self.dirty = false;
            self.publish_view();
        }
    }

    fn hand_out(&mut self) {
        while !self.queue.is_empty() {
            let Some(guard) = self.shared.place() else {
                return;
            };
            if let Some(waiter) = self.queue.pop_front() {
                self.shared.served();
                // To one that has just gone away the place is lost at once, and free again.
                let _ = waiter.reply.send(Ok(guard));
            }
        }
    }

    /// A version with a ready instance is proved.
    fn prove(&mut self) {
        let Some(proof) = &mut self.proof else { return };
        if proof.result != VerifyResult::Pending {
            return;
        }
        let version = &self.member.version;
        let ready = self.tenants.values().find(|tenant| {
            tenant.state == State::Ready && image::is_settled(tenant.digest.as_deref(), version)
        });
        if let Some(tenant) = ready {
            let known = tenant.instance.cold_start().cloned();
            proof.result = VerifyResult::Verified(known.unwrap_or_else(|| ColdStart {
                pull: None,
                queue: None,
                create: None,
                start: None,
                ready: None,
                total: Duration::ZERO,
                at: SystemTime::now(),
            }));
            self.dirty = true;
        }
    }

    fn count(&self, wanted: impl Fn(State) -> bool) -> u32 {
        let found = self
            .tenants
            .values()
            .filter(|tenant| wanted(tenant.state))
            .count();
        u32::try_from(found).unwrap_or(u32::MAX)
    }

    fn serials(&self, wanted: impl Fn(State) -> bool) -> Vec<u64> {
        let found = self.tenants.iter().filter(|(_, one)| wanted(one.state));
        found.map(|(serial, _)| *serial).collect()
    }

    fn finished(&self) -> bool {
        let idle = self.tenants.is_empty() && self.queue.is_empty();
        let unwanted = match self.member.standing {
            Standing::Deleted => true,
            // Who looks at it wants to know why it did not start, also after its proof has failed.
            Standing::Left => !self.remembers(),
            Standing::InTraffic | Standing::Reachable => false,
        };
        idle && (self.stopping.is_some() || unwanted)
    }

    /// A start failed, and not long ago.
    fn remembers(&self) -> bool {
        let failed = self.last_failure.as_ref();
        failed.is_some_and(|failure| failure.at.elapsed().is_ok_and(|age| age < REMEMBER))
    }
}
