//! Examples of each transition, then the laws over random event orders.

use super::*;
use proptest::prelude::*;

/// A history of one epoch from `start` on, in which the digest equals the revision.
struct Past {
    start: i64,
    head: Cursor,
}

fn at(revision: i64) -> Cursor {
    cursor("a", revision)
}

fn cursor(epoch: &str, revision: i64) -> Cursor {
    let mut digest = [0; 32];
    digest[24..].copy_from_slice(&revision.to_be_bytes());
    Cursor::new(epoch, revision, digest)
}

impl Past {
    fn new(start: i64, head: i64) -> Self {
        Self {
            start,
            head: at(head),
        }
    }
}

impl History for Past {
    fn head(&self) -> &Cursor {
        &self.head
    }
    fn holds(&self, c: &Cursor) -> bool {
        c.epoch == self.head.epoch
            && (self.start..=self.head.revision).contains(&c.revision)
            && *c == at(c.revision)
    }
}

const T0: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const LIFETIME: Lifetime = Lifetime {
    rotate_after: Duration::from_secs(1800),
    retry_after: SECOND,
};

fn sent(stream: &mut RouteStream, past: &Past, now: Duration) {
    assert_eq!(stream.on(StreamEvent::Sent, now, past), None);
}

#[test]
fn a_known_cursor_resumes_by_delta_and_any_other_by_snapshot() {
    let past = Past::new(3, 9);
    let mut wrong = at(5);
    wrong = Cursor::new("a", wrong.revision, [7; 32]);
    let cases = [
        (None, StreamAction::Snapshot(at(9))),
        (Some(at(5)), StreamAction::Delta(at(5), at(9))),
        (Some(at(9)), StreamAction::Delta(at(9), at(9))),
        (Some(at(2)), StreamAction::Snapshot(at(9))),
        (Some(wrong), StreamAction::Snapshot(at(9))),
        (Some(cursor("b", 5)), StreamAction::Snapshot(at(9))),
        (Some(cursor("b", 50)), StreamAction::Snapshot(at(9))),
        (Some(at(10)), StreamAction::Close(StreamCloseReason::Behind)),
    ];
    for (have, want) in cases {
        let mut stream = RouteStream::new(LIFETIME);
        assert_eq!(
            stream.on(StreamEvent::Hello(have.clone()), T0, &past),
            Some(want),
            "{have:?}"
        );
    }
}

#[test]
fn changes_wait_for_the_answer_and_then_skip_to_the_head() {
    let mut stream = RouteStream::new(LIFETIME);
    stream.on(StreamEvent::Hello(None), T0, &Past::new(0, 1));
    sent(&mut stream, &Past::new(0, 1), T0);
    for head in 2..5 {
        assert_eq!(
            stream.on(StreamEvent::HeadMoved, T0, &Past::new(0, head)),
            None
        );
    }
    let past = Past::new(0, 5);
    assert_eq!(
        stream.on(StreamEvent::Ack(at(1)), T0, &past),
        Some(StreamAction::Delta(at(1), at(5)))
    );
}

#[test]
fn a_rejected_table_is_not_sent_again_until_the_head_moves() {
    let mut stream = RouteStream::new(LIFETIME);
    let past = Past::new(0, 4);
    stream.on(StreamEvent::Hello(Some(at(2))), T0, &past);
    sent(&mut stream, &past, T0);
    let nack = StreamEvent::Nack(Some(at(2)), NackKind::Rejected);
    assert_eq!(stream.on(nack, T0, &past), None);
    assert_eq!(stream.on(StreamEvent::HeadMoved, SECOND, &past), None);
    assert_eq!(stream.on(StreamEvent::Tick, SECOND, &past), None);
    let moved = Past::new(0, 5);
    let next = stream.on(StreamEvent::HeadMoved, SECOND, &moved);
    assert_eq!(next, Some(StreamAction::Delta(at(2), at(5))));
}

#[test]
fn a_corrupt_change_is_resent_at_once_then_with_back_off() {
    let mut stream = RouteStream::new(LIFETIME);
    let past = Past::new(0, 4);
    let corrupt = || StreamEvent::Nack(Some(at(2)), NackKind::Corrupt);
    stream.on(StreamEvent::Hello(Some(at(2))), T0, &past);
    sent(&mut stream, &past, T0);
    assert_eq!(
        stream.on(corrupt(), T0, &past),
        Some(StreamAction::Snapshot(at(4)))
    );
    sent(&mut stream, &past, T0);
    assert_eq!(stream.on(corrupt(), T0, &past), None);
    assert_eq!(stream.wake_at(), Some(SECOND));
    assert_eq!(
        stream.on(StreamEvent::Tick, SECOND, &past),
        Some(StreamAction::Snapshot(at(4)))
    );
    sent(&mut stream, &past, SECOND);
    assert_eq!(stream.on(corrupt(), SECOND, &past), None);
    assert_eq!(stream.wake_at(), Some(3 * SECOND));
}

#[test]
fn silence_ends_a_stream_and_heartbeats_prevent_it() {
    let past = Past::new(0, 4);
    let mut stream = RouteStream::new(LIFETIME);
    assert_eq!(stream.wake_at(), Some(HELLO_TIMEOUT));
    assert_eq!(stream.on(StreamEvent::Tick, 4 * SECOND, &past), None);
    let close = stream.on(StreamEvent::Tick, HELLO_TIMEOUT, &past);
    assert_eq!(close, Some(StreamAction::Close(StreamCloseReason::NoHello)));

    let mut stream = RouteStream::new(LIFETIME);
    stream.on(StreamEvent::Hello(None), T0, &past);
    assert_eq!(stream.wake_at(), None, "the driver times the transport");
    sent(&mut stream, &past, SECOND);
    assert_eq!(stream.wake_at(), Some(SECOND + HEARTBEAT_INTERVAL));
    let beat = stream.on(StreamEvent::Tick, SECOND + HEARTBEAT_INTERVAL, &past);
    assert_eq!(beat, Some(StreamAction::Heartbeat(at(4))));
    let close = stream.on(StreamEvent::Tick, SECOND + ACK_TIMEOUT, &past);
    assert_eq!(close, Some(StreamAction::Close(StreamCloseReason::NoAck)));
}

#[test]
fn an_old_stream_is_rotated_when_nothing_is_outstanding() {
    let past = Past::new(0, 4);
    let mut stream = RouteStream::new(Lifetime {
        rotate_after: 20 * SECOND,
        retry_after: SECOND,
    });
    stream.on(StreamEvent::Hello(None), T0, &past);
    sent(&mut stream, &past, 15 * SECOND);
    assert_eq!(stream.on(StreamEvent::HeadMoved, 21 * SECOND, &past), None);
    let end = stream.on(StreamEvent::Ack(at(4)), 22 * SECOND, &past);
    assert_eq!(end, Some(StreamAction::GoAway(SECOND)));
    assert_eq!(
        stream.on(StreamEvent::HeadMoved, 23 * SECOND, &Past::new(0, 9)),
        None
    );
}

#[test]
fn messages_out_of_order_end_the_stream() {
    let past = Past::new(0, 4);
    let protocol = Some(StreamAction::Close(StreamCloseReason::Protocol));
    let mut early = RouteStream::new(LIFETIME);
    assert_eq!(early.on(StreamEvent::Ack(at(4)), T0, &past), protocol);
    let mut twice = RouteStream::new(LIFETIME);
    twice.on(StreamEvent::Hello(None), T0, &past);
    assert_eq!(twice.on(StreamEvent::Hello(None), T0, &past), protocol);
    let mut other = RouteStream::new(LIFETIME);
    other.on(StreamEvent::Hello(None), T0, &past);
    sent(&mut other, &past, T0);
    assert_eq!(other.on(StreamEvent::Ack(at(3)), T0, &past), protocol);
}

/// A step of a random node, network or clock.
#[derive(Debug, Clone)]
enum Step {
    Hello(Option<i64>),
    Sent,
    AckLast,
    AckOther(i64),
    Nack(Option<i64>, bool),
    Move(i64),
    Compact(i64),
    Wait(u64),
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => proptest::option::of(0..12i64).prop_map(Step::Hello),
        4 => Just(Step::Sent),
        4 => Just(Step::AckLast),
        1 => (0..12i64).prop_map(Step::AckOther),
        2 => (proptest::option::of(0..12i64), any::<bool>())
            .prop_map(|(at, corrupt)| Step::Nack(at, corrupt)),
        4 => (1..4i64).prop_map(Step::Move),
        1 => (0..3i64).prop_map(Step::Compact),
        3 => (0..20u64).prop_map(Step::Wait),
        1 => Just(Step::Shutdown),
    ]
}

proptest! {
    /// In any order of events: one unanswered change at most, deltas only from the acknowledged
    /// cursor, changes only to the head, no action after the close.
    #[test]
    fn any_order_keeps_the_laws(
        have in proptest::option::of(0..12i64),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut past = Past::new(0, 10);
        let mut stream = RouteStream::new(LIFETIME);
        let mut now = T0;
        let (mut outstanding, mut closed) = (None::<Cursor>, false);
        let mut delivered = false;
        let mut acked = have.map(at);
        let first = Step::Hello(have);
        for step in std::iter::once(first).chain(steps) {
            let event = match step {
                Step::Hello(have) => StreamEvent::Hello(have.map(at)),
                Step::Sent => { delivered = outstanding.is_some(); StreamEvent::Sent }
                Step::AckLast => StreamEvent::Ack(outstanding.clone().unwrap_or_else(|| at(1))),
                Step::AckOther(r) => StreamEvent::Ack(at(r)),
                Step::Nack(r, corrupt) => StreamEvent::Nack(
                    r.map(at),
                    if corrupt { NackKind::Corrupt } else { NackKind::Rejected },
                ),
                Step::Move(by) => { past.head = at(past.head.revision + by); StreamEvent::HeadMoved }
                Step::Compact(by) => {
                    past.start = (past.start + by).min(past.head.revision);
                    StreamEvent::HeadMoved
                }
                Step::Wait(seconds) => { now += Duration::from_secs(seconds); StreamEvent::Tick }
                Step::Shutdown => StreamEvent::Shutdown,
            };
            if delivered && !closed {
                match &event {
                    StreamEvent::Ack(c) if Some(c) == outstanding.as_ref() => {
                        acked = outstanding.take();
                        delivered = false;
                    }
                    StreamEvent::Nack(_, _) => { outstanding = None; delivered = false; }
                    _ => {}
                }
            }
            let action = stream.on(event, now, &past);
            prop_assert!(!(closed && action.is_some()), "a closed stream acted: {action:?}");
            match action {
                Some(StreamAction::Snapshot(to)) => {
                    prop_assert_eq!(outstanding.replace(to.clone()), None);
                    prop_assert_eq!(&to, past.head());
                }
                Some(StreamAction::Delta(from, to)) => {
                    prop_assert_eq!(outstanding.replace(to.clone()), None);
                    prop_assert_eq!(&to, past.head());
                    prop_assert_eq!(Some(&from), acked.as_ref());
                    prop_assert!(past.holds(&from));
                }
                Some(StreamAction::GoAway(_) | StreamAction::Close(_)) => closed = true,
                Some(StreamAction::Heartbeat(head)) => prop_assert_eq!(&head, past.head()),
                None => {}
            }
        }
    }

    /// A node that answers every change reaches the head, however the head moved meanwhile.
    #[test]
    fn a_node_that_answers_reaches_the_head(
        have in proptest::option::of(0..10i64),
        moves in proptest::collection::vec(1..5i64, 0..20),
    ) {
        let mut past = Past::new(2, 10);
        let mut stream = RouteStream::new(LIFETIME);
        let mut next = stream.on(StreamEvent::Hello(have.map(at)), T0, &past);
        let mut serving = have.map(at);
        for by in moves {
            past.head = at(past.head.revision + by);
            prop_assert_eq!(stream.on(StreamEvent::HeadMoved, T0, &past), None);
        }
        while let Some(action) = next.take() {
            let to = match action {
                StreamAction::Snapshot(to) => to,
                StreamAction::Delta(from, to) => {
                    prop_assert_eq!(Some(from), serving.clone());
                    to
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            stream.on(StreamEvent::Sent, T0, &past);
            serving = Some(to.clone());
            next = stream.on(StreamEvent::Ack(to), T0, &past);
        }
        prop_assert_eq!(serving.as_ref(), Some(past.head()));
    }
}
