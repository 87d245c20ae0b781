//! When a client's connection has cost enough. Pure: what was counted and the time in, a verdict out.
//!
//! A worker looks at each of its connections at every [`TICK`] and compares counters with those of
//! the last look, so that the path of a request sets no timer and reads no clock for these limits. A
//! limit is held to within one tick, on the early side.

use std::time::Duration;

use super::framing::Phase;
use super::options::Limits;

/// Between two looks.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// In each span of the body's time limit, a body must bring this much.
const LEAST_BODY: u64 = 1024;

/// Why the proxy closes a client's connection. Labels of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// A head was not whole in time.
    SlowHead,
    /// A body brought too little.
    SlowBody,
    /// The client takes nothing of what is sent.
    SlowReader,
    /// There was no request for long.
    Idle,
    /// Too many requests were taken back.
    Resets,
}

impl Closed {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Resets => "resets",
        }
    }
}

/// What is known of a connection at a look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) phase: Phase,
    /// Heads seen whole.
    pub(super) heads: u32,
    /// Streams are framed by HTTP/2.
    pub(super) http2: bool,
    /// Requests in progress.
    pub(super) in_flight: u32,
    /// Bodies that wait for the client and must hurry.
    pub(super) uploading: u32,
    /// A write waits for the client.
    pub(super) blocked: bool,
    /// Bytes read and written.
    pub(super) read: u64,
    pub(super) written: u64,
}

/// Since when something lasts, and the count it began with.
type Since = Option<(Duration, u64)>;

/// What the looks before saw.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watch {
    head: Since,
    body: Since,
    write: Since,
    idle: Since,
}

impl Watch {
    /// Looks once. `now` counts from any fixed point.
    pub(super) fn look(&mut self, now: Duration, seen: Reading, limits: &Limits) -> Option<Closed> {
        let over = |since: Duration, limit: Duration| now.saturating_sub(since) + TICK >= limit;
        let heads = u64::from(seen.heads);
        // What is sent ahead of an answer is not read before it.
        let in_head =
            seen.in_flight == 0 && (seen.phase == Phase::Head || (seen.heads == 0 && !seen.http2));
        match lasting(&mut self.head, in_head, now, heads) {
            Some((_, begun)) if begun != heads => self.head = Some((now, heads)),
            Some((since, _)) if over(since, limits.head) => return Some(Closed::SlowHead),
            _ => {}
        }
        if let Some((since, begun)) = lasting(&mut self.body, seen.uploading > 0, now, seen.read)
            && over(since, limits.body)
        {
            if seen.read - begun < LEAST_BODY {
                return Some(Closed::SlowBody);
            }
            self.body = Some((now, seen.read));
        }
        if let Some((since, begun)) = lasting(&mut self.write, seen.blocked, now, seen.written) {
            if begun != seen.written {
                self.write = Some((now, seen.written));
            } else if over(since, limits.write) {
                return Some(Closed::SlowReader);
            }
        }
        let idle = seen.in_flight == 0 && !in_head;
        if let Some((since, begun)) = lasting(&mut self.idle, idle, now, heads) {
            // A request may have come and gone between two looks.
            if begun != heads {
                self.idle = Some((now, heads));
            } else if over(since, limits.idle) {
                self.idle = Some((now, heads));
                return Some(Closed::Idle);
            }
        }
        None
    }
}

/// Keeps since when `holds` has held.
fn lasting(since: &mut Since, holds: bool, now: Duration, count: u64) -> Since {
    match holds {
        true => Some(*since.get_or_insert((now, count))),
        false => {
            *since = None;
            None
        }
    }
}

/// Whether a client takes back so many requests that it can only mean harm (rapid reset,
/// CVE-2023-44487): over the limit, and at least every other one.
pub(super) fn too_many_resets(resets: u32, requests: u32, limits: &Limits) -> bool {
    limits.max_resets > 0 && resets >= limits.max_resets && resets >= requests / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::options::ProxyOptions;

    const BUSY: Reading = Reading {
        phase: Phase::Body,
        heads: 1,
        http2: false,
        in_flight: 1,
        uploading: 0,
        blocked: false,
        read: 100,
        written: 0,
    };

    /// When looks at what `reading` gives for each tick find enough, in seconds.
    fn closed(reading: impl Fn(u64) -> Reading) -> Option<(f64, Closed)> {
        let limits = Limits::from(&ProxyOptions::default());
        let mut watch = Watch::default();
        (0..2000).find_map(|tick| {
            let now = TICK * tick;
            let closed = watch.look(now, reading(u64::from(tick)), &limits)?;
            Some((now.as_secs_f64(), closed))
        })
    }

    fn about(closed: Option<(f64, Closed)>, seconds: f64, what: Closed) {
        let (at, closed) = closed.expect("it is closed");
        assert_eq!(closed, what);
        assert!(at <= seconds && at >= seconds - 1.0, "after {at} s");
    }

    #[test]
    fn a_head_must_be_whole_in_ten_seconds_whatever_drips_in() {
        let slow = |phase, heads| {
            move |tick| Reading {
                phase,
                heads,
                in_flight: 0,
                read: tick,
                ..BUSY
            }
        };
        about(closed(slow(Phase::Idle, 0)), 10.0, Closed::SlowHead);
        about(closed(slow(Phase::Head, 0)), 10.0, Closed::SlowHead);
        about(closed(slow(Phase::Head, 7)), 10.0, Closed::SlowHead);
    }

    #[test]
    fn part_of_a_head_behind_a_request_is_timed_once_that_is_answered() {
        let pipelined = |tick| Reading {
            phase: Phase::Head,
            in_flight: u32::from(tick < 100),
            ..BUSY
        };
        about(closed(pipelined), 60.0, Closed::SlowHead);
    }

    #[test]
    fn a_connection_without_a_request_is_kept_for_a_while() {
        let idle = |_| Reading {
            phase: Phase::Idle,
            in_flight: 0,
            ..BUSY
        };
        about(closed(idle), 75.0, Closed::Idle);
        let used = |tick| Reading {
            phase: Phase::Idle,
            in_flight: 0,
            heads: 1 + tick as u32 / 100,
            ..BUSY
        };
        assert_eq!(closed(used), None);
    }

    #[test]
    fn a_body_that_drips_is_not_waited_for() {
        let drip = |tick| Reading {
            uploading: 1,
            read: tick,
            ..BUSY
        };
        about(closed(drip), 30.0, Closed::SlowBody);
        let slow_but_steady = |tick| Reading {
            uploading: 1,
            read: tick * 50,
            ..BUSY
        };
        assert_eq!(closed(slow_but_steady), None);
    }

    #[test]
    fn a_client_that_reads_nothing_is_closed_and_one_that_reads_is_not() {
        let stuck = |_| Reading {
            blocked: true,
            written: 5,
            ..BUSY
        };
        about(closed(stuck), 30.0, Closed::SlowReader);
        let reads = |tick| Reading {
            blocked: true,
            written: tick,
            ..BUSY
        };
        assert_eq!(closed(reads), None);
    }

    #[test]
    fn a_request_in_progress_is_never_idle() {
        assert_eq!(closed(|_| BUSY), None);
    }

    #[test]
    fn resets_count_only_when_they_are_most_of_all() {
        let limits = Limits::from(&ProxyOptions::default());
        assert!(too_many_resets(200, 200, &limits));
        assert!(!too_many_resets(199, 199, &limits));
        assert!(!too_many_resets(200, 1000, &limits));
    }
}
