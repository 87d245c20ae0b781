//! The limit on the versions that one client wakes at a time.
//!
//! A wake begins when a client waits for a version that has no instance, and lasts until the version
//! has one or the node starts none for it. It counts once, however many requests of the client wait
//! for that version, and also if the client leaves: the start that it caused goes on.
//!
//! [`start_order`](crate::engine::start_order) already keeps one client's wakes from delaying
//! another's. This limit bounds the containers that one client can cause.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::start_order::Client;

/// The clients whose wakes one version counts. A version that so many addresses wake at once is
/// popular; more are not counted.
const MAX_COUNTED: usize = 1024;

/// The wakes of all clients of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct WakeLimits {
    /// 0: no limit.
    max: usize,
    by_client: Arc<Mutex<HashMap<Client, usize>>>,
}

/// A counted wake, until this is dropped.
#[derive(Debug)]
struct Wake {
    limits: WakeLimits,
    client: Client,
}

/// The clients that wake one version.
#[derive(Debug)]
pub(super) struct Wakers {
    limits: WakeLimits,
    wakes: Mutex<HashMap<Client, Wake>>,
}

impl WakeLimits {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            by_client: Arc::default(),
        }
    }

    fn begin(&self, client: Client) -> Option<Wake> {
        let mut by_client = self.by_client.lock();
        let count = by_client.entry(client).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Wake {
            limits: self.clone(),
            client,
        })
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        let mut by_client = self.limits.by_client.lock();
        if let Some(count) = by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

impl Wakers {
    pub(super) fn new(limits: WakeLimits) -> Self {
        Self {
            limits,
            wakes: Mutex::default(),
        }
    }

    /// Counts the version as woken by this client. False if the client has reached the limit.
    pub(super) fn begin(&self, client: Client) -> bool {
        let mut wakes = self.wakes.lock();
        if self.limits.max == 0 || wakes.contains_key(&client) || wakes.len() >= MAX_COUNTED {
            return true;
        }
        let wake = self.limits.begin(client);
        let is_counted = wake.is_some();
        wakes.extend(wake.map(|wake| (client, wake)));
        is_counted
    }

    /// Ends all wakes of the version if `over`, which no request can change while it is evaluated:
    /// a request counts as waiting before it begins a wake.
    pub(super) fn end_if(&self, over: impl FnOnce() -> bool) {
        let mut wakes = self.wakes.lock();
        if over() {
            wakes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    proptest! {
        #[test]
        fn a_client_wakes_no_more_versions_at_a_time_than_its_limit(
            max in 1usize..5,
            steps in proptest::collection::vec((0usize..8, proptest::option::of(0u8..3)), 1..100),
        ) {
            let limits = WakeLimits::new(max);
            let versions: Vec<_> = (0..8).map(|_| Wakers::new(limits.clone())).collect();
            let mut woken: Vec<Vec<u8>> = vec![Vec::new(); 8];
            for (version, client) in steps {
                let Some(host) = client else {
                    versions[version].end_if(|| true);
                    woken[version].clear();
                    continue;
                };
                let of = woken.iter().filter(|clients| clients.contains(&host)).count();
                let known = woken[version].contains(&host);
                let begun = versions[version].begin(IpAddr::from([192, 0, 2, host]).into());
                prop_assert_eq!(begun, known || of < max);
                if begun && !known {
                    woken[version].push(host);
                }
            }
            drop(versions);
            prop_assert!(limits.by_client.lock().is_empty());
        }
    }

    #[test]
    fn a_limit_of_0_is_none() {
        let wakers = Wakers::new(WakeLimits::new(0));
        assert!(wakers.begin(IpAddr::from([192, 0, 2, 1]).into()));
    }
}
