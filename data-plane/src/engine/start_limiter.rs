//! The node's limit on concurrent starts, fair among services.
//!
//! Starts are CPU-bound. Of twenty starts on two cores, the first is ready after 155 ms when two
//! run at a time and after 556 ms when all do. The last is no later. A semaphore would let a
//! service with fifty starts delay a service with one, so permits go round the waiting services.
//!
//! A call that takes much longer than any start hangs, in the engine or behind it. Its permit is
//! lent to others, so that one container that cannot start blocks no other. The number of lent
//! permits is bounded, and with it the number of hanging calls.
//!
//! The limiter also knows when no start is in progress, which is the time for background work.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// After this time a call hangs and its permit is lent. The slowest of twenty concurrent starts
/// took 3 s when measured.
const HANGS: Duration = Duration::from_secs(10);
/// The most permits lent at a time.
const MAX_LENT: usize = 32;

/// The node's limiter. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct StartLimiter {
    queue: Arc<Mutex<StartQueue>>,
}

/// Permission to start a container; released when dropped.
#[derive(Debug)]
pub(crate) struct StartPermit {
    limiter: Option<StartLimiter>,
    /// The permit is lent: another start uses it.
    lent: bool,
}

/// A start in progress, from its decision to its end, with or without a permit.
#[derive(Debug)]
pub(crate) struct StartInProgress(StartLimiter);

#[derive(Debug)]
struct StartQueue {
    free: usize,
    lent: usize,
    in_progress: usize,
    last_end: Instant,
    /// Services with waiters, each once, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<oneshot::Sender<StartPermit>>>,
}

impl StartLimiter {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            queue: Arc::new(Mutex::new(StartQueue {
                free: limit.max(1),
                lent: 0,
                in_progress: 0,
                last_end: Instant::now(),
                turns: VecDeque::new(),
                waiting: HashMap::new(),
            })),
        }
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
    pub(crate) async fn acquire(&self, service: &Arc<str>) -> StartPermit {
        let turn = {
            let mut queue = self.queue.lock();
            if queue.free > 0 && queue.turns.is_empty() {
                queue.free -= 1;
                return self.permit();
            }
            let (grant, turn) = oneshot::channel();
            let waiters = queue.waiting.entry(service.clone()).or_default();
            waiters.push_back(grant);
            if waiters.len() == 1 {
                queue.turns.push_back(service.clone());
            }
            turn
        };
        match turn.await {
            Ok(permit) => permit,
            // Unreachable: the queue drops no waiter before its turn, and `self` keeps the queue.
            Err(_) => StartPermit {
                limiter: None,
                lent: false,
            },
        }
    }

    fn permit(&self) -> StartPermit {
        StartPermit {
            limiter: Some(self.clone()),
            lent: false,
        }
    }

    fn release(&self) {
        loop {
            let next = {
                let mut queue = self.queue.lock();
                let Some(next) = queue.next() else {
                    queue.free += 1;
                    return;
                };
                next
            };
            match next.send(self.permit()) {
                Ok(()) => return,
                // The waiter is gone. This loop passes the permit on, not its drop.
                Err(mut permit) => permit.limiter = None,
            }
        }
    }
}

impl StartQueue {
    fn next(&mut self) -> Option<oneshot::Sender<StartPermit>> {
        let service = self.turns.pop_front()?;
        let waiters = self.waiting.get_mut(&service)?;
        let next = waiters.pop_front();
        if waiters.is_empty() {
            self.waiting.remove(&service);
        } else {
            self.turns.push_back(service);
        }
        next
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
        let Some(limiter) = self.limiter.as_ref().filter(|_| !self.lent) else {
            return;
        };
        {
            let mut queue = limiter.queue.lock();
            if queue.lent == MAX_LENT {
                return;
            }
            queue.lent += 1;
        }
        self.lent = true;
        limiter.release();
    }
}

impl Drop for StartPermit {
    fn drop(&mut self) {
        match self.limiter.take() {
            Some(limiter) if self.lent => limiter.queue.lock().lent -= 1,
            Some(limiter) => limiter.release(),
            None => {}
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

    #[tokio::test]
    async fn a_service_with_many_starts_does_not_delay_another() {
        let limiter = StartLimiter::new(1);
        let (greedy, modest): (Arc<str>, Arc<str>) = ("greedy".into(), "modest".into());
        let first = limiter.acquire(&greedy).await;
        let mut greedy_waits: Vec<_> = (0..5).map(|_| Box::pin(limiter.acquire(&greedy))).collect();
        for wait in &mut greedy_waits {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        let mut modest_waits = Box::pin(limiter.acquire(&modest));
        assert!(modest_waits.as_mut().now_or_never().is_none());
        drop(first);
        let second = greedy_waits[0].as_mut().now_or_never();
        assert!(second.is_some(), "the oldest turn comes first");
        assert!(modest_waits.as_mut().now_or_never().is_none());
        drop(second);
        assert!(modest_waits.as_mut().now_or_never().is_some());
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
        let service: Arc<str> = "s".into();
        let first = limiter.acquire(&service).await;
        let mut leaves = Box::pin(limiter.acquire(&service));
        assert!(leaves.as_mut().now_or_never().is_none());
        let mut stays = Box::pin(limiter.acquire(&service));
        assert!(stays.as_mut().now_or_never().is_none());
        drop(leaves);
        drop(first);
        let permit = stays.as_mut().now_or_never();
        assert!(permit.is_some());
        drop(permit);
        assert!(limiter.acquire(&service).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_permit_of_a_call_that_hangs_goes_to_another_service() {
        let limiter = StartLimiter::new(1);
        let (stuck, other): (Arc<str>, Arc<str>) = ("stuck".into(), "other".into());
        let mut permit = limiter.acquire(&stuck).await;
        let (end, ended) = oneshot::channel::<()>();
        let hanging = tokio::spawn(async move {
            let _ = permit.during(ended).await;
        });
        let began = tokio::time::Instant::now();
        let second = limiter.acquire(&other).await;
        assert_eq!(began.elapsed(), HANGS);
        assert!(
            limiter.acquire(&other).now_or_never().is_none(),
            "still one"
        );
        let _ = end.send(());
        hanging.await.unwrap();
        assert!(
            limiter.acquire(&other).now_or_never().is_none(),
            "it was lent"
        );
        drop(second);
        assert!(limiter.acquire(&other).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_hang_are_bounded() {
        let limiter = StartLimiter::new(2);
        let service: Arc<str> = "s".into();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..MAX_LENT + 20 {
            let (limiter, service) = (limiter.clone(), service.clone());
            calls.spawn(async move {
                let mut permit = limiter.acquire(&service).await;
                permit.during(std::future::pending::<()>()).await;
            });
        }
        tokio::time::sleep(HANGS * 60).await;
        {
            let queue = limiter.queue.lock();
            assert_eq!((queue.lent, queue.free), (MAX_LENT, 0));
            assert_eq!(queue.waiting[&service].len(), 20 - 2);
        }
        calls.shutdown().await;
        let queue = limiter.queue.lock();
        assert_eq!((queue.lent, queue.free), (0, 2), "all are released");
    }
}
