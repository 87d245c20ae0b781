//! Limits on refused attempts by peer. PURE.
//!
//! A peer has a budget that each refused attempt takes one from and that time refills. Valid
//! credentials are never limited, so that nobody locks out a neighbour behind the same address.
//!
//! Laws: within any span a peer has at most `BURST` plus the refill of the span; memory is bounded,
//! whatever addresses appear.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::domain::Timestamp;

/// Attempts that a peer has at once.
const BURST: u32 = 20;
/// Time in which one attempt is refilled.
const REFILL: Duration = Duration::from_secs(3);
/// Peers that are remembered. Beyond it, those that could attempt most are forgotten.
const PEERS_MAX: usize = 10_000;

/// The budgets of all peers.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// The time at which the peer has its whole budget again.
    full_at: HashMap<IpAddr, Timestamp>,
}

/// The network that an address belongs to: whoever has one IPv6 address has its whole /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let high = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(high))
        }
        v4 => v4,
    }
}

impl Attempts {
    /// Takes one attempt. The error is the time until the peer has another one.
    pub(crate) fn take(&mut self, peer: IpAddr, now: Timestamp) -> Result<(), Duration> {
        let peer = network(peer);
        let full_at = self.available(peer, now)?;
        if self.full_at.len() >= PEERS_MAX && !self.full_at.contains_key(&peer) {
            self.forget(now);
        }
        self.full_at.insert(peer, full_at.plus(REFILL));
        Ok(())
    }

    /// Checks that the peer has an attempt. The error is the time until it has one.
    pub(crate) fn check(&self, peer: IpAddr, now: Timestamp) -> Result<(), Duration> {
        self.available(network(peer), now).map(|_| ())
    }

    /// The time at which the peer has its whole budget again, if it has an attempt now.
    fn available(&self, peer: IpAddr, now: Timestamp) -> Result<Timestamp, Duration> {
        let full_at = self.full_at.get(&peer).copied().unwrap_or(now).max(now);
        let missing = now.until(full_at.plus(REFILL));
        match missing.checked_sub(REFILL * BURST) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(full_at),
        }
    }

    /// Forgets the peers with a whole budget, else the half that is nearest to it.
    fn forget(&mut self, now: Timestamp) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() < PEERS_MAX {
            return;
        }
        let mut times: Vec<Timestamp> = self.full_at.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.full_at.retain(|_, full_at| *full_at > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000).plus(Duration::from_millis(millis))
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_burst_is_permitted_and_then_one_for_each_refill() {
        let mut attempts = Attempts::default();
        for _ in 0..BURST {
            assert_eq!(attempts.take(peer(1), at(0)), Ok(()));
        }
        assert_eq!(attempts.check(peer(1), at(0)), Err(REFILL));
        assert_eq!(attempts.take(peer(1), at(0)), Err(REFILL));
        assert_eq!(attempts.check(peer(2), at(0)), Ok(()));
        assert_eq!(attempts.take(peer(2), at(0)), Ok(()));
        assert_eq!(
            attempts.take(peer(1), at(1000)),
            Err(Duration::from_secs(2))
        );
        assert_eq!(attempts.take(peer(1), at(3000)), Ok(()));
        assert!(attempts.take(peer(1), at(3000)).is_err());
    }

    #[test]
    fn one_network_has_one_budget() {
        let mut attempts = Attempts::default();
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, last]);
        for last in 0..u16::try_from(BURST).expect("small") {
            assert_eq!(attempts.take(v6(last), at(0)), Ok(()));
        }
        assert!(attempts.take(v6(999), at(0)).is_err());
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        for _ in 0..BURST {
            assert_eq!(attempts.take(mapped, at(0)), Ok(()));
        }
        assert!(attempts.take(peer(1), at(0)).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let mut attempts = Attempts::default();
        for number in 0..3 * u32::try_from(PEERS_MAX).expect("small") {
            let _ = attempts.take(IpAddr::from(number.to_be_bytes()), at(0));
        }
        assert!(attempts.full_at.len() <= PEERS_MAX);
    }

    proptest! {
        #[test]
        fn a_span_has_at_most_a_burst_and_its_refill(
            steps in proptest::collection::vec(0..5000_u64, 1..200),
        ) {
            let mut attempts = Attempts::default();
            let (mut time, mut taken) = (0, 0_u128);
            for step in steps {
                time += step;
                taken += u128::from(attempts.take(peer(1), at(time)).is_ok());
            }
            prop_assert!(taken <= u128::from(BURST) + u128::from(time) / REFILL.as_millis());
        }
    }
}
