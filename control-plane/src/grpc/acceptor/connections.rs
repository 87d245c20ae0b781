//! The number of connections, in all and by peer. PURE.
//!
//! A peer is an IPv4 address or an IPv6 /64, of which one machine has many addresses.
//!
//! Law: no count exceeds its limit, and what was admitted and released leaves nothing behind.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Connections in all.
    pub(super) total: usize,
    /// Connections of a peer. Nodes and clients behind one address share it.
    pub(super) per_peer: usize,
    /// Connections in all that have not ended their handshake.
    pub(super) handshakes: usize,
    /// Connections of a peer that have not ended their handshake.
    pub(super) handshakes_per_peer: usize,
}

/// Descriptors for the database, files and outgoing connections.
const RESERVED_DESCRIPTORS: usize = 256;

impl Limits {
    /// The limits of a process that may open this many descriptors.
    pub(super) fn of(descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let free = descriptors.saturating_sub(RESERVED_DESCRIPTORS);
        let total = free.clamp(64, 16_384);
        Self {
            total,
            per_peer: (total / 2).min(4096),
            handshakes: (total / 4).min(1024),
            handshakes_per_peer: (total / 8).min(256),
        }
    }
}

/// The limit that a connection would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub(super) enum LimitReached {
    #[error("too many connections in all")]
    Total,
    #[error("too many connections of one peer")]
    Peer,
    #[error("too many handshakes in all")]
    Handshakes,
    #[error("too many handshakes of one peer")]
    PeerHandshakes,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    connections: usize,
    handshakes: usize,
}

/// The open connections.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    limits: Limits,
    total: Count,
    peers: HashMap<IpAddr, Count>,
}

impl ConnectionTable {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            total: Count::default(),
            peers: HashMap::new(),
        }
    }

    /// Admits a connection in its handshake.
    pub(super) fn admit(&mut self, from: IpAddr) -> Result<(), LimitReached> {
        let key = peer_key(from);
        let of_peer = self.peers.get(&key).copied().unwrap_or_default();
        let limits = &self.limits;
        for (count, limit, reached) in [
            (self.total.connections, limits.total, LimitReached::Total),
            (of_peer.connections, limits.per_peer, LimitReached::Peer),
            (
                of_peer.handshakes,
                limits.handshakes_per_peer,
                LimitReached::PeerHandshakes,
            ),
            (
                self.total.handshakes,
                limits.handshakes,
                LimitReached::Handshakes,
            ),
        ] {
            if count >= limit {
                return Err(reached);
            }
        }
        self.total.connections += 1;
        self.total.handshakes += 1;
        let of_peer = self.peers.entry(key).or_default();
        of_peer.connections += 1;
        of_peer.handshakes += 1;
        Ok(())
    }

    /// Ends the handshake of an admitted connection.
    pub(super) fn established(&mut self, from: IpAddr) {
        self.total.handshakes -= 1;
        if let Some(of_peer) = self.peers.get_mut(&peer_key(from)) {
            of_peer.handshakes -= 1;
        }
    }

    /// Ends an established connection.
    pub(super) fn release(&mut self, from: IpAddr) {
        self.total.connections -= 1;
        let key = peer_key(from);
        if let Some(of_peer) = self.peers.get_mut(&key) {
            of_peer.connections -= 1;
            if of_peer.connections == 0 {
                self.peers.remove(&key);
            }
        }
    }
}

fn peer_key(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        total: 9,
        per_peer: 5,
        handshakes: 6,
        handshakes_per_peer: 3,
    };

    fn peer(n: u8) -> IpAddr {
        match n {
            0 | 1 => IpAddr::from([10, 0, 0, n]),
            // Two addresses of one /64, and one of another.
            _ => format!("2001:db8:0:{}::{n}", n / 4).parse().unwrap(),
        }
    }

    proptest! {
        #[test]
        fn no_limit_is_exceeded_and_nothing_is_left(
            steps in prop::collection::vec((0..5_u8, 0..3_u8, any::<prop::sample::Index>()), 0..200)
        ) {
            let mut table = ConnectionTable::new(LIMITS);
            let (mut shaking, mut open) = (Vec::new(), Vec::new());
            for (from, step, which) in steps {
                match step {
                    0 => if table.admit(peer(from)).is_ok() {
                        shaking.push(peer(from));
                    },
                    1 if !shaking.is_empty() => {
                        let from = shaking.swap_remove(which.index(shaking.len()));
                        table.established(from);
                        open.push(from);
                    }
                    2 if !open.is_empty() => {
                        table.release(open.swap_remove(which.index(open.len())));
                    }
                    _ => {}
                }
                prop_assert!(shaking.len() <= LIMITS.handshakes);
                prop_assert!(shaking.len() + open.len() <= LIMITS.total);
                for from in 0..5 {
                    let key = peer_key(peer(from));
                    let of = |list: &[IpAddr]| list.iter().filter(|ip| peer_key(**ip) == key).count();
                    prop_assert!(of(&shaking) <= LIMITS.handshakes_per_peer);
                    prop_assert!(of(&shaking) + of(&open) <= LIMITS.per_peer);
                }
            }
            for from in shaking {
                table.established(from);
                open.push(from);
            }
            for from in open {
                table.release(from);
            }
            prop_assert_eq!(table.total, Count::default());
            prop_assert!(table.peers.is_empty());
        }
    }

    #[test]
    fn a_peer_at_its_limit_leaves_room_for_others() {
        let mut table = ConnectionTable::new(LIMITS);
        for _ in 0..LIMITS.handshakes_per_peer {
            table.admit(peer(0)).unwrap();
        }
        assert_eq!(table.admit(peer(0)), Err(LimitReached::PeerHandshakes));
        let mapped = "::ffff:10.0.0.0".parse().unwrap();
        assert_eq!(table.admit(mapped), Err(LimitReached::PeerHandshakes));
        table.admit(peer(1)).unwrap();
    }

    #[test]
    fn the_limits_of_a_process_fit_its_descriptors() {
        for descriptors in [0, 256, 1024, 4096, 20_000, 1 << 20, u64::MAX] {
            let limits = Limits::of(descriptors);
            assert!(limits.handshakes_per_peer < limits.handshakes, "{limits:?}");
            assert!(limits.handshakes < limits.per_peer, "{limits:?}");
            assert!(limits.per_peer < limits.total, "{limits:?}");
        }
        assert_eq!(Limits::of(1024).total, 768);
    }
}
