//! How many containers a node starts at once, fair among services.
//!
//! Starts are CPU-bound: measured on two cores, of twenty at once the first is ready much sooner when
//! only a few run at a time (155 ms with two instead of 556), and the last no later. A plain
//! semaphore would let a service that asks for fifty starts hold up the one that asks for one, so
//! places go round the services that wait.
//!
//! A call that takes much longer than any start takes is not at work but hangs, in the engine or in
//! what it waits for. Its place goes to others then, so that one container that cannot be started
//! stops no other; how many places are lent so is bounded, and with it the calls under way.
//!
//! It also knows when nothing starts at all, which is the time for work that must not be in the way.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How long a call keeps its place: the slowest of twenty starts at once took 3 s where measured.
const HANGS: Duration = Duration::from_secs(10);
/// The most calls that hang beside those that have a place.
const MOST_LENT: usize = 32;

/// The node's gate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    queue: Arc<Mutex<Queue>>,
}

/// A place; given on when dropped.
#[derive(Debug)]
pub struct Place {
    gate: Option<Gate>,
    /// Others have it meanwhile.
    lent: bool,
}

/// A start that is under way, from the wish to its end, whether it holds a place or not.
#[derive(Debug)]
pub struct Starting(Gate);

#[derive(Debug)]
struct Queue {
    free: usize,
    lent: usize,
    starting: usize,
    /// When the last start ended, if none is under way.
    last_end: Instant,
    /// Services that wait, each once, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<oneshot::Sender<Place>>>,
}

impl Gate {
    /// A gate that lets `places` starts run at once.
    pub fn new(places: usize) -> Self {
        Self {
            queue: Arc::new(Mutex::new(Queue {
                free: places.max(1),
                lent: 0,
                starting: 0,
                last_end: Instant::now(),
                turns: VecDeque::new(),
                waiting: HashMap::new(),
            })),
        }
    }

    /// A start begins; it is under way until the returned value is dropped.
    pub fn starting(&self) -> Starting {
        self.queue.lock().starting += 1;
        Starting(self.clone())
    }

    /// How long no start has been under way; `None` while one is.
    pub fn quiet_for(&self) -> Option<Duration> {
        let queue = self.queue.lock();
        (queue.starting == 0).then(|| queue.last_end.elapsed())
    }

    /// Waits for a place. Dropping the future gives up the turn.
    pub async fn enter(&self, service: &Arc<str>) -> Place {
        let turn = {
            let mut queue = self.queue.lock();
            if queue.free > 0 && queue.turns.is_empty() {
                queue.free -= 1;
                return self.place();
            }
            let (turn, called) = oneshot::channel();
            let line = queue.waiting.entry(service.clone()).or_default();
            line.push_back(turn);
            if line.len() == 1 {
                queue.turns.push_back(service.clone());
            }
            called
        };
        match turn.await {
            Ok(place) => place,
            // The gate drops no turn it has not called, and this borrow keeps the gate.
            Err(_) => Place {
                gate: None,
                lent: false,
            },
        }
    }

    fn place(&self) -> Place {
        Place {
            gate: Some(self.clone()),
            lent: false,
        }
    }

    /// Hands a free place to the next service that waits.
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
            match next.send(self.place()) {
                Ok(()) => return,
                // That one gave up. Its place goes to the next in this loop, not by its drop.
                Err(mut place) => place.gate = None,
            }
        }
    }
}

impl Queue {
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let service = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&service)?;
        let next = line.pop_front();
        if line.is_empty() {
            self.waiting.remove(&service);
        } else {
            self.turns.push_back(service);
        }
        next
    }
}

impl Place {
    /// Waits for a call that needs the place, which goes to others if the call hangs.
    pub async fn during<T>(&mut self, call: impl Future<Output = T>) -> T {
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
        let Some(gate) = self.gate.as_ref().filter(|_| !self.lent) else {
            return;
        };
        {
            let mut queue = gate.queue.lock();
            if queue.lent == MOST_LENT {
                return;
            }
            queue.lent += 1;
        }
        self.lent = true;
        gate.release();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.gate.take() {
            Some(gate) if self.lent => gate.queue.lock().lent -= 1,
            Some(gate) => gate.release(),
            None => {}
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.starting -= 1;
        queue.last_end = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_service_with_many_starts_does_not_hold_up_another() {
        let gate = Gate::new(1);
        let (greedy, modest): (Arc<str>, Arc<str>) = ("greedy".into(), "modest".into());
        let first = gate.enter(&greedy).await;
        let mut greedy_waits: Vec<_> = (0..5).map(|_| Box::pin(gate.enter(&greedy))).collect();
        for wait in &mut greedy_waits {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        let mut modest_waits = Box::pin(gate.enter(&modest));
        assert!(modest_waits.as_mut().now_or_never().is_none());
        drop(first);
        let second = greedy_waits[0].as_mut().now_or_never();
        assert!(second.is_some(), "the oldest turn comes first");
        assert!(modest_waits.as_mut().now_or_never().is_none());
        drop(second);
        assert!(modest_waits.as_mut().now_or_never().is_some());
    }

    #[test]
    fn it_is_quiet_while_no_start_is_under_way() {
        let gate = Gate::new(1);
        assert!(gate.quiet_for().is_some());
        let (one, two) = (gate.starting(), gate.starting());
        drop(one);
        assert_eq!(gate.quiet_for(), None);
        drop(two);
        assert!(gate.quiet_for().is_some());
    }

    #[tokio::test]
    async fn a_turn_that_is_given_up_loses_no_place() {
        let gate = Gate::new(1);
        let service: Arc<str> = "s".into();
        let first = gate.enter(&service).await;
        let mut given_up = Box::pin(gate.enter(&service));
        assert!(given_up.as_mut().now_or_never().is_none());
        let mut patient = Box::pin(gate.enter(&service));
        assert!(patient.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(first);
        let place = patient.as_mut().now_or_never();
        assert!(place.is_some());
        drop(place);
        assert!(gate.enter(&service).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_place_of_a_call_that_hangs_goes_to_another_service() {
        let gate = Gate::new(1);
        let (stuck, other): (Arc<str>, Arc<str>) = ("stuck".into(), "other".into());
        let mut place = gate.enter(&stuck).await;
        let (end, ended) = oneshot::channel::<()>();
        let hanging = tokio::spawn(async move {
            let _ = place.during(ended).await;
        });
        let asked = tokio::time::Instant::now();
        let second = gate.enter(&other).await;
        assert_eq!(asked.elapsed(), HANGS);
        assert!(gate.enter(&other).now_or_never().is_none(), "still one");
        let _ = end.send(());
        hanging.await.unwrap();
        assert!(gate.enter(&other).now_or_never().is_none(), "it was lent");
        drop(second);
        assert!(gate.enter(&other).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_hang_are_bounded() {
        let gate = Gate::new(2);
        let service: Arc<str> = "s".into();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..MOST_LENT + 20 {
            let (gate, service) = (gate.clone(), service.clone());
            calls.spawn(async move {
                let mut place = gate.enter(&service).await;
                place.during(std::future::pending::<()>()).await;
            });
        }
        tokio::time::sleep(HANGS * 60).await;
        {
            let queue = gate.queue.lock();
            assert_eq!((queue.lent, queue.free), (MOST_LENT, 0));
            assert_eq!(queue.waiting[&service].len(), 20 - 2);
        }
        calls.shutdown().await;
        let queue = gate.queue.lock();
        assert_eq!((queue.lent, queue.free), (0, 2), "all come back");
    }
}
