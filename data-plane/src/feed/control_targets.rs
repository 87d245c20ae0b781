//! The control planes to keep a control stream to. PURE.
//!
//! A control plane announces the addresses of all of them. A configured address may be a balancer or
//! a second name of an announced one, and two streams to one control plane would end each other. So
//! the announced addresses replace the configured ones once a stream to one of them is open; until
//! then, and if none can be reached from this node, both are tried.
//!
//! Laws: while any address is known, at least one is wanted. Every announced address is wanted. A
//! configured one is wanted unless an announced one is open. The number is bounded.

use crate::enrollment::PlaneAddress;
use std::collections::BTreeSet;

/// Announced addresses that are used; a cluster has a few control planes.
const ANNOUNCED_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct ControlTargets {
    configured: BTreeSet<PlaneAddress>,
    announced: BTreeSet<PlaneAddress>,
    open: BTreeSet<PlaneAddress>,
}

impl ControlTargets {
    pub(super) fn new(configured: impl IntoIterator<Item = PlaneAddress>) -> Self {
        Self {
            configured: configured.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Takes an announcement, which replaces the one before. An empty one is none: a control plane
    /// of one process may announce nothing.
    pub(super) fn announce(&mut self, addresses: impl IntoIterator<Item = PlaneAddress>) {
        let addresses: BTreeSet<_> = addresses.into_iter().take(ANNOUNCED_MAX).collect();
        if !addresses.is_empty() {
            self.announced = addresses;
        }
    }

    pub(super) fn opened(&mut self, address: PlaneAddress) {
        self.open.insert(address);
    }

    pub(super) fn closed(&mut self, address: &PlaneAddress) {
        self.open.remove(address);
    }

    /// The addresses that a stream is kept to.
    pub(super) fn wanted(&self) -> BTreeSet<PlaneAddress> {
        let mut wanted = self.announced.clone();
        if self.announced.is_disjoint(&self.open) {
            wanted.extend(self.configured.iter().cloned());
        }
        wanted
    }

    /// All addresses that are known.
    pub(super) fn known(&self) -> BTreeSet<PlaneAddress> {
        self.configured.union(&self.announced).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(number: u8) -> PlaneAddress {
        PlaneAddress::announced(&format!("https://plane-{number}:7070")).expect("an address")
    }

    fn set(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<PlaneAddress> {
        numbers.into_iter().map(address).collect()
    }

    #[test]
    fn announced_addresses_replace_a_balancer_once_one_is_open() {
        let mut targets = ControlTargets::new([address(0)]);
        assert_eq!(targets.wanted(), set([0]));
        targets.opened(address(0));
        targets.announce([]);
        assert_eq!(targets.wanted(), set([0]));
        targets.announce([address(1), address(2)]);
        assert_eq!(targets.wanted(), set([0, 1, 2]));
        targets.opened(address(1));
        assert_eq!(targets.wanted(), set([1, 2]));
        targets.closed(&address(1));
        assert_eq!(targets.wanted(), set([0, 1, 2]));
        assert_eq!(targets.known(), set([0, 1, 2]));
    }

    proptest! {
        #[test]
        fn laws(configured in prop::collection::vec(0u8..4, 1..4), events in prop::collection::vec((0u8..3, prop::collection::vec(0u8..60, 0..50)), 0..20)) {
            let mut targets = ControlTargets::new(configured.iter().copied().map(address));
            for (kind, numbers) in events {
                match (kind, numbers.first()) {
                    (0, _) => targets.announce(numbers.into_iter().map(address)),
                    (1, Some(number)) => targets.opened(address(*number)),
                    (_, Some(number)) => targets.closed(&address(*number)),
                    (_, None) => {}
                }
                let wanted = targets.wanted();
                prop_assert!(!wanted.is_empty());
                prop_assert!(wanted.is_superset(&targets.announced));
                prop_assert!(wanted.is_subset(&targets.known()));
                prop_assert!(wanted.len() <= ANNOUNCED_MAX + configured.len());
                let none_open = targets.announced.is_disjoint(&targets.open);
                prop_assert_eq!(none_open, wanted.is_superset(&targets.configured) && none_open);
            }
        }
    }
}
