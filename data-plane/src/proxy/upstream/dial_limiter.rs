//! Who dials an instance, and who waits for a connection to it.
//!
//! A hundred requests that waited for one start are let in within a millisecond. Were each to dial at
//! once, an instance that has just begun would meet a hundred connections, though its first answers
//! are a millisecond away. That costs more than the connections: the table of descriptors of a process
//! with threads grows at 64, 128, 256 of them, and Linux has such a process wait for an RCU grace period
//! each time, 8 to 12 ms where measured (`expand_fdtable` in `fs/file.c`); past its backlog, connections
//! wait a second for the kernel to try again.
//!
//! So a worker dials an instance a few times at once and no more for [`WINDOW`]; who waits takes a
//! connection that another request has done with, or dials in a later window. Each window in which
//! some still wait is twice as wide as the one before, so an instance that is slow to answer has a
//! hundred requests of a worker after 20 ms and a thousand after 35 ms.
//!
//! A dial that fails is the answer to all that wait, so that an instance which drops what it is sent
//! costs everyone one time-out, not one after another.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// How many dials the first window has, of one worker to one instance.
const FIRST: usize = 4;
/// In which a server that only computes has answered.
const WINDOW: Duration = Duration::from_millis(5);

/// The dials to one instance. `C`: a connection. Cheap to clone.
#[derive(Debug)]
pub(super) struct Dials<C>(Rc<RefCell<Inner<C>>>);

#[derive(Debug)]
struct Inner<C> {
    /// The present window.
    began: Instant,
    width: usize,
    /// How many more may dial in it: none while some wait.
    left: usize,
    waiting: VecDeque<oneshot::Sender<Answer<C>>>,
}

type Answer<C> = Result<Turn<C>, io::ErrorKind>;

/// What one waits for: the first there is of both.
#[derive(Debug, PartialEq)]
pub(super) enum Turn<C> {
    /// To dial.
    Dial,
    /// A connection that another request has done with.
    Use(C),
}

impl<C> Dials<C> {
    /// A turn to dial, or a connection. Dropping the future gives it up.
    ///
    /// # Errors
    /// That of a dial which failed while this waited.
    pub(super) async fn turn(&self) -> io::Result<Turn<C>> {
        let (mut called, mut next) = {
            let mut inner = self.0.borrow_mut();
            inner.advance(Instant::now());
            if inner.left > 0 {
                inner.left -= 1;
                return Ok(Turn::Dial);
            }
            let (turn, called) = oneshot::channel();
            inner.waiting.push_back(turn);
            (called, inner.began + WINDOW)
        };
        loop {
            tokio::select! {
                answer = &mut called => {
                    // Who waits is taken off the queue only to be told, and this keeps the queue.
                    let aborted = Err(io::ErrorKind::ConnectionAborted);
                    return answer.unwrap_or(aborted).map_err(io::Error::from);
                }
                () = sleep_until(next) => {
                    let mut inner = self.0.borrow_mut();
                    inner.advance(Instant::now());
                    next = inner.began + WINDOW;
                }
            }
        }
    }

    /// Gives a connection to who has waited longest; back, if none waits.
    pub(super) fn offer(&self, connection: C) -> Option<C> {
        match self.0.borrow_mut().tell(Ok(Turn::Use(connection))) {
            Err(Ok(Turn::Use(connection))) => Some(connection),
            _ => None,
        }
    }

    /// A dial has failed: so it has for all that wait.
    pub(super) fn failed(&self, error: &io::Error) {
        let mut inner = self.0.borrow_mut();
        while inner.tell(Err(error.kind())).is_ok() {}
    }
}

impl<C> Inner<C> {
    /// Begins the next window, if it is time for it.
    fn advance(&mut self, now: Instant) {
        if now < self.began + WINDOW {
            return;
        }
        self.waiting.retain(|waiter| !waiter.is_closed());
        self.began = now;
        self.width = match self.waiting.is_empty() {
            true => FIRST,
            false => self.width.saturating_mul(2),
        };
        self.left = self.width;
        while self.left > 0 && self.tell(Ok(Turn::Dial)).is_ok() {
            self.left -= 1;
        }
    }

    /// Gives an answer to who has waited longest and waits still; back, if none does.
    fn tell(&mut self, mut answer: Answer<C>) -> Result<(), Answer<C>> {
        while let Some(next) = self.waiting.pop_front() {
            match next.send(answer) {
                Ok(()) => return Ok(()),
                Err(unheard) => answer = unheard,
            }
        }
        Err(answer)
    }
}

impl<C> Clone for Dials<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> Default for Dials<C> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Inner {
            began: Instant::now(),
            width: FIRST,
            left: FIRST,
            waiting: VecDeque::new(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    type Waiter<'a> = std::pin::Pin<Box<dyn Future<Output = io::Result<Turn<u32>>> + 'a>>;

    /// So many that wait, since the first window is used up.
    fn waiting(dials: &Dials<u32>, count: usize) -> Vec<Waiter<'_>> {
        for _ in 0..FIRST {
            assert!(matches!(dials.turn().now_or_never(), Some(Ok(Turn::Dial))));
        }
        let mut waiters: Vec<Waiter<'_>> =
            (0..count).map(|_| Box::pin(dials.turn()) as _).collect();
        assert_eq!(called(&mut waiters), 0);
        waiters
    }

    /// How many of them may dial now; those are taken out.
    fn called(waiters: &mut Vec<Waiter<'_>>) -> usize {
        let before = waiters.len();
        waiters.retain_mut(|waiter| match waiter.as_mut().now_or_never() {
            Some(answer) => {
                assert_eq!(answer.expect("no dial failed"), Turn::Dial);
                false
            }
            None => true,
        });
        before - waiters.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_goes_to_who_has_waited_longest() {
        let dials = Dials::default();
        let mut waiters = waiting(&dials, 3);
        drop(waiters.remove(0));
        assert_eq!(dials.offer(7), None, "somebody takes it");
        let first = waiters[0].as_mut().now_or_never();
        assert!(matches!(first, Some(Ok(Turn::Use(7)))), "{first:?}");
        assert!(waiters[1].as_mut().now_or_never().is_none());
        drop(waiters);
        assert_eq!(dials.offer(8), Some(8), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn windows_double_while_some_wait() {
        let dials = Dials::default();
        let mut waiters = waiting(&dials, 100);
        for expected in [8, 16, 32, 44, 0] {
            advance(WINDOW - Duration::from_millis(1)).await;
            assert_eq!(called(&mut waiters), 0, "too early");
            advance(Duration::from_millis(1)).await;
            // Twice: the first to look begins the window for all.
            let called = called(&mut waiters) + called(&mut waiters);
            assert_eq!(called, expected);
        }
        // Nobody waited in the last one, so the next is as wide as the first.
        advance(WINDOW).await;
        assert!(matches!(dials.turn().now_or_never(), Some(Ok(Turn::Dial))));
        assert_eq!(dials.0.borrow().width, FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gave_up_neither_takes_a_turn_nor_widens_the_window() {
        let dials = Dials::default();
        drop(waiting(&dials, 100));
        advance(WINDOW).await;
        assert_eq!(waiting(&dials, 1).len(), 1);
        assert_eq!(dials.0.borrow().waiting.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_fails_is_the_answer_to_all_that_wait() {
        let dials = Dials::default();
        let waiters = waiting(&dials, 20);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        dials.failed(&refused);
        for waiter in waiters {
            let answer = waiter.now_or_never();
            assert!(
                matches!(&answer, Some(Err(error)) if error.kind() == refused.kind()),
                "{answer:?}"
            );
        }
    }
}
