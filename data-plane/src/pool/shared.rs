//! The state that a pool's handle, its guards and its actor share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::message::Message;
use crate::instance::Instance;
use crate::report::{InstanceReport, VersionReport};
use crate::route::{Settings, Version, VersionKey};

/// The pool's part of the node report. Requests in flight are read at the time of the report.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) instances: Vec<(Arc<Instance>, InstanceReport)>,
    pub(super) version: Option<VersionReport>,
    /// A doubt about the version's image, for a person.
    pub(super) warning: Option<String>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) key: VersionKey,
    pub(super) service: Arc<str>,
    /// Time between the stop signal and the kill of a container.
    pub(super) stop_grace: Duration,
    /// Instances that requests may enter.
    pub(super) open: ArcSwap<Vec<Arc<Instance>>>,
    /// Requests in the queue, or on their way into it.
    waiting: AtomicUsize,
    concurrency: AtomicU32,
    queue_limit: AtomicU32,
    mailbox: mpsc::UnboundedSender<Message>,
    pub(super) view: Mutex<View>,
    /// The image digest that the control plane fixed for the version; `None` until it has.
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

    pub(super) fn fixed_digest(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.digest.subscribe()
    }

    pub(super) fn set_fixed_digest(&self, digest: Option<Arc<str>>) {
        self.digest.send_if_modified(|fixed| {
            let differs = *fixed != digest;
            *fixed = digest;
            differs
        });
    }

    pub(super) fn concurrency(&self) -> u32 {
        self.concurrency.load(Ordering::Relaxed)
    }

    pub(super) fn update_settings(&self, settings: &Settings) {
        self.concurrency
            .store(settings.concurrency, Ordering::Relaxed);
        self.queue_limit
            .store(settings.queue_limit, Ordering::Relaxed);
    }

    /// Enters the least loaded open instance. The caller owns a slot in it until
    /// [`Shared::release`].
    pub(super) fn claim(&self) -> Option<Arc<Instance>> {
        let open = self.open.load();
        // Another request may take the last slot after the choice, or the instance may close:
        // choose again. Each failed turn means that another request got a slot, or that one
        // instance less is open, so this ends.
        loop {
            let best = open
                .iter()
                .filter(|one| one.admission.is_open())
                .min_by_key(|one| one.admission.in_flight())?;
            if best.admission.in_flight() >= self.concurrency() {
                return None;
            }
            if best.enter(self.concurrency()).is_ok() {
                return Some(best.clone());
            }
        }
    }

    pub(super) fn release(&self, instance: &Instance) {
        let emptied = instance.leave(Instant::now());
        fence(Ordering::SeqCst);
        if emptied {
            self.send(Message::Emptied(instance.serial()));
        } else if self.waiting.load(Ordering::SeqCst) > 0 {
            self.send(Message::SlotFreed);
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts a request that is about to wait. False if the queue is full; nothing is counted then.
    pub(super) fn begin_wait(&self) -> bool {
        let limit = self.queue_limit.load(Ordering::Relaxed) as usize;
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= limit {
            self.end_wait();
            return false;
        }
        fence(Ordering::SeqCst);
        true
    }

    pub(super) fn end_wait(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.mailbox.is_closed()
    }

    /// Sends to the actor. False if it has ended.
    pub(super) fn send(&self, message: Message) -> bool {
        self.mailbox.send(message).is_ok()
    }
}
