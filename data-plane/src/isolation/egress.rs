//! Destinations on this host that single containers may reach.
//!
//! A permit names a container, the address that it sends from, and its destinations. The round of
//! [`super::Isolation`] resolves their names and makes one rule of each address. A container cannot
//! send from another's address: raw sockets and changes of its network need capabilities that it
//! does not have by default.
//!
//! Laws: only permits open anything; a permit opens TCP to its own destinations for its own
//! container; a name that no longer resolves keeps its last addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use cless_proto::endpoint::Endpoint;

use super::host;

/// Destinations of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// Name of the container.
    pub container: String,
    /// Address that it sends from.
    pub from: IpAddr,
    /// Its destinations.
    pub to: Vec<Endpoint>,
}

impl Permit {
    /// The permit of a container that sends from this address; `None` without destinations.
    pub(crate) fn new(container: &str, from: IpAddr, to: &[Endpoint]) -> Option<Self> {
        (!to.is_empty()).then(|| Self {
            container: container.to_owned(),
            from,
            to: to.to_vec(),
        })
    }
}

/// The permits of a node, and the last known addresses of their destinations.
#[derive(Debug, Default)]
pub(super) struct Permits {
    /// By container.
    permits: BTreeMap<String, Permit>,
    known: BTreeMap<Endpoint, BTreeSet<SocketAddr>>,
}

impl Permits {
    /// Returns whether it changed.
    pub(super) fn insert(&mut self, permit: Permit) -> bool {
        let container = permit.container.clone();
        let before = self.permits.insert(container, permit.clone());
        before != Some(permit)
    }

    /// Returns whether there was one.
    pub(super) fn remove(&mut self, container: &str) -> bool {
        self.permits.remove(container).is_some()
    }

    /// Pairs of a container's address and a destination, by current addresses of the names.
    pub(super) async fn resolve(&mut self) -> BTreeSet<(IpAddr, SocketAddr)> {
        let wanted: BTreeSet<Endpoint> = self
            .permits
            .values()
            .flat_map(|permit| permit.to.iter().cloned())
            .collect();
        self.known.retain(|endpoint, _| wanted.contains(endpoint));
        for endpoint in wanted {
            let found = host::resolve(endpoint.host(), endpoint.port()).await;
            if let Some(found) = found {
                self.known.insert(endpoint, found);
            }
        }
        self.pairs()
    }

    fn pairs(&self) -> BTreeSet<(IpAddr, SocketAddr)> {
        let permits = self.permits.values();
        let all = permits.flat_map(|permit| permit.to.iter().map(|to| (permit.from, to)));
        all.flat_map(|(from, to)| {
            let addresses = self.known.get(to).into_iter().flatten();
            addresses.map(move |address| (from, *address))
        })
        .collect()
    }

    /// Destinations of permits without an address that containers can reach.
    pub(super) fn unresolved(&self) -> BTreeSet<String> {
        let wanted = self.permits.values().flat_map(|permit| &permit.to);
        let reachable = |to: &&Endpoint| {
            let found = self.known.get(*to).into_iter().flatten();
            found
                .clone()
                .any(|at| at.is_ipv4() && !at.ip().is_loopback())
        };
        wanted
            .filter(|to| !reachable(to))
            .map(ToString::to_string)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(container: &str, from: &str, to: &[&str]) -> Permit {
        Permit {
            container: container.to_owned(),
            from: from.parse().unwrap(),
            to: to.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[tokio::test]
    async fn a_permit_opens_its_own_destinations_for_its_own_container() {
        let mut permits = Permits::default();
        assert!(permits.insert(permit("a", "172.18.0.2", &["10.0.0.5:5432"])));
        assert!(!permits.insert(permit("a", "172.18.0.2", &["10.0.0.5:5432"])));
        assert!(permits.insert(permit(
            "b",
            "172.18.0.3",
            &["10.0.0.6:6379", "10.0.0.5:5432"]
        )));
        let shown = |pairs: BTreeSet<(IpAddr, SocketAddr)>| {
            pairs
                .into_iter()
                .map(|(from, to)| format!("{from} {to}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown(permits.resolve().await),
            [
                "172.18.0.2 10.0.0.5:5432",
                "172.18.0.3 10.0.0.5:5432",
                "172.18.0.3 10.0.0.6:6379"
            ]
        );
        assert!(permits.unresolved().is_empty());
        assert!(permits.remove("b") && !permits.remove("b"));
        assert_eq!(shown(permits.resolve().await), ["172.18.0.2 10.0.0.5:5432"]);
    }

    #[tokio::test]
    async fn a_name_keeps_its_last_addresses_and_is_reported_without_any() {
        let mut permits = Permits::default();
        permits.insert(permit("a", "172.18.0.2", &["nowhere.invalid:1"]));
        assert!(permits.resolve().await.is_empty());
        assert_eq!(
            permits.unresolved(),
            ["nowhere.invalid:1".to_owned()].into()
        );
        let known = ["10.0.0.5:1".parse().unwrap()].into();
        permits
            .known
            .insert("nowhere.invalid:1".parse().unwrap(), known);
        assert_eq!(permits.resolve().await.len(), 1);
        assert!(permits.unresolved().is_empty());
    }
}
