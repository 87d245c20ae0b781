//! State machine of one feed stream, from Hello to its end. Pure.
//!
//! ```text
//!   Hello sent --first message--> live --silence, age, GoAway--> closed
//!        \------- none within 5 s ------------------------------/
//! ```
//!
//! Law 2: each installed table is one complete commit, and revisions never decrease within an
//! epoch.

use super::Timing;
use super::epochs::PastEpochs;
use super::message::{ChangeRefusal, Head, Message, Reply};
use super::staging::{Staged, Staging};
use crate::route::Table;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Session {
    staging: Staging,
    timing: Timing,
    /// Time of the last message that shows progress; initially, the time of Hello.
    last_progress: Instant,
    responded: bool,
    expires: Instant,
}

/// An action to perform. Actions of one message are performed in order.
#[derive(Debug)]
pub(crate) enum SessionAction {
    /// Replace the serving table.
    Install(Arc<Table>),
    /// Send a reply. The reply to an installed table follows [`SessionAction::Install`].
    Send(Reply),
    /// The serving table is the newest; the control plane sent no change.
    Confirmed,
    /// The newest revision of the control plane.
    Head(i64),
    Close(SessionCloseReason),
}

/// Reasons for the node to close a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionCloseReason {
    /// No first message arrived in time.
    #[error("the control plane did not answer Hello within {0:?}")]
    Unanswered(Duration),
    /// No message arrived for the silence timeout.
    #[error("nothing came from the control plane for {0:?}")]
    Silent(Duration),
    /// The stream reached its lifetime; reconnecting rebalances nodes over replicas.
    #[error("the stream has reached its age")]
    Expired,
    /// The control plane requested a reconnect.
    #[error("the control plane requested a reconnection in {0:?}")]
    GoAway(Duration),
}

impl Session {
    /// Starts a session whose Hello is sent at `now`.
    ///
    /// `confirmed` says whether a control plane delivered or confirmed `serving` in this run;
    /// `past_epochs` are the epochs left in this run; `lifetime` is already jittered.
    pub(crate) fn new(
        serving: Arc<Table>,
        confirmed: bool,
        past_epochs: PastEpochs,
        timing: Timing,
        lifetime: Duration,
        now: Instant,
    ) -> Self {
        Self {
            staging: Staging::new(serving, confirmed, past_epochs),
            timing,
            last_progress: now,
            responded: false,
            expires: now + lifetime,
        }
    }

    /// Handles a message received at `now`.
    pub(crate) fn step(&mut self, message: Message, now: Instant) -> Vec<SessionAction> {
        let heartbeat = matches!(message, Message::Heartbeat { .. });
        // Heartbeats in the middle of a change are no progress.
        if !(heartbeat && self.staging.is_open()) {
            self.last_progress = now;
        }
        self.responded = true;
        match message {
            Message::GoAway { retry_after } => {
                vec![SessionAction::Close(SessionCloseReason::GoAway(
                    retry_after,
                ))]
            }
            Message::Heartbeat { head } => self.heartbeat(&head),
            Message::Begin(begin) => {
                let head = SessionAction::Head(begin.to.revision);
                self.staging.step(Message::Begin(begin));
                vec![head]
            }
            message => match self.staging.step(message) {
                Staged::Pending => Vec::new(),
                Staged::Committed(table) => {
                    let (cursor, quarantined) =
                        (table.cursor().clone(), table.quarantined().to_vec());
                    vec![
                        SessionAction::Install(table),
                        SessionAction::Send(Reply::Ack {
                            cursor,
                            quarantined,
                        }),
                    ]
                }
                Staged::Refused(refusal) => vec![SessionAction::Send(self.nack(refusal))],
            },
        }
    }

    fn heartbeat(&mut self, head: &Head) -> Vec<SessionAction> {
        let serving = self.staging.serving().cursor();
        let mut actions = vec![SessionAction::Head(head.revision)];
        // The control plane knows our digest from Hello or an Ack; had it differed, a change would
        // follow.
        if (&serving.epoch, serving.revision) == (&head.epoch, head.revision)
            && !self.staging.is_open()
        {
            self.staging.confirm();
            actions.push(SessionAction::Confirmed);
        }
        actions
    }

    fn nack(&self, refusal: ChangeRefusal) -> Reply {
        let serving = self.staging.serving();
        Reply::Nack {
            cursor: (!serving.is_initial()).then(|| serving.cursor().clone()),
            refusal,
        }
    }

    /// Whether no change is in transit.
    pub(crate) fn is_idle(&self) -> bool {
        !self.staging.is_open()
    }

    /// The time at which [`Session::close_reason`] is due if no message arrives.
    pub(crate) fn deadline(&self) -> Instant {
        let silent_at = self.last_progress + self.message_timeout();
        // Expiry waits for a change in transit.
        if self.staging.is_open() {
            silent_at
        } else {
            silent_at.min(self.expires)
        }
    }

    /// The reason to close the stream at `now`, if any.
    pub(crate) fn close_reason(&self, now: Instant) -> Option<SessionCloseReason> {
        if now >= self.last_progress + self.message_timeout() {
            return Some(match self.responded {
                true => SessionCloseReason::Silent(self.timing.silence),
                false => SessionCloseReason::Unanswered(self.timing.first_message),
            });
        }
        (now >= self.expires && !self.staging.is_open()).then_some(SessionCloseReason::Expired)
    }

    fn message_timeout(&self) -> Duration {
        if self.responded {
            self.timing.silence
        } else {
            self.timing.first_message
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::message::{Begin, Commit};
    use crate::route::{Cursor, Digest, Scope};

    const HOUR: Duration = Duration::from_secs(3600);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn session(now: Instant, lifetime: Duration) -> Session {
        Session::new(
            Arc::default(),
            false,
            PastEpochs::default(),
            Timing::default(),
            lifetime,
            now,
        )
    }

    fn cursor(revision: i64) -> Cursor {
        Cursor {
            epoch: "e".into(),
            revision,
            digest: Digest::ZERO,
        }
    }

    fn begin(revision: i64) -> Message {
        Message::Begin(Begin {
            txn: 1,
            cluster: "c".into(),
            scope: Scope::Snapshot,
            from: None,
            to: cursor(revision),
        })
    }

    fn commit(revision: i64) -> Message {
        Message::Commit(Commit {
            txn: 1,
            to: cursor(revision),
            count: 0,
        })
    }

    fn heartbeat(revision: i64) -> Message {
        Message::Heartbeat {
            head: Head {
                epoch: "e".into(),
                revision,
            },
        }
    }

    #[test]
    fn hello_is_answered_within_5_s() {
        let start = Instant::now();
        let session = session(start, HOUR);
        assert_eq!(session.deadline(), start + seconds(5));
        assert_eq!(session.close_reason(start + seconds(4)), None);
        assert_eq!(
            session.close_reason(session.deadline()),
            Some(SessionCloseReason::Unanswered(seconds(5)))
        );
    }

    #[test]
    fn silence_of_30_s_ends_it() {
        let start = Instant::now();
        let mut session = session(start, HOUR);
        session.step(heartbeat(1), start + seconds(1));
        assert_eq!(session.deadline(), start + seconds(31));
        assert_eq!(
            session.close_reason(session.deadline()),
            Some(SessionCloseReason::Silent(seconds(30)))
        );
    }

    #[test]
    fn heartbeats_do_not_keep_a_change_open() {
        let start = Instant::now();
        let mut session = session(start, HOUR);
        session.step(begin(1), start);
        session.step(heartbeat(1), start + seconds(20));
        assert_eq!(
            session.close_reason(start + seconds(30)),
            Some(SessionCloseReason::Silent(seconds(30)))
        );
    }

    #[test]
    fn it_expires_between_changes() {
        let start = Instant::now();
        let mut session = session(start, seconds(20));
        session.step(begin(1), start);
        assert_eq!(session.close_reason(start + seconds(25)), None);
        session.step(commit(1), start + seconds(25));
        assert_eq!(
            session.close_reason(start + seconds(25)),
            Some(SessionCloseReason::Expired)
        );
    }

    #[test]
    fn a_table_is_installed_before_it_is_acknowledged() {
        let start = Instant::now();
        let mut session = session(start, HOUR);
        assert!(matches!(
            session.step(begin(1), start)[..],
            [SessionAction::Head(1)]
        ));
        let actions = session.step(commit(1), start);
        let [
            SessionAction::Install(table),
            SessionAction::Send(Reply::Ack { cursor, .. }),
        ] = &actions[..]
        else {
            panic!("{actions:?}");
        };
        assert_eq!(table.cursor(), cursor);
    }

    #[test]
    fn a_heartbeat_at_our_revision_confirms_the_table() {
        let start = Instant::now();
        let mut session = session(start, HOUR);
        assert!(matches!(
            session.step(heartbeat(1), start)[..],
            [SessionAction::Head(1)]
        ));
        session.step(begin(1), start);
        session.step(commit(1), start);
        let actions = session.step(heartbeat(1), start);
        assert!(matches!(
            actions[..],
            [SessionAction::Head(1), SessionAction::Confirmed]
        ));
    }

    #[test]
    fn go_away_is_honoured() {
        let start = Instant::now();
        let message = Message::GoAway {
            retry_after: seconds(2),
        };
        let actions = session(start, HOUR).step(message, start);
        assert!(
            matches!(&actions[..], [SessionAction::Close(SessionCloseReason::GoAway(after))] if *after == seconds(2))
        );
    }
}
