//! Limits the rate of new connections to an instance.
//!
//! A start admits a hundred waiting requests within a millisecond. If each dialled at once, a new
//! instance would get a hundred connections although its first responses are a millisecond away.
//! Linux grows the file descriptor table of a multi-threaded process at 64, 128 and 256 entries and
//! waits for an RCU grace period each time, measured at 8 to 12 ms (`expand_fdtable` in
//! `fs/file.c`). Connections beyond the listen backlog wait a second for a retransmission.
//!
//! So a worker dials an instance a few times per [`WINDOW`]. Other requests take a connection that
//! is released, or dial in a later window. Each window with waiters is twice as wide as the
//! previous one: a slow instance has a hundred requests of a worker after 20 ms, a thousand after
//! 35 ms. The last of a hundred concurrent requests then waits 1.06 to 1.07 cold starts, against
//! 1.13 to 1.15 without the limit.
//!
//! A failed dial fails all waiters, so that an unreachable instance costs one timeout and not one
//! after another.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Dials of one worker to one instance in the first window.
const FIRST_WIDTH: usize = 4;
/// The length of a window, in which a fast server responds.
const WINDOW: Duration = Duration::from_millis(5);

/// Limits the dials to one instance. `C`: a connection. Cheap to clone.
#[derive(Debug)]
pub(crate) struct DialLimiter<C>(Rc<RefCell<Inner<C>>>);

#[derive(Debug)]
struct Inner<C> {
    /// The start of the current window.
    began: Instant,
    width: usize,
    /// Dials left in the window; 0 while requests wait.
    left: usize,
    waiters: VecDeque<oneshot::Sender<TurnResult<C>>>,
}

type TurnResult<C> = Result<DialTurn<C>, io::ErrorKind>;

/// The way in which a request gets its connection.
#[derive(Debug, PartialEq)]
pub(crate) enum DialTurn<C> {
    /// Dial now.
    Dial,
    /// Reuse a connection that was released.
    Reuse(C),
}

impl<C> DialLimiter<C> {
    /// Waits for a turn to dial, or for a released connection. Dropped, it leaves the queue.
    ///
    /// # Errors
    /// The error of another dial that failed during the wait.
    pub(crate) async fn turn(&self) -> io::Result<DialTurn<C>> {
        let (mut turn, mut next) = {
            let mut inner = self.0.borrow_mut();
            inner.advance(Instant::now());
            if inner.left > 0 {
                inner.left -= 1;
                return Ok(DialTurn::Dial);
            }
            let (sender, turn) = oneshot::channel();
            inner.waiters.push_back(sender);
            (turn, inner.began + WINDOW)
        };
        loop {
            tokio::select! {
                turn = &mut turn => {
                    // A waiter leaves the queue only with a result, so the sender is not dropped.
                    let aborted = Err(io::ErrorKind::ConnectionAborted);
                    return turn.unwrap_or(aborted).map_err(io::Error::from);
                }
                () = sleep_until(next) => {
                    let mut inner = self.0.borrow_mut();
                    inner.advance(Instant::now());
                    next = inner.began + WINDOW;
                }
            }
        }
    }

    /// Gives a connection to the longest waiter. Returns it if there is none.
    pub(crate) fn offer(&self, connection: C) -> Option<C> {
        match self
            .0
            .borrow_mut()
            .wake_next(Ok(DialTurn::Reuse(connection)))
        {
            Err(Ok(DialTurn::Reuse(connection))) => Some(connection),
            _ => None,
        }
    }

    /// Fails all waiters with the error of a dial.
    pub(crate) fn fail_waiters(&self, error: &io::Error) {
        let mut inner = self.0.borrow_mut();
        while inner.wake_next(Err(error.kind())).is_ok() {}
    }
}

impl<C> Inner<C> {
    /// Starts the next window if the current one is over.
    fn advance(&mut self, now: Instant) {
        if now < self.began + WINDOW {
            return;
        }
        self.waiters.retain(|waiter| !waiter.is_closed());
        self.began = now;
        self.width = match self.waiters.is_empty() {
            true => FIRST_WIDTH,
            false => self.width.saturating_mul(2),
        };
        self.left = self.width;
        while self.left > 0 && self.wake_next(Ok(DialTurn::Dial)).is_ok() {
            self.left -= 1;
        }
    }

    /// Gives a result to the longest waiter that still waits. Returns it if there is none.
    fn wake_next(&mut self, mut result: TurnResult<C>) -> Result<(), TurnResult<C>> {
        while let Some(next) = self.waiters.pop_front() {
            match next.send(result) {
                Ok(()) => return Ok(()),
                Err(unsent) => result = unsent,
            }
        }
        Err(result)
    }
}

impl<C> Clone for DialLimiter<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> Default for DialLimiter<C> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Inner {
            began: Instant::now(),
            width: FIRST_WIDTH,
            left: FIRST_WIDTH,
            waiters: VecDeque::new(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    type DialWaiter<'a> = std::pin::Pin<Box<dyn Future<Output = io::Result<DialTurn<u32>>> + 'a>>;

    /// Waiters of this count, after the first window is used up.
    fn waiting(limiter: &DialLimiter<u32>, count: usize) -> Vec<DialWaiter<'_>> {
        for _ in 0..FIRST_WIDTH {
            assert!(matches!(
                limiter.turn().now_or_never(),
                Some(Ok(DialTurn::Dial))
            ));
        }
        let mut waiters: Vec<DialWaiter<'_>> =
            (0..count).map(|_| Box::pin(limiter.turn()) as _).collect();
        assert_eq!(ready(&mut waiters), 0);
        waiters
    }

    /// Removes the waiters that may dial now; returns their number.
    fn ready(waiters: &mut Vec<DialWaiter<'_>>) -> usize {
        let before = waiters.len();
        waiters.retain_mut(|waiter| match waiter.as_mut().now_or_never() {
            Some(answer) => {
                assert_eq!(answer.expect("no dial failed"), DialTurn::Dial);
                false
            }
            None => true,
        });
        before - waiters.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_connection_goes_to_the_longest_waiter() {
        let limiter = DialLimiter::default();
        let mut waiters = waiting(&limiter, 3);
        drop(waiters.remove(0));
        assert_eq!(limiter.offer(7), None, "a waiter takes it");
        let first = waiters[0].as_mut().now_or_never();
        assert!(matches!(first, Some(Ok(DialTurn::Reuse(7)))), "{first:?}");
        assert!(waiters[1].as_mut().now_or_never().is_none());
        drop(waiters);
        assert_eq!(limiter.offer(8), Some(8), "no waiter is left");
    }

    #[tokio::test(start_paused = true)]
    async fn windows_double_while_requests_wait() {
        let limiter = DialLimiter::default();
        let mut waiters = waiting(&limiter, 100);
        for expected in [8, 16, 32, 44, 0] {
            advance(WINDOW - Duration::from_millis(1)).await;
            assert_eq!(ready(&mut waiters), 0, "too early");
            advance(Duration::from_millis(1)).await;
            // Twice: the first waiter that is polled starts the window for all.
            let count = ready(&mut waiters) + ready(&mut waiters);
            assert_eq!(count, expected);
        }
        // The last window had no waiters, so the next has the initial width.
        advance(WINDOW).await;
        assert!(matches!(
            limiter.turn().now_or_never(),
            Some(Ok(DialTurn::Dial))
        ));
        assert_eq!(limiter.0.borrow().width, FIRST_WIDTH);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_waiter_neither_takes_a_turn_nor_widens_the_window() {
        let limiter = DialLimiter::default();
        drop(waiting(&limiter, 100));
        advance(WINDOW).await;
        assert_eq!(waiting(&limiter, 1).len(), 1);
        assert_eq!(limiter.0.borrow().waiters.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_dial_fails_all_waiters() {
        let limiter = DialLimiter::default();
        let waiters = waiting(&limiter, 20);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        limiter.fail_waiters(&refused);
        for waiter in waiters {
            let answer = waiter.now_or_never();
            assert!(
                matches!(&answer, Some(Err(error)) if error.kind() == refused.kind()),
                "{answer:?}"
            );
        }
    }
}
