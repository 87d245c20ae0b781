//! One stream of the route feed: a pure state machine, one per connected node.
//!
//! ```text
//!   Hello ──hello──> Sending{to} ──sent──> AwaitAck{to} ──ack──> Idle{acked}
//!     │                 ▲                      │                   │  ▲
//!     │ 5 s             │                      │ nack              │  │ ack == head
//!     ▼                 │                      ▼                   │  │
//!   Closed              └──head moved, or back-off over── Idle <───┘──┘
//! ```
//!
//! There is no queue. A stream stores only the acknowledged cursor. When the head moves it computes
//! the change *acknowledged -> head*, so a slow node skips intermediate revisions and costs
//! nothing while it is slow.
//!
//! Laws, each held by a property test:
//! - At most one change is unanswered.
//! - A delta starts from the last acknowledged cursor, and only if the history holds it.
//! - Every change leads to the head, and a stream whose node answers reaches the head.
//! - A closed stream returns no action.
//!
//! All times are durations since the stream opened; the module reads no clock.

use crate::feed::Cursor;
use std::time::Duration;

/// Time limit for Hello. A silent client must not hold a stream.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the Ack or Nack of a change. A node that exceeds it is stuck.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for the transport to accept a frame; measured by the driver.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);
/// A third of the 30 s of silence after which a node reconnects, so that two may be lost.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Back-off after the second consecutive corrupt change; the first is resent at once.
const RESEND_BACKOFF_MIN: Duration = Duration::from_secs(1);
const RESEND_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The history of a table, as far as a stream needs it.
pub(crate) trait History {
    /// The newest cursor.
    fn head(&self) -> &Cursor;
    /// Whether a delta from exactly this cursor can be computed.
    fn holds(&self, cursor: &Cursor) -> bool;
}

/// An input of the state machine.
#[derive(Debug, Clone)]
pub(crate) enum StreamEvent {
    /// The node identified itself. `None`: it has no table.
    Hello(Option<Cursor>),
    /// The transport accepted the last frame of the change.
    Sent,
    /// The node serves the table at this cursor.
    Ack(Cursor),
    /// The node rejected a change and serves this table. `None`: it has no table.
    Nack(Option<Cursor>, NackKind),
    /// The head may have moved.
    HeadMoved,
    /// The time of [`RouteStream::wake_at`] has come.
    Tick,
    /// The process is shutting down.
    Shutdown,
}

/// The reason why a node rejected a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NackKind {
    /// The count or digest does not match; a snapshot follows, at once the first time.
    Corrupt,
    /// The table is intact but unusable; nothing follows until the head moves.
    Rejected,
}

/// An output of the state machine, performed by the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamAction {
    /// Send the whole table, which is at this cursor; then report `Sent`.
    Snapshot(Cursor),
    /// Send the change between two cursors; then report `Sent`.
    Delta(Cursor, Cursor),
    /// Send a heartbeat with the head.
    Heartbeat(Cursor),
    /// Ask the node to reconnect after this time, and end the stream without an error.
    GoAway(Duration),
    /// End the stream with an error.
    Close(StreamCloseReason),
}

/// The reason why this control plane ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamCloseReason {
    /// No Hello in time.
    #[error("no Hello within 5 s; send Hello first")]
    NoHello,
    /// No Ack or Nack in time.
    #[error("no Ack or Nack within 30 s of Commit; connect again")]
    NoAck,
    /// A message out of order, such as a second Hello or an Ack of another cursor.
    #[error("message out of order: one Hello first, then one Ack or Nack of its cursor per Commit")]
    Protocol,
    /// The node has a newer revision of this epoch than this replica.
    #[error("this replica has not reached your revision yet; try again or try another replica")]
    Behind,
}

/// When a stream is rotated, so that streams spread over the replicas. The caller adds jitter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    /// Age of a stream at which the node must reconnect.
    pub(crate) rotate_after: Duration,
    /// Delay of the reconnect.
    pub(crate) retry_after: Duration,
}

#[derive(Debug)]
enum StreamPhase {
    Hello,
    Sending { to: Cursor },
    AwaitAck { to: Cursor, since: Duration },
    Idle { hold: Hold },
    Closed,
}

/// The reason why an idle stream sends nothing, although the acknowledged cursor is not the head.
#[derive(Debug)]
enum Hold {
    Nothing,
    /// The node cannot use the table at this cursor; wait for another head.
    Rejected(Cursor),
    /// Back-off after corruption, until this time.
    Backoff(Duration),
}

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct RouteStream {
    phase: StreamPhase,
    /// The table the node serves. `None`: no delta may start from it.
    acked: Option<Cursor>,
    consecutive_corrupt: u32,
    last_sent: Duration,
    lifetime: Lifetime,
}

impl RouteStream {
    pub(crate) fn new(lifetime: Lifetime) -> Self {
        Self {
            phase: StreamPhase::Hello,
            acked: None,
            consecutive_corrupt: 0,
            last_sent: Duration::ZERO,
            lifetime,
        }
    }

    /// When the next `Tick` is due. `None` while sending and when closed.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let beat = self.last_sent + HEARTBEAT_INTERVAL;
        match &self.phase {
            StreamPhase::Hello => Some(HELLO_TIMEOUT),
            StreamPhase::Sending { .. } | StreamPhase::Closed => None,
            StreamPhase::AwaitAck { since, .. } => Some(beat.min(*since + ACK_TIMEOUT)),
            StreamPhase::Idle { hold } => {
                let idle = beat.min(self.lifetime.rotate_after);
                Some(if let Hold::Backoff(at) = hold {
                    idle.min(*at)
                } else {
                    idle
                })
            }
        }
    }

    /// Applies an event and returns the resulting action.
    pub(crate) fn on(
        &mut self,
        event: StreamEvent,
        now: Duration,
        history: &impl History,
    ) -> Option<StreamAction> {
        if matches!(self.phase, StreamPhase::Closed) {
            return None;
        }
        match event {
            StreamEvent::Hello(have) => self.hello(have, now, history),
            StreamEvent::Sent => {
                if let StreamPhase::Sending { to } = &self.phase {
                    self.phase = StreamPhase::AwaitAck {
                        to: to.clone(),
                        since: now,
                    };
                    self.last_sent = now;
                }
                None
            }
            StreamEvent::Ack(cursor) => self.ack(cursor, now, history),
            StreamEvent::Nack(serving, kind) => self.nack(serving, kind, now, history),
            StreamEvent::HeadMoved => self.advance(now, history),
            StreamEvent::Tick => self.tick(now, history),
            StreamEvent::Shutdown => Some(self.go_away()),
        }
    }

    fn hello(
        &mut self,
        have: Option<Cursor>,
        now: Duration,
        history: &impl History,
    ) -> Option<StreamAction> {
        if !matches!(self.phase, StreamPhase::Hello) {
            return Some(self.close(StreamCloseReason::Protocol));
        }
        let head = history.head();
        if let Some(have) = &have
            && have.epoch == head.epoch
            && have.revision > head.revision
        {
            return Some(self.close(StreamCloseReason::Behind));
        }
        self.acked = have;
        // Also at the head: an empty delta makes the node acknowledge and report its quarantine.
        Some(self.send(now, history))
    }

    fn ack(
        &mut self,
        cursor: Cursor,
        now: Duration,
        history: &impl History,
    ) -> Option<StreamAction> {
        match &self.phase {
            StreamPhase::AwaitAck { to, .. } if *to == cursor => {
                self.acked = Some(cursor);
                self.consecutive_corrupt = 0;
                self.phase = StreamPhase::Idle {
                    hold: Hold::Nothing,
                };
                self.advance(now, history)
            }
            _ => Some(self.close(StreamCloseReason::Protocol)),
        }
    }

    fn nack(
        &mut self,
        serving: Option<Cursor>,
        kind: NackKind,
        now: Duration,
        history: &impl History,
    ) -> Option<StreamAction> {
        let StreamPhase::AwaitAck { to, .. } = &self.phase else {
            return Some(self.close(StreamCloseReason::Protocol));
        };
        let rejected = to.clone();
        match kind {
            NackKind::Rejected => {
                // A delta may only start from the acknowledged table.
                if serving != self.acked {
                    self.acked = None;
                }
                self.phase = StreamPhase::Idle {
                    hold: Hold::Rejected(rejected),
                };
            }
            NackKind::Corrupt => {
                self.acked = None;
                let hold = match self.consecutive_corrupt {
                    0 => Hold::Nothing,
                    n => {
                        let wait = RESEND_BACKOFF_MIN.saturating_mul(1 << (n - 1).min(5));
                        Hold::Backoff(now + wait.min(RESEND_BACKOFF_MAX))
                    }
                };
                self.consecutive_corrupt = self.consecutive_corrupt.saturating_add(1);
                self.phase = StreamPhase::Idle { hold };
            }
        }
        self.advance(now, history)
    }

    fn tick(&mut self, now: Duration, history: &impl History) -> Option<StreamAction> {
        match &self.phase {
            StreamPhase::Hello if now >= HELLO_TIMEOUT => {
                return Some(self.close(StreamCloseReason::NoHello));
            }
            StreamPhase::AwaitAck { since, .. } if now >= *since + ACK_TIMEOUT => {
                return Some(self.close(StreamCloseReason::NoAck));
            }
            StreamPhase::Hello | StreamPhase::Sending { .. } | StreamPhase::Closed => return None,
            StreamPhase::Idle { .. } | StreamPhase::AwaitAck { .. } => {}
        }
        if let Some(action) = self.advance(now, history) {
            return Some(action);
        }
        if now < self.last_sent + HEARTBEAT_INTERVAL {
            return None;
        }
        self.last_sent = now;
        Some(StreamAction::Heartbeat(history.head().clone()))
    }

    /// From Idle: rotate, or send if the node is not at the head and nothing holds it.
    fn advance(&mut self, now: Duration, history: &impl History) -> Option<StreamAction> {
        let StreamPhase::Idle { hold } = &self.phase else {
            return None;
        };
        if now >= self.lifetime.rotate_after {
            return Some(self.go_away());
        }
        let head = history.head();
        let held = match hold {
            Hold::Nothing => false,
            Hold::Rejected(rejected) => rejected == head,
            Hold::Backoff(at) => now < *at,
        };
        if held || self.acked.as_ref() == Some(head) {
            return None;
        }
        Some(self.send(now, history))
    }

    fn send(&mut self, now: Duration, history: &impl History) -> StreamAction {
        let to = history.head().clone();
        self.phase = StreamPhase::Sending { to: to.clone() };
        self.last_sent = now;
        match &self.acked {
            Some(from) if history.holds(from) => StreamAction::Delta(from.clone(), to),
            _ => StreamAction::Snapshot(to),
        }
    }

    fn go_away(&mut self) -> StreamAction {
        self.phase = StreamPhase::Closed;
        StreamAction::GoAway(self.lifetime.retry_after)
    }

    fn close(&mut self, reason: StreamCloseReason) -> StreamAction {
        self.phase = StreamPhase::Closed;
        StreamAction::Close(reason)
    }
}

#[cfg(test)]
mod tests;
