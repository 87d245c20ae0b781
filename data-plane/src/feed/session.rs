//! One stream of the feed, from its first message to the reason to leave it. Pure.
//!
//! ```text
//!   Hello sent --first message--> live --silence, age, GoAway--> left
//!        \------- none in 5 s --------------------------------/
//! ```
//!
//! Law 2: each table installed is one whole commit, and its revision is no lower than that of the
//! one before it in the same epoch.

use super::Timing;
use super::epochs::Epochs;
use super::message::{Head, Message, Refusal, Reply};
use super::staging::{Staged, Staging};
use crate::route::Table;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A stream of the feed.
#[derive(Debug)]
pub(crate) struct Session {
    staging: Staging,
    timing: Timing,
    /// When the last message came that shows the plane is getting on; at first, when Hello went.
    heard: Instant,
    answered: bool,
    expires: Instant,
}

/// What to do about a message, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// Make this the table that serves.
    Install(Arc<Table>),
    /// Answer; any answer to an Install goes after it.
    Send(Reply),
    /// The table that serves is the plane's newest: it needed no change.
    Confirmed,
    /// The plane's newest revision.
    Head(i64),
    /// Leave the stream.
    Leave(Leave),
}

/// Why a stream is left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Leave {
    /// No first message.
    #[error("the control plane did not answer Hello within {0:?}")]
    Unanswered(Duration),
    /// Nothing heard.
    #[error("nothing came from the control plane for {0:?}")]
    Silent(Duration),
    /// It has lived long enough: another replica may have more room.
    #[error("the stream has reached its age")]
    Expired,
    /// The plane asked.
    #[error("the control plane asked to connect again in {0:?}")]
    GoAway(Duration),
}

impl Session {
    /// A stream on which Hello went at `now`. `committed`: a plane brought or confirmed `serving`
    /// in this run, which has `left` these epochs; `lifetime`: how long to stay, jittered by the caller.
    pub(crate) fn new(
        serving: Arc<Table>,
        committed: bool,
        left: Epochs,
        timing: Timing,
        lifetime: Duration,
        now: Instant,
    ) -> Self {
        Self {
            staging: Staging::new(serving, committed, left),
            timing,
            heard: now,
            answered: false,
            expires: now + lifetime,
        }
    }

    /// Takes a message that came at `now`.
    pub(crate) fn step(&mut self, message: Message, now: Instant) -> Vec<Action> {
        let heartbeat = matches!(message, Message::Heartbeat { .. });
        // A plane that beats but never closes its change is as good as silent.
        if !(heartbeat && self.staging.is_open()) {
            self.heard = now;
        }
        self.answered = true;
        match message {
            Message::GoAway { retry_after } => vec![Action::Leave(Leave::GoAway(retry_after))],
            Message::Heartbeat { head } => self.heartbeat(&head),
            Message::Begin(begin) => {
                let head = Action::Head(begin.to.revision);
                self.staging.step(Message::Begin(begin));
                vec![head]
            }
            message => match self.staging.step(message) {
                Staged::More => Vec::new(),
                Staged::Committed(table) => {
                    let (cursor, quarantined) =
                        (table.cursor().clone(), table.quarantined().to_vec());
                    vec![
                        Action::Install(table),
                        Action::Send(Reply::Ack {
                            cursor,
                            quarantined,
                        }),
                    ]
                }
                Staged::Refused(refusal) => vec![Action::Send(self.nack(refusal))],
            },
        }
    }

    fn heartbeat(&mut self, head: &Head) -> Vec<Action> {
        let serving = self.staging.serving().cursor();
        let mut actions = vec![Action::Head(head.revision)];
        // The plane read our digest in Hello, or in an Ack: had it differed, a change would follow.
        if (&serving.epoch, serving.revision) == (&head.epoch, head.revision)
            && !self.staging.is_open()
        {
            self.staging.confirm();
            actions.push(Action::Confirmed);
        }
        actions
    }

    fn nack(&self, refusal: Refusal) -> Reply {
        let serving = self.staging.serving();
        Reply::Nack {
            cursor: (!serving.is_initial()).then(|| serving.cursor().clone()),
            refusal,
        }
    }

    /// When [`Session::overdue`] is to be asked next, if no message comes.
    pub(crate) fn deadline(&self) -> Instant {
        let heard_by = self.heard + self.patience();
        // A change that is arriving is waited for.
        if self.staging.is_open() {
            heard_by
        } else {
            heard_by.min(self.expires)
        }
    }

    /// Why to leave by now, if there is a reason.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Leave> {
        if now >= self.heard + self.patience() {
            return Some(match self.answered {
                true => Leave::Silent(self.timing.silence),
                false => Leave::Unanswered(self.timing.first_message),
            });
        }
        (now >= self.expires && !self.staging.is_open()).then_some(Leave::Expired)
    }

    fn patience(&self) -> Duration {
        if self.answered {
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
            Epochs::default(),
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
        assert_eq!(session.overdue(start + seconds(4)), None);
        assert_eq!(
            session.overdue(session.deadline()),
            Some(Leave::Unanswered(seconds(5)))
        );
    }

    #[test]
    fn silence_of_30_s_ends_it() {
        let start = Instant::now();
        let mut session = session(start, HOUR);
        session.step(heartbeat(1), start + seconds(1));
        assert_eq!(session.deadline(), start + seconds(31));
        assert_eq!(
            session.overdue(session.deadline()),
            Some(Leave::Silent(seconds(30)))
        );
    }

    #[test]
    fn heartbeats_do_not_keep_a_change_open() {
        let start = Instant::now();
        let mut session = session(start, HOUR);
        session.step(begin(1), start);
        session.step(heartbeat(1), start + seconds(20));
        assert_eq!(
            session.overdue(start + seconds(30)),
            Some(Leave::Silent(seconds(30)))
        );
    }

    #[test]
    fn it_expires_between_changes() {
        let start = Instant::now();
        let mut session = session(start, seconds(20));
        session.step(begin(1), start);
        assert_eq!(session.overdue(start + seconds(25)), None);
        session.step(commit(1), start + seconds(25));
        assert_eq!(session.overdue(start + seconds(25)), Some(Leave::Expired));
    }

    #[test]
    fn a_table_is_installed_before_it_is_acknowledged() {
        let start = Instant::now();
        let mut session = session(start, HOUR);
        assert!(matches!(
            session.step(begin(1), start)[..],
            [Action::Head(1)]
        ));
        let actions = session.step(commit(1), start);
        let [
            Action::Install(table),
            Action::Send(Reply::Ack { cursor, .. }),
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
            [Action::Head(1)]
        ));
        session.step(begin(1), start);
        session.step(commit(1), start);
        let actions = session.step(heartbeat(1), start);
        assert!(matches!(actions[..], [Action::Head(1), Action::Confirmed]));
    }

    #[test]
    fn go_away_is_honoured() {
        let start = Instant::now();
        let message = Message::GoAway {
            retry_after: seconds(2),
        };
        let actions = session(start, HOUR).step(message, start);
        assert!(
            matches!(&actions[..], [Action::Leave(Leave::GoAway(after))] if *after == seconds(2))
        );
    }
}
