//! The order in which waiting starts get the node's permits. Pure.
//!
//! ```text
//!   class        Awaited  callers or an operator wait for it
//!                Refill   min_instances and sandboxes: nobody waits
//!   rank         First    the version has no instance, and its last start did not fail
//!                Further  a second instance, or a retry
//!   fairness     the client with the fewest permits, then the one whose last permit is the oldest
//!                the service likewise
//!                the start that waits longest
//! ```
//!
//! Reserves keep a permit for a newcomer and the processors free for it, because a start takes several
//! times its usual time beside others (two cores, milliseconds: 300 alone, 310 beside one, 560 beside
//! three):
//! - the last free permit goes only to an awaited start of a client that holds none;
//! - while several clients hold permits, only a client without one gets more than half of all;
//! - refills hold at most half of the permits, and get none beyond half of all while a client holds one.
//!
//! A start that several clients wait for is charged to the one that comes first in the order. So
//! nobody delays a service by waking it.
//!
//! Laws (tested below): class before rank before fairness among the starts that may have the
//! permit; the limit and the reserves hold; a start waits for ever only if the node starts nothing;
//! services that wait in the same class, rank and client hold
//! equally many permits and take turns; a client without a permit
//! gets the next one, however many starts another client waits for.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Permits after which the turn of an idle client or service is forgotten.
const REMEMBERED: u64 = 256;

/// A client by its address. An IPv6 client is its /64 network, in which it chooses addresses freely
/// (RFC 4291 section 2.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Self(Ipv6Addr::from_bits(network).into())
            }
            v4 => Self(v4),
        }
    }
}

/// The part of a start's rank that its pool knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The version has no instance, and its last start did not fail.
    First,
    /// A second instance, or a retry.
    Further,
}

/// A start that waits for a permit.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) service: &'a Arc<str>,
    pub(super) rank: Rank,
    /// Those who wait for it; `None` is an unknown client, or the node's operator. Empty for a
    /// refill.
    pub(super) callers: Vec<Option<Client>>,
    /// Increases from start to start.
    pub(super) arrived: u64,
}

/// A permit in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    service: Arc<str>,
    /// The client it is charged to; `None` for a refill.
    client: Option<Option<Client>>,
}

/// The permits in use.
#[derive(Debug)]
pub(super) struct StartOrder {
    limit: usize,
    used: usize,
    refills: usize,
    grants: u64,
    clients: HashMap<Option<Client>, Share>,
    services: HashMap<Arc<str>, Share>,
}

/// One client's or service's use of the permits. The least comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Share {
    held: usize,
    /// The number of its last grant; 0 if it had none, or long ago.
    last: u64,
}

type Key = (bool, Rank, Share, Share, u64);

impl StartOrder {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            used: 0,
            refills: 0,
            grants: 0,
            clients: HashMap::new(),
            services: HashMap::new(),
        }
    }

    /// Whether no start can get a permit.
    pub(super) fn is_full(&self) -> bool {
        self.used >= self.limit
    }

    /// Takes a permit for the start that comes next; returns its index among the candidates. `None`
    /// if none of them may have one now.
    pub(super) fn grant(&mut self, candidates: &[Candidate<'_>]) -> Option<(usize, Grant)> {
        let holders = self.clients.values().filter(|share| share.held > 0).count();
        let keys = candidates.iter().enumerate().filter_map(|(index, one)| {
            let (key, client) = self.key(one, holders)?;
            Some((key, index, client))
        });
        let (_, index, client) = keys.min_by_key(|(key, ..)| *key)?;
        let grant = Grant {
            service: candidates[index].service.clone(),
            client,
        };
        self.take(&grant);
        Some((index, grant))
    }

    /// Returns a permit.
    pub(super) fn release(&mut self, grant: &Grant) {
        self.used -= 1;
        self.refills -= usize::from(grant.client.is_none());
        release(&mut self.services, &grant.service);
        if let Some(client) = &grant.client {
            release(&mut self.clients, client);
        }
    }

    fn take(&mut self, grant: &Grant) {
        self.used += 1;
        self.refills += usize::from(grant.client.is_none());
        self.grants += 1;
        let now = self.grants;
        let share = |share: Share| Share {
            held: share.held + 1,
            last: now,
        };
        let service = self.services.entry(grant.service.clone()).or_default();
        *service = share(*service);
        if let Some(client) = grant.client {
            let client = self.clients.entry(client).or_default();
            *client = share(*client);
        }
        let remembered = |share: &Share| share.held > 0 || now - share.last < REMEMBERED;
        self.clients.retain(|_, share| remembered(share));
        self.services.retain(|_, share| remembered(share));
    }

    /// The place of a candidate in the order, and the client to charge; `None` if it may not have a
    /// permit now. `holders`: the clients that hold permits.
    fn key(&self, one: &Candidate<'_>, holders: usize) -> Option<(Key, Option<Option<Client>>)> {
        let left = self.limit.saturating_sub(self.used);
        let half = (self.limit / 2).max(1);
        let service = self.services.get(one.service).copied().unwrap_or_default();
        let rank = match service.held {
            0 => one.rank,
            _ => Rank::Further,
        };
        let shares = one.callers.iter().map(|client| {
            let share = self.clients.get(client).copied().unwrap_or_default();
            (share, *client)
        });
        match shares.min() {
            Some((share, client)) => {
                let may = match share.held {
                    0 => left > 0,
                    _ => left > 1 && (holders == 1 || self.used < half),
                };
                let key = (false, rank, share, service, one.arrived);
                may.then_some((key, Some(client)))
            }
            None => {
                let may = self.refills < half
                    && left > usize::from(self.limit > 1)
                    && (holders == 0 || self.used < half);
                let key = (true, rank, Share::default(), service, one.arrived);
                may.then_some((key, None))
            }
        }
    }
}

fn release<K: Eq + Hash>(shares: &mut HashMap<K, Share>, key: &K) {
    if let Some(share) = shares.get_mut(key) {
        share.held -= 1;
    }
}

#[cfg(test)]
mod tests;
