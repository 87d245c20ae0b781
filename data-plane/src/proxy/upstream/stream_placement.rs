//! Chooses the HTTP/2 connection of a request. Pure.
//!
//! A peer limits the streams of a connection (`SETTINGS_MAX_CONCURRENT_STREAMS`, RFC 9113 section
//! 5.1.2). Beyond that limit a request gets a further connection, so that an instance has as many
//! requests as it admits.
//!
//! Laws (tested below): a connection never gets more streams than its peer allows. A further one is
//! opened only if each carries a stream, so there are never more connections than requests, which
//! the instance's `concurrency` limits. A request waits only for a connection that is being opened,
//! or whose peer allows no stream for now.

/// The streams of one connection, and the limit that its peer has set.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamLoad {
    pub(super) streams: usize,
    /// 0 until the peer's settings have arrived.
    pub(super) limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// On the connection with this index.
    On(usize),
    /// On none of them: open a further one.
    Dial,
    /// Wait for a change.
    Wait,
}

/// Places a stream. The first connection with room gets it, so that the surplus of a burst idles.
/// `may_dial`: false while a connection is being opened, and for a while after that failed.
pub(super) fn place(conns: impl IntoIterator<Item = StreamLoad>, may_dial: bool) -> Placement {
    let mut has_unused = false;
    for (index, conn) in conns.into_iter().enumerate() {
        if conn.streams < conn.limit {
            return Placement::On(index);
        }
        has_unused |= conn.streams == 0;
    }
    match may_dial && !has_unused {
        true => Placement::Dial,
        false => Placement::Wait,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Event {
        Request,
        /// A stream of this connection, modulo their number, ends.
        End(usize),
        /// The peer sets the limit of a connection.
        Limit(usize, usize),
        /// GOAWAY: the connection takes no more streams.
        Leave(usize),
        Opened,
        Failed,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Request),
            3 => (0_usize..8).prop_map(Event::End),
            2 => (0_usize..8, 0_usize..6).prop_map(|(at, limit)| Event::Limit(at, limit)),
            1 => (0_usize..8).prop_map(Event::Leave),
            3 => Just(Event::Opened),
            1 => Just(Event::Failed),
        ]
    }

    proptest! {
        #[test]
        fn streams_stay_within_limits_and_connections_within_requests(
            events in proptest::collection::vec(event(), 0..200),
        ) {
            let mut conns: Vec<StreamLoad> = Vec::new();
            // Streams of connections that take no more.
            let mut leaving = 0;
            let mut is_dialling = false;
            let mut waiting = VecDeque::new();
            let (mut next, mut served) = (0, 0);
            for event in events {
                let is_known = |at: usize| at.checked_rem(conns.len());
                match event {
                    Event::Request => {
                        waiting.push_back(next);
                        next += 1;
                    }
                    Event::End(at) => if let Some(at) = is_known(at) {
                        conns[at].streams = conns[at].streams.saturating_sub(1);
                    }
                    Event::Limit(at, limit) => if let Some(at) = is_known(at) {
                        conns[at].limit = limit;
                    }
                    Event::Leave(at) => if let Some(at) = is_known(at) {
                        leaving += conns.remove(at).streams;
                    }
                    Event::Opened if is_dialling => {
                        is_dialling = false;
                        conns.push(StreamLoad { streams: 0, limit: 0 });
                    }
                    Event::Failed => is_dialling = false,
                    Event::Opened => {}
                }
                // Only the head of the queue is placed.
                while let Some(head) = waiting.front().copied() {
                    match place(conns.iter().copied(), !is_dialling) {
                        Placement::On(at) => {
                            prop_assert!(conns[at].streams < conns[at].limit);
                            prop_assert!(conns[..at].iter().all(|c| c.streams >= c.limit));
                            conns[at].streams += 1;
                            prop_assert_eq!(head, served);
                            served += 1;
                            waiting.pop_front();
                        }
                        Placement::Dial => {
                            prop_assert!(conns.iter().all(|conn| conn.streams > 0));
                            let streams: usize = conns.iter().map(|conn| conn.streams).sum();
                            let requests = streams + leaving + waiting.len();
                            prop_assert!(conns.len() < requests);
                            is_dialling = true;
                        }
                        Placement::Wait => {
                            let refuses = |c: &StreamLoad| c.streams == 0 && c.limit == 0;
                            prop_assert!(is_dialling || conns.iter().any(refuses));
                            break;
                        }
                    }
                }
            }
        }
    }
}
