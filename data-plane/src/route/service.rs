//! The route of one service.

use super::{Settings, Slots, Version};
use std::sync::Arc;

/// A service in the route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the service.
    pub service: Arc<str>,
    /// Uid of the service.
    pub service_uid: Arc<str>,
    /// Hosts without those of tags, as normalised by [`super::normalize`]; the default host is
    /// first.
    pub hosts: Box<[Arc<str>]>,
    /// Tags of the service.
    pub tags: Box<[TagRoute]>,
    /// Settings, shared by all services with equal ones.
    pub settings: Arc<Settings>,
    /// Reachable versions in ascending order of number.
    pub versions: Vec<Arc<Version>>,
    /// Traffic split as indices into `versions`; `None` if the service has no traffic.
    pub slots: Option<Slots>,
}

/// A tag and the host that reaches its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRoute {
    /// The tag.
    pub tag: Box<str>,
    /// The host `TAG--NAME.DOMAIN`.
    pub host: Arc<str>,
    /// The version that the tag names.
    pub version: Arc<Version>,
}

impl Route {
    /// The reachable version with this number.
    pub fn version(&self, number: u32) -> Option<&Arc<Version>> {
        let at = self
            .versions
            .binary_search_by_key(&number, |version| version.key.number)
            .ok()?;
        self.versions.get(at)
    }

    /// The version that the tag names.
    pub fn tagged(&self, tag: &str) -> Option<&Arc<Version>> {
        self.tags
            .iter()
            .find(|route| &*route.tag == tag)
            .map(|route| &route.version)
    }

    /// The version's percentage of the traffic.
    pub fn percent(&self, number: u32) -> u32 {
        let Some(slots) = &self.slots else { return 0 };
        let Ok(at) = self
            .versions
            .binary_search_by_key(&number, |version| version.key.number)
        else {
            return 0;
        };
        slots.share(at)
    }

    /// All hosts of the service; for the host of a tag, with the tag's version.
    pub fn all_hosts(&self) -> impl Iterator<Item = (&Arc<str>, Option<&Arc<Version>>)> {
        let plain = self.hosts.iter().map(|host| (host, None));
        plain.chain(self.tags.iter().map(|tag| (&tag.host, Some(&tag.version))))
    }
}
