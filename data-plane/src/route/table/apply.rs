//! Applies a change: withdraws, admits and quarantines routes. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Candidate, Change, EntryState, HostEntry, Quarantined, RouteEntry, Scope, Table};
use crate::route::Route;
use crate::route::host_map::HostMap;

impl Table {
    /// The table after a change.
    ///
    /// The cursor is taken as given: the caller has verified count and digest.
    #[must_use]
    pub fn apply(&self, change: Change) -> Self {
        let Change {
            cluster,
            cursor,
            scope,
            mut upserts,
            removed,
        } = change;
        let mut next = match scope {
            Scope::Snapshot => Self {
                hosts: HostMap::with_capacity_and_hasher(
                    self.hosts.len().max(upserts.len()),
                    Default::default(),
                ),
                entries: HashMap::with_capacity(upserts.len()),
                ..Self::default()
            },
            Scope::Delta => {
                let mut next = Self {
                    hosts: self.hosts.clone(),
                    entries: self.entries.clone(),
                    ..Self::default()
                };
                for uid in removed
                    .iter()
                    .chain(upserts.iter().map(|upsert| &upsert.service_uid))
                {
                    next.withdraw(uid);
                }
                self.retry_quarantined(&mut next, &mut upserts);
                next
            }
        };
        next.cluster = cluster;
        next.cursor = cursor;

        // Serving routes go first, so that a new route cannot take their hosts.
        upserts.sort_by_cached_key(|upsert| {
            let serves = self
                .entry(&upsert.service_uid)
                .is_some_and(|entry| entry.is_good());
            (!serves, upsert.service_uid.clone())
        });
        let mut held = Vec::new();
        for upsert in upserts {
            match &upsert.decoded {
                Ok(route) => match next.conflict(route) {
                    None => next.admit(self, upsert),
                    Some(reason) => held.push((upsert, reason)),
                },
                Err(reason) => {
                    let reason = reason.clone();
                    held.push((upsert, reason));
                }
            }
        }
        for (upsert, reason) in held {
            next.quarantine(self, upsert, reason);
        }
        next
    }

    /// Withdraws quarantined routes that the change does not name and queues them for a retry.
    fn retry_quarantined(&self, next: &mut Self, upserts: &mut Vec<Candidate>) {
        if self.quarantined.is_empty() {
            return;
        }
        let named: HashSet<_> = upserts
            .iter()
            .map(|upsert| upsert.service_uid.clone())
            .collect();
        for Quarantined {
            service_uid,
            reason,
            ..
        } in &self.quarantined
        {
            let left_alone = next.entries.contains_key(service_uid) && !named.contains(service_uid);
            let Some(entry) = self.entry(service_uid).filter(|_| left_alone) else {
                continue;
            };
            next.withdraw(service_uid);
            upserts.push(Candidate {
                service_uid: service_uid.clone(),
                received: entry.received.clone(),
                digest: entry.digest,
                decoded: entry.decoded().cloned().ok_or_else(|| reason.clone()),
                last_good: None,
            });
        }
    }

    /// Removes a route and its hosts.
    fn withdraw(&mut self, uid: &str) {
        let Some(entry) = self.entries.remove(uid) else {
            return;
        };
        let Some(route) = entry.serving() else { return };
        for (host, _) in route.all_hosts() {
            if self
                .hosts
                .get(host)
                .is_some_and(|at| &*at.route.service_uid == uid)
            {
                self.hosts.remove(host);
            }
        }
    }

    /// The reason why the route cannot own all its hosts.
    fn conflict(&self, route: &Route) -> Option<Arc<str>> {
        route.all_hosts().find_map(|(host, _)| {
            let owner = &self.hosts.get(host)?.route;
            Some(format!("host `{host}` already leads to service `{}`", owner.service).into())
        })
    }

    fn admit(&mut self, before: &Self, upsert: Candidate) {
        let Candidate {
            service_uid,
            received,
            digest,
            decoded,
            ..
        } = upsert;
        let Ok(route) = decoded else { return };
        let same = before
            .entry(&service_uid)
            .filter(|entry| entry.digest == digest && entry.is_good());
        let entry = same.cloned().unwrap_or_else(|| {
            Arc::new(RouteEntry {
                received,
                digest,
                state: EntryState::Good(route),
            })
        });
        if let Some(route) = entry.serving() {
            self.claim_free_hosts(route);
        }
        self.entries.insert(service_uid, entry);
    }

    fn quarantine(&mut self, before: &Self, upsert: Candidate, reason: Arc<str>) {
        let Candidate {
            service_uid,
            received,
            digest,
            decoded,
            last_good,
        } = upsert;
        let decoded = decoded.ok();
        let last_good = last_good.or_else(|| {
            before
                .entry(&service_uid)
                .and_then(|entry| entry.last_good())
        });
        if let Some(last_good) = &last_good {
            self.claim_free_hosts(&last_good.route);
        }
        let known = decoded
            .as_ref()
            .or_else(|| last_good.as_ref().map(|good| &good.route));
        self.quarantined.push(Quarantined {
            service: known.map(|route| route.service.clone()).unwrap_or_default(),
            service_uid: service_uid.clone(),
            reason,
        });
        let state = EntryState::Quarantined { decoded, last_good };
        self.entries.insert(
            service_uid,
            Arc::new(RouteEntry {
                received,
                digest,
                state,
            }),
        );
    }

    /// Assigns those hosts of the route that are still free.
    fn claim_free_hosts(&mut self, route: &Arc<Route>) {
        for (host, tag) in route.all_hosts() {
            if !self.hosts.contains_key(host) {
                let entry = HostEntry {
                    route: route.clone(),
                    tag: tag.cloned(),
                };
                self.hosts.insert(host.clone(), entry);
            }
        }
    }
}
