//! The handle of one version's instances: what the proxy asks for a place.
//!
//! A request that finds a free place takes it with one compare-exchange and no task is woken. One
//! that does not goes into the owner's queue, and is handed a place, in order. Nobody passes the
//! queue: while anyone waits, the fast path is closed.
//!
//! Lost wake-ups are excluded by the order of two atomic steps: who waits is counted *before* the
//! owner looks for a free place, and who leaves gives the place back *before* looking whether
//! anyone waits (both sequentially consistent), so at least one of the two sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::guard::{Guard, Instance};
use super::owner::{Message, Waiter};
use super::report::{InstanceReport, VersionReport};
use crate::route::{Settings, Version, VersionKey};

/// Why a request gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many requests wait as may.
    #[error("too many requests wait for this version")]
    QueueFull,
    /// The start that it waited for failed.
    #[error("the version failed to start")]
    StartFailed {
        /// When a start is tried again.
        retry_after: Duration,
    },
    /// Starts failed lately and none is tried now.
    #[error("the version fails to start and is left alone for a while")]
    BackingOff {
        /// When a start is tried again.
        retry_after: Duration,
    },
    /// The engine has not answered for a while, and no instance is ready.
    #[error("the node cannot start an instance now")]
    EngineAway {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// No place became free in time.
    #[error("no instance became free in time")]
    TimedOut,
    /// The version is deleted: choose again.
    #[error("the version is gone")]
    Gone,
    /// The node is stopping.
    #[error("the node is stopping")]
    ShuttingDown,
}

/// What the pool tells of itself; in-flight counts are read live.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) instances: Vec<(Arc<Instance>, InstanceReport)>,
    pub(super) version: Option<VersionReport>,
}

/// What the handle, the guards and the owner share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) key: VersionKey,
    /// The service's name.
    pub(super) service: Arc<str>,
    /// How long a container of it may take to end when it is asked to.
    pub(super) stop_grace: Duration,
    /// Instances that requests may enter.
    pub(super) open: ArcSwap<Vec<Arc<Instance>>>,
    /// Requests in the queue, or on their way into it.
    waiting: AtomicUsize,
    concurrency: AtomicU32,
    queue_limit: AtomicU32,
    mailbox: mpsc::UnboundedSender<Message>,
    pub(super) view: Mutex<View>,
    /// The digest of the version's image that counts, once the control plane has said so.
    digest: watch::Sender<Option<Arc<str>>>,
}

impl Shared {
    pub(super) fn new(
        version: &Version,
        settings: &Settings,
        mailbox: mpsc::UnboundedSender<Message>,
    ) -> Self {
        Self {
            key: version.key.clone(),
            service: version.service.clone(),
            stop_grace: version.spec.stop_grace,
            open: ArcSwap::default(),
            waiting: AtomicUsize::new(0),
            concurrency: AtomicU32::new(settings.concurrency),
            queue_limit: AtomicU32::new(settings.queue_limit),
            mailbox,
            view: Mutex::default(),
            digest: watch::Sender::new(None),
        }
    }

    /// The digest that counts, if it is known.
    pub(super) fn fixed_digest(&self) -> Option<Arc<str>> {
        self.digest.borrow().clone()
    }

    pub(super) fn digests(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.digest.subscribe()
    }

    pub(super) fn fix_digest(&self, digest: Option<Arc<str>>) {
        self.digest.send_if_modified(|fixed| {
            let differs = *fixed != digest;
            *fixed = digest;
            differs
        });
    }

    pub(super) fn concurrency(&self) -> u32 {
        self.concurrency.load(Ordering::Relaxed)
    }

    pub(super) fn settings_changed(&self, settings: &Settings) {
        self.concurrency
            .store(settings.concurrency, Ordering::Relaxed);
        self.queue_limit
            .store(settings.queue_limit, Ordering::Relaxed);
    }

    /// A place in the least loaded open instance.
    pub(super) fn place(self: &Arc<Self>) -> Option<Guard> {
        let open = self.open.load();
        // Another request may take the last place between the look and the step, or the instance
        // may close: then look again. Each look that fails means that somebody else got a place, or
        // that one less is open, so it ends.
        loop {
            let best = open
                .iter()
                .filter(|one| one.admission.is_open())
                .min_by_key(|one| one.admission.in_flight())?;
            if best.admission.in_flight() >= self.concurrency() {
                return None;
            }
            if let Ok(guard) = Guard::enter(best, self) {
                return Some(guard);
            }
        }
    }

    /// A guard has given its place back.
    pub(super) fn left(&self, instance: &Arc<Instance>, emptied: bool) {
        fence(Ordering::SeqCst);
        if emptied {
            self.tell(Message::Emptied(instance.serial()));
        } else if self.waiting.load(Ordering::SeqCst) > 0 {
            self.tell(Message::Freed);
        }
    }

    pub(super) fn served(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.mailbox.is_closed()
    }

    /// False if the owner has ended.
    pub(super) fn tell(&self, message: Message) -> bool {
        self.mailbox.send(message).is_ok()
    }
}

/// The instances of one version on this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(super) shared: Arc<Shared>,
}

impl Pool {
    /// Which version.
    pub fn key(&self) -> &VersionKey {
        &self.shared.key
    }

    /// Its owner has ended: whoever wants a place asks [`super::Pools`] for another pool.
    pub fn is_over(&self) -> bool {
        self.shared.is_over()
    }

    /// Requests that wait for a place.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Takes a place in an instance, starting one if it must, and waits for it until `deadline`.
    ///
    /// Dropping the future gives the turn up; a start that was caused by it goes on.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is held then.
    pub async fn admit(&self, deadline: Instant) -> Result<Guard, Refusal> {
        if self.shared.waiting.load(Ordering::Relaxed) == 0
            && let Some(guard) = self.shared.place()
        {
            return Ok(guard);
        }
        // Few requests wait, and what waiting takes is not to be moved along with every one.
        Box::pin(self.wait(deadline)).await
    }

    async fn wait(&self, deadline: Instant) -> Result<Guard, Refusal> {
        let since = Instant::now();
        let limit = self.shared.queue_limit.load(Ordering::Relaxed) as usize;
        if self.shared.waiting.fetch_add(1, Ordering::SeqCst) >= limit {
            self.shared.served();
            return Err(Refusal::QueueFull);
        }
        fence(Ordering::SeqCst);
        let (reply, answer) = oneshot::channel();
        if !self.shared.tell(Message::Wait(Waiter { reply })) {
            self.shared.served();
            return Err(Refusal::Gone);
        }
        let mut turn = Turn {
            shared: &self.shared,
            over: false,
        };
        let answer = tokio::time::timeout_at(deadline.into(), answer).await;
        // On a time-out the drop of `turn` tells the owner that this one gave up.
        let Ok(answer) = answer else {
            return Err(Refusal::TimedOut);
        };
        turn.over = true;
        // The owner ends only with an empty queue, so a reply that is dropped means it is gone.
        let mut guard = answer.unwrap_or(Err(Refusal::Gone))?;
        guard.set_waited(since);
        Ok(guard)
    }
}

/// A turn in the queue; dropped before it is over, it tells the owner.
struct Turn<'a> {
    shared: &'a Arc<Shared>,
    over: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.shared.tell(Message::GaveUp);
        }
    }
}
