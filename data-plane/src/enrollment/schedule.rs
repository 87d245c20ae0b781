//! When a node joins its cluster and renews its certificate. PURE.
//!
//! ```text
//!                 no certificate ──► Join
//!   received ───── 2/3 ─ due ────── expires ─────────── 90 days ──────────►
//!      Wait             │  Renew         Renew            Join with a token, else Renew
//!                       └ drawn within a twelfth of the life, so that nodes that joined together
//!                         do not renew together
//! ```
//!
//! A refusal of a renewal (the node was removed, or its certificate expired too long ago) is
//! followed by one attempt to join, if there is a token, and then by another renewal: an operator
//! may have lifted the reason. Attempts that a control plane refused are rare, because a person
//! must act; attempts that reached none follow soon, because the control plane may be back.
//!
//! Laws: no wait is longer than [`MAX_WAIT`], so that a clock that is set is noticed. No attempt to
//! join without a token; none to renew without a certificate. A certificate that is not due and
//! that no control plane refused is left alone. An expired one is always tried.

use crate::backoff::Backoff;
use rand::RngExt as _;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The longest wait before the schedule looks at the clock again.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

/// Time after its expiry for which the control plane renews a certificate.
const GRACE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Delays after a refusal are this many times those after a failed connection.
const REFUSED_FACTOR: u32 = 10;

/// Both clocks: certificates are valid by the wall clock, delays pass by the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: SystemTime,
    pub(crate) monotonic: Instant,
}

/// The life of a certificate by this node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) received: SystemTime,
    pub(crate) expires: SystemTime,
}

/// An event of the enrollment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A new certificate is in use.
    Enrolled(Life),
    /// A control plane refused the attempt to join or renew.
    Refused,
    /// No control plane gave an answer.
    Unreachable,
    /// A control plane refused a stream with the current certificate.
    StreamRefused,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Wait(Duration),
    Join,
    Renew,
}

#[derive(Debug)]
pub(crate) struct Schedule {
    has_token: bool,
    life: Option<Life>,
    /// Time at which renewal is due.
    due: Option<SystemTime>,
    /// A stream was refused: renewal is due now.
    doubted: bool,
    /// The last renewal was refused: a token is tried next.
    join_next: bool,
    /// No attempt before this time.
    not_before: Option<Instant>,
    unreachable: Backoff,
    refused: Backoff,
}

impl Schedule {
    /// The schedule of a node with the certificate that is stored. `floor` and `ceiling` bound the
    /// delay after a failed connection.
    pub(crate) fn new(
        stored: Option<Life>,
        has_token: bool,
        (floor, ceiling): (Duration, Duration),
        rng: &mut impl rand::Rng,
    ) -> Self {
        let factor = REFUSED_FACTOR;
        let mut schedule = Self {
            has_token,
            life: None,
            due: None,
            doubted: false,
            join_next: false,
            not_before: None,
            unreachable: Backoff::new(floor, ceiling),
            refused: Backoff::new(floor.saturating_mul(factor), ceiling.saturating_mul(factor)),
        };
        if let Some(life) = stored {
            schedule.enroll(life, rng);
        }
        schedule
    }

    fn enroll(&mut self, life: Life, rng: &mut impl rand::Rng) {
        let length = life.expires.duration_since(life.received);
        let length = length.unwrap_or_default();
        let at = length.mul_f64(2.0 / 3.0 + rng.random_range(0.0..=1.0 / 12.0));
        self.due = life.received.checked_add(at);
        self.life = Some(life);
        self.doubted = false;
        self.join_next = false;
    }

    /// Records an event.
    pub(crate) fn record(&mut self, event: Event, now: Now, rng: &mut impl rand::Rng) {
        let delay = match event {
            Event::Enrolled(life) => {
                self.unreachable.reset();
                // A new certificate whose stream is refused again must not make a fast loop.
                if !self.doubted {
                    self.refused.reset();
                }
                self.enroll(life, rng);
                self.refused.next(rng)
            }
            Event::Refused => {
                self.unreachable.reset();
                self.join_next = self.life.is_some() && !self.join_next;
                // The other way is tried soon, once.
                match self.join_next && self.has_token {
                    true => self.unreachable.next(rng),
                    false => self.refused.next(rng),
                }
            }
            Event::Unreachable => self.unreachable.next(rng),
            Event::StreamRefused => {
                self.doubted = true;
                return;
            }
        };
        self.not_before = now.monotonic.checked_add(delay);
    }

    /// The next step at `now`.
    pub(crate) fn next(&self, now: Now) -> Step {
        let due_in = self.due_in(now);
        let held = self.not_before.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(now.monotonic)
        });
        let wait = due_in.max(held).min(MAX_WAIT);
        if !wait.is_zero() {
            return Step::Wait(wait);
        }
        match self.life {
            Some(_) if self.joins(now) => Step::Join,
            Some(_) => Step::Renew,
            None if self.has_token => Step::Join,
            None => Step::Wait(MAX_WAIT),
        }
    }

    /// Time until an attempt is due, apart from delays.
    fn due_in(&self, now: Now) -> Duration {
        let (Some(life), Some(due)) = (self.life, self.due) else {
            return Duration::ZERO;
        };
        if self.doubted || now.wall >= life.expires {
            return Duration::ZERO;
        }
        due.duration_since(now.wall).unwrap_or_default()
    }

    /// Whether a node with a certificate uses a token.
    fn joins(&self, now: Now) -> bool {
        let over = self.life.and_then(|life| life.expires.checked_add(GRACE));
        let too_late = over.is_some_and(|over| now.wall >= over);
        self.has_token && (self.join_next || too_late)
    }

    /// Whether the certificate has expired, by this node's clock.
    pub(crate) fn is_expired(&self, now: Now) -> bool {
        self.life.is_some_and(|life| now.wall >= life.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

    /// A simulated node; its clock moves only by [`Node::pass`].
    struct Node {
        schedule: Schedule,
        now: Now,
        rng: SmallRng,
    }

    impl Node {
        fn new(stored: Option<Life>, has_token: bool, seed: u64) -> Self {
            let mut rng = SmallRng::seed_from_u64(seed);
            Self {
                schedule: Schedule::new(stored, has_token, BOUNDS, &mut rng),
                now: Now {
                    wall: SystemTime::UNIX_EPOCH + 1000 * DAY,
                    monotonic: Instant::now(),
                },
                rng,
            }
        }

        fn life(&self) -> Life {
            Life {
                received: self.now.wall,
                expires: self.now.wall + DAY,
            }
        }

        fn enrolled(seed: u64, has_token: bool) -> Self {
            let mut node = Self::new(None, has_token, seed);
            node.record(Event::Enrolled(node.life()));
            node
        }

        fn pass(&mut self, time: Duration) {
            self.now.wall += time;
            self.now.monotonic += time;
        }

        fn record(&mut self, event: Event) {
            self.schedule.record(event, self.now, &mut self.rng);
        }

        fn next(&self) -> Step {
            self.schedule.next(self.now)
        }

        /// The next attempt, within `most`.
        fn attempt(&mut self, most: Duration) -> Option<Step> {
            let end = self.now.monotonic + most;
            loop {
                match self.next() {
                    Step::Wait(time) if self.now.monotonic + time > end => return None,
                    Step::Wait(time) => self.pass(time),
                    step => return Some(step),
                }
            }
        }
    }

    #[test]
    fn a_new_node_joins_and_renews_within_its_life() {
        let mut node = Node::new(None, true, 1);
        assert_eq!(node.next(), Step::Join);
        node.record(Event::Enrolled(node.life()));
        assert_eq!(node.attempt(DAY * 2 / 3 - MAX_WAIT), None);
        assert_eq!(node.attempt(DAY / 12 + 2 * MAX_WAIT), Some(Step::Renew));
        assert!(!node.schedule.is_expired(node.now));
    }

    #[test]
    fn an_expired_certificate_renews_at_once() {
        let mut node = Node::enrolled(2, false);
        let life = node.life();
        for days in [2, 30, 89, 91, 400] {
            let mut late = Node::new(Some(life), false, 3);
            late.now = node.now;
            late.pass(days * DAY);
            assert!(late.schedule.is_expired(late.now));
            assert_eq!(late.next(), Step::Renew, "after {days} days");
        }
        // Long after its expiry a token is the only way; without one the control plane decides.
        node.schedule.has_token = true;
        node.pass(92 * DAY);
        assert_eq!(node.next(), Step::Join);
    }

    #[test]
    fn a_control_plane_that_is_back_is_noticed_within_its_backoff() {
        let mut node = Node::enrolled(4, false);
        node.pass(3 * DAY);
        for _ in 0..1000 {
            assert_eq!(node.attempt(BOUNDS.1), Some(Step::Renew));
            node.record(Event::Unreachable);
        }
    }

    #[test]
    fn a_removed_node_joins_again_only_with_a_token() {
        let mut node = Node::enrolled(5, true);
        node.pass(DAY / 10);
        assert!(matches!(node.next(), Step::Wait(_)));
        node.record(Event::StreamRefused);
        assert_eq!(node.next(), Step::Renew);
        node.record(Event::Refused);
        assert_eq!(node.attempt(BOUNDS.0), Some(Step::Join));
        node.record(Event::Refused);
        assert_eq!(node.attempt(BOUNDS.1 * REFUSED_FACTOR), Some(Step::Renew));

        let mut without = Node::enrolled(5, false);
        without.record(Event::StreamRefused);
        for _ in 0..20 {
            let step = without.attempt(BOUNDS.1 * REFUSED_FACTOR + MAX_WAIT);
            assert_eq!(step, Some(Step::Renew));
            without.record(Event::Refused);
        }
    }

    #[test]
    fn a_clock_that_is_set_is_noticed() {
        let mut node = Node::enrolled(6, false);
        node.now.wall += DAY;
        node.now.monotonic += MAX_WAIT;
        assert_eq!(node.next(), Step::Renew);
        let mut back = Node::enrolled(7, false);
        back.now.wall -= 400 * DAY;
        assert_eq!(back.next(), Step::Wait(MAX_WAIT));
    }

    fn event() -> impl Strategy<Value = (u8, u32, bool)> {
        (0u8..5, 0u32..200_000, any::<bool>())
    }

    proptest! {
        #[test]
        fn laws(seed: u64, has_token: bool, enrolled: bool, events in prop::collection::vec(event(), 0..60)) {
            let mut node = Node::new(None, has_token, seed);
            if enrolled {
                node.record(Event::Enrolled(node.life()));
            }
            for (kind, seconds, back) in events {
                let before = node.now;
                node.pass(Duration::from_secs(seconds.into()));
                if back {
                    node.now.wall = before.wall - Duration::from_secs(seconds.into());
                }
                match node.next() {
                    Step::Wait(time) => prop_assert!(!time.is_zero() && time <= MAX_WAIT),
                    Step::Join => prop_assert!(has_token),
                    Step::Renew => prop_assert!(node.schedule.life.is_some()),
                }
                match kind {
                    0 => node.record(Event::Enrolled(node.life())),
                    1 => node.record(Event::Refused),
                    2 => node.record(Event::Unreachable),
                    3 => node.record(Event::StreamRefused),
                    _ => {}
                }
                // Whatever happened, an attempt follows an expiry.
                if node.schedule.is_expired(node.now) {
                    let most = BOUNDS.1 * REFUSED_FACTOR + MAX_WAIT;
                    let first = node.now;
                    prop_assert!(node.attempt(most).is_some());
                    node.now = first;
                }
            }
        }

        #[test]
        fn nodes_that_joined_together_renew_apart(seed: u64) {
            let mut buckets = [0u32; 12];
            for offset in 0..240 {
                let node = Node::enrolled(seed.wrapping_add(offset), false);
                let due = node.schedule.due.expect("a certificate");
                let after = due.duration_since(node.now.wall + DAY * 2 / 3 - Duration::from_secs(1));
                let share = after.expect("not before").as_secs_f64() / (DAY / 12).as_secs_f64();
                buckets[(share * 12.0).clamp(0.0, 11.0) as usize] += 1;
            }
            prop_assert!(buckets.iter().all(|count| *count < 60), "{buckets:?}");
        }
    }
}
