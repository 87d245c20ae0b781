//! What one stream of the route feed does next: a pure state machine, one per connected proxy.
//!
//! ```text
//!   Hello ──hello──> Sending{to} ──sent──> AwaitAck{to} ──ack──> Idle{acked}
//!     │                 ▲                      │                   │  ▲
//!     │ 5 s             │                      │ nack              │  │ ack == head
//!     ▼                 │                      ▼                   │  │
//!   Closed              └──head moved, or back-off over── Idle <───┘──┘
//! ```
//!
//! There is no queue. A stream knows only what its proxy has acknowledged; it wakes when the head
//! moves and computes *acknowledged -> head* afresh, so a slow proxy skips what it missed and
//! costs nothing while it is slow.
//!
//! Laws, each held by a property test below:
//! - never two changes without an answer between them;
//! - a delta starts from the cursor that was acknowledged last, and only from one the history holds;
//! - every change leads to the head, and a stream whose proxy answers ends at the head;
//! - a closed stream does nothing more.
//!
//! Times are durations since the stream was opened: no clock in here.

use crate::feed::Cursor;
use std::time::Duration;

/// A client that says nothing for this long holds a stream for nothing.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A proxy that neither applies nor refuses a change for this long is stuck.
const ACK_WITHIN: Duration = Duration::from_secs(30);
/// A transport that takes no frame for this long is stuck; the shell measures it.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);
/// A third of the 30 s of silence after which a proxy reconnects: two may be lost.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// After the second corrupt change in a row; the first is answered at once.
const RESEND_FIRST: Duration = Duration::from_secs(1);
const RESEND_MOST: Duration = Duration::from_secs(30);

/// What the table's history can answer.
pub(crate) trait History {
    /// The newest point.
    fn head(&self) -> &Cursor;
    /// Whether a delta from exactly this point can be computed.
    fn holds(&self, cursor: &Cursor) -> bool;
}

/// What happened to the stream.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The proxy introduced itself, with the table it has.
    Hello(Option<Cursor>),
    /// The last frame of the change was handed to the transport.
    Sent,
    /// The proxy serves the table at this cursor.
    Ack(Cursor),
    /// The proxy refused a change and serves this table, if any.
    Nack(Option<Cursor>, NackKind),
    /// The head may have moved.
    HeadMoved,
    /// `wake_at` has come.
    Tick,
    /// The process is ending.
    Shutdown,
}

/// Why a proxy refused a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NackKind {
    /// Count or digest differ.
    Corrupt,
    /// It arrived whole but cannot be used.
    Rejected,
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the whole table, which leads to this cursor; then report `Sent`.
    Snapshot(Cursor),
    /// Send what changed between two cursors; then report `Sent`.
    Delta(Cursor, Cursor),
    /// Say that the head is still here.
    Heartbeat(Cursor),
    /// Ask the proxy to come again after this time, and end the stream well.
    GoAway(Duration),
    /// End the stream with an error.
    Close(CloseReason),
}

/// Why the plane ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CloseReason {
    /// No Hello in time.
    #[error("no Hello within 5 s; send Hello first")]
    NoHello,
    /// No Ack or Nack in time.
    #[error("no Ack or Nack within 30 s of Commit; connect again")]
    NoAck,
    /// A second Hello, an Ack of what was not sent, and the like.
    #[error("message out of order: one Hello first, then one Ack or Nack of its cursor per Commit")]
    Protocol,
    /// The proxy has seen a newer revision of this epoch than this replica.
    #[error("this replica has not reached your revision yet; try again or try another replica")]
    Behind,
}

/// When a stream is rotated, so that streams spread over replicas again; jittered by the caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    /// Age at which the proxy is asked to connect again.
    pub(crate) rotate_after: Duration,
    /// How long it is asked to wait.
    pub(crate) retry_after: Duration,
}

#[derive(Debug)]
enum Phase {
    Hello,
    Sending { to: Cursor },
    AwaitAck { to: Cursor, since: Duration },
    Idle { hold: Hold },
    Closed,
}

/// What an idle stream waits for beyond a head that differs from what is acknowledged.
#[derive(Debug)]
enum Hold {
    Nothing,
    /// The proxy cannot use the table at this point: sending it again would not help.
    Moved(Cursor),
    /// Back-off after corruption.
    Until(Duration),
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    phase: Phase,
    /// What the proxy serves, as far as a delta may start from it.
    acked: Option<Cursor>,
    corrupt_in_a_row: u32,
    last_sent: Duration,
    lifetime: Lifetime,
}

impl Stream {
    /// A stream that was just opened.
    pub(crate) fn new(lifetime: Lifetime) -> Self {
        Self {
            phase: Phase::Hello,
            acked: None,
            corrupt_in_a_row: 0,
            last_sent: Duration::ZERO,
            lifetime,
        }
    }

    /// When `Tick` is due, if nothing else happens; `None` while sending and when closed.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let beat = self.last_sent + HEARTBEAT_EVERY;
        match &self.phase {
            Phase::Hello => Some(HELLO_WITHIN),
            Phase::Sending { .. } | Phase::Closed => None,
            Phase::AwaitAck { since, .. } => Some(beat.min(*since + ACK_WITHIN)),
            Phase::Idle { hold } => {
                let idle = beat.min(self.lifetime.rotate_after);
                Some(if let Hold::Until(at) = hold {
                    idle.min(*at)
                } else {
                    idle
                })
            }
        }
    }

    /// The next action, if this event calls for one.
    pub(crate) fn on(
        &mut self,
        event: Event,
        now: Duration,
        history: &impl History,
    ) -> Option<Action> {
        if matches!(self.phase, Phase::Closed) {
            return None;
        }
        match event {
            Event::Hello(have) => self.hello(have, now, history),
            Event::Sent => {
                if let Phase::Sending { to } = &self.phase {
                    self.phase = Phase::AwaitAck {
                        to: to.clone(),
                        since: now,
                    };
                    self.last_sent = now;
                }
                None
            }
            Event::Ack(cursor) => self.ack(cursor, now, history),
            Event::Nack(serving, kind) => self.nack(serving, kind, now, history),
            Event::HeadMoved => self.advance(now, history),
            Event::Tick => self.tick(now, history),
            Event::Shutdown => Some(self.go_away()),
        }
    }

    fn hello(
        &mut self,
        have: Option<Cursor>,
        now: Duration,
        history: &impl History,
    ) -> Option<Action> {
        if !matches!(self.phase, Phase::Hello) {
            return Some(self.close(CloseReason::Protocol));
        }
        let head = history.head();
        if let Some(have) = &have
            && have.epoch == head.epoch
            && have.revision > head.revision
        {
            return Some(self.close(CloseReason::Behind));
        }
        self.acked = have;
        // Also when the proxy is at the head: an empty delta makes it confirm, and report what it
        // keeps in quarantine.
        Some(self.send(now, history))
    }

    fn ack(&mut self, cursor: Cursor, now: Duration, history: &impl History) -> Option<Action> {
        match &self.phase {
            Phase::AwaitAck { to, .. } if *to == cursor => {
                self.acked = Some(cursor);
                self.corrupt_in_a_row = 0;
                self.phase = Phase::Idle {
                    hold: Hold::Nothing,
                };
                self.advance(now, history)
            }
            _ => Some(self.close(CloseReason::Protocol)),
        }
    }

    fn nack(
        &mut self,
        serving: Option<Cursor>,
        kind: NackKind,
        now: Duration,
        history: &impl History,
    ) -> Option<Action> {
        let Phase::AwaitAck { to, .. } = &self.phase else {
            return Some(self.close(CloseReason::Protocol));
        };
        let refused = to.clone();
        match kind {
            NackKind::Rejected => {
                // Anything but what was acknowledged is not ours to build on.
                if serving != self.acked {
                    self.acked = None;
                }
                self.phase = Phase::Idle {
                    hold: Hold::Moved(refused),
                };
            }
            NackKind::Corrupt => {
                self.acked = None;
                let hold = match self.corrupt_in_a_row {
                    0 => Hold::Nothing,
                    n => {
                        let wait = RESEND_FIRST.saturating_mul(1 << (n - 1).min(5));
                        Hold::Until(now + wait.min(RESEND_MOST))
                    }
                };
                self.corrupt_in_a_row = self.corrupt_in_a_row.saturating_add(1);
                self.phase = Phase::Idle { hold };
            }
        }
        self.advance(now, history)
    }

    fn tick(&mut self, now: Duration, history: &impl History) -> Option<Action> {
        match &self.phase {
            Phase::Hello if now >= HELLO_WITHIN => return Some(self.close(CloseReason::NoHello)),
            Phase::AwaitAck { since, .. } if now >= *since + ACK_WITHIN => {
                return Some(self.close(CloseReason::NoAck));
            }
            Phase::Hello | Phase::Sending { .. } | Phase::Closed => return None,
            Phase::Idle { .. } | Phase::AwaitAck { .. } => {}
        }
        if let Some(action) = self.advance(now, history) {
            return Some(action);
        }
        if now < self.last_sent + HEARTBEAT_EVERY {
            return None;
        }
        self.last_sent = now;
        Some(Action::Heartbeat(history.head().clone()))
    }

    /// From Idle: rotate, or send if the proxy is not at the head and nothing holds it back.
    fn advance(&mut self, now: Duration, history: &impl History) -> Option<Action> {
        let Phase::Idle { hold } = &self.phase else {
            return None;
        };
        if now >= self.lifetime.rotate_after {
            return Some(self.go_away());
        }
        let head = history.head();
        let held = match hold {
            Hold::Nothing => false,
            Hold::Moved(refused) => refused == head,
            Hold::Until(at) => now < *at,
        };
        if held || self.acked.as_ref() == Some(head) {
            return None;
        }
        Some(self.send(now, history))
    }

    fn send(&mut self, now: Duration, history: &impl History) -> Action {
        let to = history.head().clone();
        self.phase = Phase::Sending { to: to.clone() };
        self.last_sent = now;
        match &self.acked {
            Some(from) if history.holds(from) => Action::Delta(from.clone(), to),
            _ => Action::Snapshot(to),
        }
    }

    fn go_away(&mut self) -> Action {
        self.phase = Phase::Closed;
        Action::GoAway(self.lifetime.retry_after)
    }

    fn close(&mut self, reason: CloseReason) -> Action {
        self.phase = Phase::Closed;
        Action::Close(reason)
    }
}

#[cfg(test)]
mod tests;
