//! The node's limit on concurrent starts.
//!
//! Starts are CPU-bound. Of twenty starts on two cores, the first is ready after 155 ms when two
//! run at a time and after 556 ms when all do. The last is no later. [`start_order`] decides which
//! waiting start is next; this module makes them wait.
//!
//! A pool has one [`Demand`], which knows who waits for its starts. It is read at each decision: a
//! refill becomes urgent when a caller arrives, and a start loses its urgency when its callers leave.
//!
//! A call that takes much longer than any start hangs, in the engine or behind it. Its permit is
//! lent to others, so that one container that cannot start blocks no other. The number of lent
//! permits is bounded, and with it the number of hanging calls.
//!
//! The limiter also knows when no start is in progress, which is the time for background work.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::start_order::{Candidate, Client, Grant, Rank, StartOrder};

/// After this time a call hangs and its permit is lent. The slowest of twenty concurrent starts
/// took 3 s when measured.
const HANGS: Duration = Duration::from_secs(10);
/// The most permits lent at a time.
const MAX_LENT: usize = 32;
/// The callers of a pool that one decision looks at. More of them change nothing but its cost.
const MAX_CALLERS: usize = 16;

/// The node's limiter. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct StartLimiter {
    queue: Arc<Mutex<StartQueue>>,
}

/// Those who wait for the starts of one pool.
#[derive(Debug)]
pub(crate) struct Demand {
    limiter: StartLimiter,
    callers: Mutex<BTreeMap<Option<Client>, usize>>,
}

/// One who waits for a start, until this is dropped.
#[derive(Debug)]
pub(crate) struct Caller {
    demand: Arc<Demand>,
    client: Option<Client>,
}

/// A start's application for a permit.
#[derive(Debug, Clone)]
pub(crate) struct StartRequest {
    pub(crate) service: Arc<str>,
    pub(crate) rank: Rank,
    pub(crate) demand: Arc<Demand>,
}

/// Permission to start a container; released when dropped.
#[derive(Debug)]
pub(crate) struct StartPermit {
    limiter: StartLimiter,
    /// `None` if the permit is lent or released: another start uses it.
    grant: Option<Grant>,
    lent: bool,
}

/// A start in progress, from its decision to its end, with or without a permit.
#[derive(Debug)]
pub(crate) struct StartInProgress(StartLimiter);

#[derive(Debug)]
struct StartQueue {
    order: StartOrder,
    lent: usize,
    in_progress: usize,
    last_end: Instant,
    arrivals: u64,
    /// In the order of their arrival.
    waiting: Vec<WaitingStart>,
}

#[derive(Debug)]
struct WaitingStart {
    request: StartRequest,
    arrived: u64,
    turn: oneshot::Sender<StartPermit>,
}

impl StartLimiter {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            queue: Arc::new(Mutex::new(StartQueue {
                order: StartOrder::new(limit),
                lent: 0,
                in_progress: 0,
                last_end: Instant::now(),
                arrivals: 0,
                waiting: Vec::new(),
            })),
        }
    }

    /// Those who will wait for the starts of a new pool; nobody yet.
    pub(crate) fn demand(&self) -> Arc<Demand> {
        Arc::new(Demand {
            limiter: self.clone(),
            callers: Mutex::default(),
        })
    }

    /// Counts a start as in progress until the returned value is dropped.
    pub(crate) fn begin_start(&self) -> StartInProgress {
        self.queue.lock().in_progress += 1;
        StartInProgress(self.clone())
    }

    /// Time since the last start ended; `None` while one is in progress.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        let queue = self.queue.lock();
        (queue.in_progress == 0).then(|| queue.last_end.elapsed())
    }

    /// Waits for a permit. Dropping the future leaves the queue.
    pub(crate) async fn acquire(&self, request: StartRequest) -> StartPermit {
        let (turn, permit) = oneshot::channel();
        {
            let mut queue = self.queue.lock();
            queue.arrivals += 1;
            let arrived = queue.arrivals;
            queue.waiting.push(WaitingStart {
                request,
                arrived,
                turn,
            });
        }
        self.hand_out();
        match permit.await {
            Ok(permit) => permit,
            // Unreachable: the queue drops no waiter before its turn, and `self` keeps the queue.
            Err(_) => StartPermit {
                limiter: self.clone(),
                grant: None,
                lent: false,
            },
        }
    }

    /// Hands out the permits that waiting starts may have.
    fn hand_out(&self) {
        while let Some((turn, grant)) = self.next() {
            let permit = StartPermit {
                limiter: self.clone(),
                grant: Some(grant),
                lent: false,
            };
            // If the waiter is gone, this loop passes the permit on, not its drop.
            if let Err(mut unused) = turn.send(permit)
                && let Some(grant) = unused.grant.take()
            {
                self.queue.lock().order.release(&grant);
            }
        }
    }

    fn next(&self) -> Option<(oneshot::Sender<StartPermit>, Grant)> {
        let queue = &mut *self.queue.lock();
        if queue.waiting.is_empty() || queue.order.is_full() {
            return None;
        }
        queue.waiting.retain(|one| !one.turn.is_closed());
        let candidates: Vec<Candidate<'_>> = queue.waiting.iter().map(candidate).collect();
        let (index, grant) = queue.order.grant(&candidates)?;
        let next = queue.waiting.remove(index);
        Some((next.turn, grant))
    }

    fn release(&self, grant: &Grant) {
        self.queue.lock().order.release(grant);
        self.hand_out();
    }
}

fn candidate(waiting: &WaitingStart) -> Candidate<'_> {
    let callers = waiting.request.demand.callers.lock();
    Candidate {
        service: &waiting.request.service,
        rank: waiting.request.rank,
        callers: callers.keys().take(MAX_CALLERS).copied().collect(),
        arrived: waiting.arrived,
    }
}

impl Demand {
    /// Counts one who waits; `client` is `None` if it is unknown, or the operator.
    pub(crate) fn join(self: &Arc<Self>, client: Option<Client>) -> Caller {
        let is_new = {
            let mut callers = self.callers.lock();
            let count = callers.entry(client).or_default();
            *count += 1;
            *count == 1
        };
        // A start that was held back may be urgent now.
        if is_new {
            self.limiter.hand_out();
        }
        Caller {
            demand: self.clone(),
            client,
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut callers = self.demand.callers.lock();
        if let Some(count) = callers.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                callers.remove(&self.client);
            }
        }
    }
}

impl StartPermit {
    /// Runs a call that needs the permit. The permit is lent if the call hangs.
    pub(crate) async fn during<T>(&mut self, call: impl Future<Output = T>) -> T {
        tokio::pin!(call);
        match tokio::time::timeout(HANGS, &mut call).await {
            Ok(done) => done,
            Err(_) => {
                self.lend();
                call.await
            }
        }
    }

    fn lend(&mut self) {
        {
            let mut queue = self.limiter.queue.lock();
            if self.grant.is_none() || queue.lent == MAX_LENT {
                return;
            }
            queue.lent += 1;
        }
        self.lent = true;
        if let Some(grant) = self.grant.take() {
            self.limiter.release(&grant);
        }
    }
}

impl Drop for StartPermit {
    fn drop(&mut self) {
        if self.lent {
            self.limiter.queue.lock().lent -= 1;
        }
        if let Some(grant) = self.grant.take() {
            self.limiter.release(&grant);
        }
    }
}

impl Drop for StartInProgress {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.in_progress -= 1;
        queue.last_end = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    /// The start of a service that this client waits for, and the client.
    fn awaited(limiter: &StartLimiter, service: &str, host: u8) -> (StartRequest, Caller) {
        let demand = limiter.demand();
        let client = std::net::IpAddr::from([192, 0, 2, host]);
        let caller = demand.join(Some(client.into()));
        (request(service, demand), caller)
    }

    fn refill(limiter: &StartLimiter, service: &str) -> StartRequest {
        request(service, limiter.demand())
    }

    fn request(service: &str, demand: Arc<Demand>) -> StartRequest {
        StartRequest {
            service: service.into(),
            rank: Rank::First,
            demand,
        }
    }

    #[tokio::test]
    async fn a_service_with_many_starts_does_not_delay_another() {
        let limiter = StartLimiter::new(1);
        let (greedy, _caller) = awaited(&limiter, "greedy", 1);
        let (modest, _other) = awaited(&limiter, "modest", 2);
        let first = limiter.acquire(greedy.clone()).await;
        let mut greedy_waits: Vec<_> = (0..5)
            .map(|_| Box::pin(limiter.acquire(greedy.clone())))
            .collect();
        for wait in &mut greedy_waits {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        let mut modest_waits = Box::pin(limiter.acquire(modest));
        assert!(modest_waits.as_mut().now_or_never().is_none());
        drop(first);
        assert!(greedy_waits[0].as_mut().now_or_never().is_none());
        let second = modest_waits.as_mut().now_or_never();
        assert!(second.is_some(), "a first start before another's second");
        drop(second);
        assert!(greedy_waits[0].as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_refill_becomes_urgent_when_a_caller_arrives_and_is_not_when_it_leaves() {
        let limiter = StartLimiter::new(4);
        let mut running = Vec::new();
        for service in ["a", "b"] {
            running.push(limiter.acquire(refill(&limiter, service)).await);
        }
        let waits = refill(&limiter, "waits");
        let mut turn = Box::pin(limiter.acquire(waits.clone()));
        assert!(turn.as_mut().now_or_never().is_none(), "half are refills");
        let caller = waits.demand.join(None);
        assert!(turn.as_mut().now_or_never().is_some());

        let left = refill(&limiter, "left");
        drop(left.demand.join(None));
        let mut turn = Box::pin(limiter.acquire(left));
        assert!(turn.as_mut().now_or_never().is_none());
        drop((caller, running));
        assert!(turn.as_mut().now_or_never().is_some());
    }

    #[test]
    fn it_is_idle_while_no_start_is_in_progress() {
        let limiter = StartLimiter::new(1);
        assert!(limiter.idle_for().is_some());
        let (one, two) = (limiter.begin_start(), limiter.begin_start());
        drop(one);
        assert_eq!(limiter.idle_for(), None);
        drop(two);
        assert!(limiter.idle_for().is_some());
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_loses_no_permit() {
        let limiter = StartLimiter::new(1);
        let start = refill(&limiter, "s");
        let first = limiter.acquire(start.clone()).await;
        let mut leaves = Box::pin(limiter.acquire(start.clone()));
        assert!(leaves.as_mut().now_or_never().is_none());
        let mut stays = Box::pin(limiter.acquire(start.clone()));
        assert!(stays.as_mut().now_or_never().is_none());
        drop(leaves);
        drop(first);
        let permit = stays.as_mut().now_or_never();
        assert!(permit.is_some());
        drop(permit);
        assert!(limiter.acquire(start).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_permit_that_is_handed_out_to_a_leaver_goes_on() {
        let limiter = StartLimiter::new(1);
        let start = refill(&limiter, "s");
        let first = limiter.acquire(start.clone()).await;
        let mut leaves = Box::pin(limiter.acquire(start.clone()));
        assert!(leaves.as_mut().now_or_never().is_none());
        drop(first);
        // It has the permit, and never looks.
        drop(leaves);
        assert!(limiter.acquire(start).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_permit_of_a_call_that_hangs_goes_to_another_service() {
        let limiter = StartLimiter::new(1);
        let (stuck, other) = (refill(&limiter, "stuck"), refill(&limiter, "other"));
        let mut permit = limiter.acquire(stuck).await;
        let (end, ended) = oneshot::channel::<()>();
        let hanging = tokio::spawn(async move {
            let _ = permit.during(ended).await;
        });
        let began = tokio::time::Instant::now();
        let second = limiter.acquire(other.clone()).await;
        assert_eq!(began.elapsed(), HANGS);
        assert!(
            limiter.acquire(other.clone()).now_or_never().is_none(),
            "still one"
        );
        let _ = end.send(());
        hanging.await.unwrap();
        assert!(
            limiter.acquire(other.clone()).now_or_never().is_none(),
            "it was lent"
        );
        drop(second);
        assert!(limiter.acquire(other).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_hang_are_bounded() {
        let limiter = StartLimiter::new(2);
        let mut calls = tokio::task::JoinSet::new();
        for host in 0..MAX_LENT + 20 {
            let limiter = limiter.clone();
            calls.spawn(async move {
                let host = u8::try_from(host).unwrap();
                let (start, _caller) = awaited(&limiter, "s", host);
                let mut permit = limiter.acquire(start).await;
                permit.during(std::future::pending::<()>()).await;
            });
        }
        tokio::time::sleep(HANGS * 60).await;
        {
            let queue = limiter.queue.lock();
            assert_eq!(queue.lent, MAX_LENT);
            assert!(queue.order.is_full());
            assert_eq!(queue.waiting.len(), 20 - 2);
        }
        calls.shutdown().await;
        assert_eq!(limiter.queue.lock().lent, 0, "all are released");
        let (one, two) = (awaited(&limiter, "a", 1), awaited(&limiter, "b", 2));
        let permits = (limiter.acquire(one.0).await, limiter.acquire(two.0).await);
        drop(permits);
    }
}
