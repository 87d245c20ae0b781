//! Everything a proxy needs to serve one service.

use super::{Settings, Slots, Version};
use std::sync::Arc;

/// One service of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The service's name.
    pub service: Arc<str>,
    /// The service's uid.
    pub service_uid: Arc<str>,
    /// Its hosts but those of tags, in the form [`super::normalize`] gives; the default host first.
    pub hosts: Box<[Arc<str>]>,
    /// Hosts that reach one version alone.
    pub tags: Box<[TagRoute]>,
    /// Shared by all services with equal settings.
    pub settings: Arc<Settings>,
    /// The versions that can be reached, by number in ascending order.
    pub versions: Vec<Arc<Version>>,
    /// The split; `None` if no traffic is set. Each slot is an index into `versions`.
    pub slots: Option<Slots>,
}

/// A host that reaches one version alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRoute {
    /// The tag.
    pub tag: Box<str>,
    /// `TAG--NAME.DOMAIN`
    pub host: Arc<str>,
    /// The version it reaches.
    pub version: Arc<Version>,
}

impl Route {
    /// The version of this number, if it can be reached.
    pub fn version(&self, number: u32) -> Option<&Arc<Version>> {
        let at = self
            .versions
            .binary_search_by_key(&number, |version| version.key.number)
            .ok()?;
        self.versions.get(at)
    }

    /// The version this tag names.
    pub fn tagged(&self, tag: &str) -> Option<&Arc<Version>> {
        self.tags
            .iter()
            .find(|route| &*route.tag == tag)
            .map(|route| &route.version)
    }

    /// Percent of traffic the version gets.
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

    /// Every host it answers to, with the version that the host alone reaches, if it is a tag's.
    pub fn all_hosts(&self) -> impl Iterator<Item = (&Arc<str>, Option<&Arc<Version>>)> {
        let plain = self.hosts.iter().map(|host| (host, None));
        plain.chain(self.tags.iter().map(|tag| (&tag.host, Some(&tag.version))))
    }
}
