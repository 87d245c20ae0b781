//! Time limits of a client's connection. Pure: counters and the time in, a verdict out.
//!
//! A worker checks each connection at every [`TICK`] and compares its counters with those of the
//! previous check, so the path of a request sets no timer and reads no clock for these limits. A
//! limit is kept to within one tick, on the early side.

use std::time::Duration;

use crate::proxy::options::Limits;
use crate::proxy::wire::h1_framing::ReadPhase;

pub(crate) const TICK: Duration = Duration::from_millis(500);

/// Bytes that a request body must bring in each span of its time limit.
const MIN_BODY_BYTES: u64 = 1024;

/// The reason why the proxy closes a client's connection. A metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// A head was not complete in time.
    SlowHead,
    /// A body brought too few bytes.
    SlowBody,
    /// The client reads nothing of the response.
    SlowReader,
    /// There was no request for too long.
    Idle,
    /// The client cancelled too many requests.
    Resets,
}

impl CloseReason {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Resets => "resets",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnSnapshot {
    pub(crate) phase: ReadPhase,
    pub(crate) heads: u32,
    pub(crate) is_http2: bool,
    pub(crate) in_flight: u32,
    /// Request bodies with a minimum rate that wait for the client.
    pub(crate) uploading: u32,
    /// A write waits for the client.
    pub(crate) blocked: bool,
    /// Bytes read and written.
    pub(crate) read: u64,
    pub(crate) written: u64,
}

/// The start of a condition that still holds, and the counter at that time.
type Since = Option<(Duration, u64)>;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConnTimeouts {
    head: Since,
    body: Since,
    write: Since,
    idle: Since,
}

impl ConnTimeouts {
    /// Checks all limits. `now` counts from any fixed point.
    pub(crate) fn check(
        &mut self,
        now: Duration,
        conn: ConnSnapshot,
        limits: &Limits,
    ) -> Option<CloseReason> {
        let over = |since: Duration, limit: Duration| now.saturating_sub(since) + TICK >= limit;
        let heads = u64::from(conn.heads);
        // Bytes sent ahead of a response are not read before it.
        let in_head = conn.in_flight == 0
            && (conn.phase == ReadPhase::Head || (conn.heads == 0 && !conn.is_http2));
        match track(&mut self.head, in_head, now, heads) {
            Some((_, begun)) if begun != heads => self.head = Some((now, heads)),
            Some((since, _)) if over(since, limits.head) => return Some(CloseReason::SlowHead),
            _ => {}
        }
        if let Some((since, begun)) = track(&mut self.body, conn.uploading > 0, now, conn.read)
            && over(since, limits.body)
        {
            if conn.read - begun < MIN_BODY_BYTES {
                return Some(CloseReason::SlowBody);
            }
            self.body = Some((now, conn.read));
        }
        if let Some((since, begun)) = track(&mut self.write, conn.blocked, now, conn.written) {
            if begun != conn.written {
                self.write = Some((now, conn.written));
            } else if over(since, limits.write) {
                return Some(CloseReason::SlowReader);
            }
        }
        let idle = conn.in_flight == 0 && !in_head;
        if let Some((since, begun)) = track(&mut self.idle, idle, now, heads) {
            // A request may have come and gone between two checks.
            if begun != heads {
                self.idle = Some((now, heads));
            } else if over(since, limits.idle) {
                self.idle = Some((now, heads));
                return Some(CloseReason::Idle);
            }
        }
        None
    }
}

fn track(since: &mut Since, holds: bool, now: Duration, count: u64) -> Since {
    match holds {
        true => Some(*since.get_or_insert((now, count))),
        false => {
            *since = None;
            None
        }
    }
}

/// Whether a client cancels requests to do harm (rapid reset, CVE-2023-44487): more than the limit,
/// and at least every second one.
pub(crate) fn too_many_resets(resets: u32, requests: u32, limits: &Limits) -> bool {
    limits.max_resets > 0 && resets >= limits.max_resets && resets >= requests / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::options::ProxyOptions;

    const BUSY: ConnSnapshot = ConnSnapshot {
        phase: ReadPhase::Body,
        heads: 1,
        is_http2: false,
        in_flight: 1,
        uploading: 0,
        blocked: false,
        read: 100,
        written: 0,
    };

    /// The seconds after which checks of `reading` at each tick close the connection.
    fn closed(reading: impl Fn(u64) -> ConnSnapshot) -> Option<(f64, CloseReason)> {
        let limits = Limits::from(&ProxyOptions::default());
        let mut timeouts = ConnTimeouts::default();
        (0..2000).find_map(|tick| {
            let now = TICK * tick;
            let closed = timeouts.check(now, reading(u64::from(tick)), &limits)?;
            Some((now.as_secs_f64(), closed))
        })
    }

    fn about(closed: Option<(f64, CloseReason)>, seconds: f64, reason: CloseReason) {
        let (at, closed) = closed.expect("closed");
        assert_eq!(closed, reason);
        assert!(at <= seconds && at >= seconds - 1.0, "after {at} s");
    }

    #[test]
    fn a_head_must_be_complete_in_ten_seconds_even_if_bytes_arrive() {
        let slow = |phase, heads| {
            move |tick| ConnSnapshot {
                phase,
                heads,
                in_flight: 0,
                read: tick,
                ..BUSY
            }
        };
        about(
            closed(slow(ReadPhase::Idle, 0)),
            10.0,
            CloseReason::SlowHead,
        );
        about(
            closed(slow(ReadPhase::Head, 0)),
            10.0,
            CloseReason::SlowHead,
        );
        about(
            closed(slow(ReadPhase::Head, 7)),
            10.0,
            CloseReason::SlowHead,
        );
    }

    #[test]
    fn a_pipelined_partial_head_is_timed_after_the_response() {
        let pipelined = |tick| ConnSnapshot {
            phase: ReadPhase::Head,
            in_flight: u32::from(tick < 100),
            ..BUSY
        };
        about(closed(pipelined), 60.0, CloseReason::SlowHead);
    }

    #[test]
    fn a_connection_without_requests_is_closed_as_idle() {
        let idle = |_| ConnSnapshot {
            phase: ReadPhase::Idle,
            in_flight: 0,
            ..BUSY
        };
        about(closed(idle), 75.0, CloseReason::Idle);
        let used = |tick| ConnSnapshot {
            phase: ReadPhase::Idle,
            in_flight: 0,
            heads: 1 + tick as u32 / 100,
            ..BUSY
        };
        assert_eq!(closed(used), None);
    }

    #[test]
    fn a_slow_request_body_is_closed() {
        let drip = |tick| ConnSnapshot {
            uploading: 1,
            read: tick,
            ..BUSY
        };
        about(closed(drip), 30.0, CloseReason::SlowBody);
        let slow_but_steady = |tick| ConnSnapshot {
            uploading: 1,
            read: tick * 50,
            ..BUSY
        };
        assert_eq!(closed(slow_but_steady), None);
    }

    #[test]
    fn only_a_client_that_reads_nothing_is_closed() {
        let stuck = |_| ConnSnapshot {
            blocked: true,
            written: 5,
            ..BUSY
        };
        about(closed(stuck), 30.0, CloseReason::SlowReader);
        let reads = |tick| ConnSnapshot {
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
    fn resets_count_only_if_they_are_half_of_all_requests() {
        let limits = Limits::from(&ProxyOptions::default());
        assert!(too_many_resets(200, 200, &limits));
        assert!(!too_many_resets(199, 199, &limits));
        assert!(!too_many_resets(200, 1000, &limits));
    }
}
