//! The handle of a version's pool, from which the proxy acquires slots.
//!
//! A request that finds a free slot takes it with one compare-exchange, and no task wakes. Any
//! other request enters the actor's queue and gets a slot in order. While a request waits, the fast
//! path is closed, so no request overtakes the queue.
//!
//! Lost wake-ups are excluded by the order of two sequentially consistent steps: a waiter is
//! counted *before* the actor looks for a free slot, and a slot is freed *before* its guard looks
//! for waiters. So at least one side observes the other.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;

use super::guard::Guard;
use super::message::{Message, Waiter};
use super::refusal::Refusal;
use super::shared::Shared;
use crate::engine::start_order::Client;
use crate::instance::Instance;
use crate::route::VersionKey;

/// The instances of one version on this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(super) shared: Arc<Shared>,
}

impl Pool {
    /// The version.
    pub fn key(&self) -> &VersionKey {
        &self.shared.key
    }

    /// Whether its actor has ended; [`super::Pools`] has, or makes, another pool then.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.shared.waiting()
    }

    /// Takes a slot in an instance; waits for one until `deadline`, and for a start if none is
    /// free. `client` gives the address that is charged for a start; `None` if it is unknown. Only a
    /// request that waits calls it.
    ///
    /// Dropping the future leaves the queue; a start that it caused goes on.
    ///
    /// # Errors
    /// [`Refusal`]; no slot is taken then.
    pub async fn admit(
        &self,
        deadline: Instant,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<Guard, Refusal> {
        if self.shared.waiting() == 0
            && let Some(guard) = Guard::claim(&self.shared)
        {
            return Ok(guard);
        }
        // Boxed: few requests wait, and the others do not carry the size of this future.
        Box::pin(self.wait(deadline, client().map(Client::from))).await
    }

    async fn wait(&self, deadline: Instant, client: Option<Client>) -> Result<Guard, Refusal> {
        let since = Instant::now();
        if !self.shared.begin_wait() {
            return Err(Refusal::QueueFull);
        }
        // After the request is counted as waiting, so that the actor does not end the wake.
        if let Some(client) = client
            && !self.shared.is_awake.load(Ordering::Relaxed)
            && !self.shared.wakers.begin(client)
        {
            self.shared.end_wait();
            return Err(Refusal::TooManyWakes);
        }
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter {
            reply,
            _caller: self.shared.demand.join(client),
        };
        if !self.shared.send(Message::Wait(waiter)) {
            self.shared.end_wait();
            return Err(Refusal::Gone);
        }
        let mut turn = QueueTurn {
            shared: &self.shared,
            answer: Some(answer),
        };
        let instance = tokio::time::timeout_at(deadline.into(), turn.granted())
            .await
            .unwrap_or(Err(Refusal::TimedOut))?;
        Ok(Guard::after_wait(instance, &self.shared, since))
    }
}

/// A place in the queue. Dropped before its answer arrives, it leaves the queue.
struct QueueTurn<'a> {
    shared: &'a Shared,
    /// `None` once the answer has arrived.
    answer: Option<oneshot::Receiver<Result<Arc<Instance>, Refusal>>>,
}

impl QueueTurn<'_> {
    /// Waits for the actor's answer. The caller owns the slot in the instance.
    async fn granted(&mut self) -> Result<Arc<Instance>, Refusal> {
        let Some(answer) = &mut self.answer else {
            return Err(Refusal::Gone);
        };
        // The actor drops a reply only after its version is gone.
        let granted = answer.await.unwrap_or(Err(Refusal::Gone));
        self.answer = None;
        granted
    }
}

impl Drop for QueueTurn<'_> {
    fn drop(&mut self) {
        let Some(mut answer) = self.answer.take() else {
            return;
        };
        answer.close();
        // A slot that was granted in the meantime goes back.
        if let Ok(Ok(instance)) = answer.try_recv() {
            self.shared.release(&instance);
        }
        self.shared.send(Message::WaiterGone);
    }
}
