//! The route of a service, which the feed carries: everything that a proxy needs to serve it.
//!
//! A route is a pure function of the service, its traffic and its versions. It contains only
//! reachable versions. A service without traffic has a route without slots, so that its hosts
//! answer 503, not 404.

use super::error::Reason;
use super::host::{Domain, HostName};
use super::id::{ServiceId, Tag, Uid, VersionNumber};
use super::image::ImageDigest;
use super::service::Service;
use super::settings::Settings;
use super::slots::Slots;
use super::spec::VersionSpec;
use super::time::Timestamp;
use super::traffic::TrafficSplit;
use super::version::Version;

/// The route of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The id of the service.
    pub service: ServiceId,
    /// The uid of the service.
    pub service_uid: Uid,
    /// The default host, then the extra hosts.
    pub hosts: Vec<HostName>,
    /// Tag hosts, by ascending version.
    pub tags: Vec<TagRoute>,
    /// The settings of the service.
    pub settings: Settings,
    /// Reachable versions, ascending.
    pub versions: Vec<RouteVersion>,
    /// The version of each of the 100 slots; `None` without traffic.
    pub slots: Option<Slots>,
}

/// A host that reaches a single version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRoute {
    /// The tag.
    pub tag: Tag,
    /// `TAG--NAME.DOMAIN`.
    pub host: HostName,
    /// The version that the tag names.
    pub version: VersionNumber,
}

/// A reachable version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteVersion {
    /// The number.
    pub number: VersionNumber,
    /// The uid.
    pub uid: Uid,
    /// The specification of its containers.
    pub spec: VersionSpec,
    /// The resolved digest; `None` until a node reports it.
    pub image_digest: Option<ImageDigest>,
    /// The verification request; `None` unless one is pending.
    pub verify: Option<VerifyOrder>,
    /// The image id to prefer, of an image that was never in a registry.
    pub image_id: Option<ImageDigest>,
    /// The number of resets of the image.
    pub image_generation: u32,
}

/// A request to nodes to verify a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOrder {
    /// The id of the run.
    pub id: String,
    /// Answers count until then.
    pub deadline: Timestamp,
}

impl Route {
    /// Builds the route of a service; unreachable `versions` are left out.
    ///
    /// # Errors
    /// If a tag does not fit into a host name, which a valid split excludes.
    pub fn build(
        service: &Service,
        split: &TrafficSplit,
        slots: Option<&Slots>,
        versions: impl IntoIterator<Item = Version>,
        domain: &Domain,
    ) -> Result<Self, Reason> {
        let mut reachable: Vec<RouteVersion> = versions
            .into_iter()
            .filter(Version::is_reachable)
            .map(|version| RouteVersion {
                number: version.number,
                uid: version.uid,
                image_id: version
                    .resolved_image
                    .as_ref()
                    .and_then(|image| image.pinned_id().cloned()),
                image_generation: version.image_generation,
                spec: version.spec,
                image_digest: version.image_digest,
                verify: version
                    .verification
                    .filter(super::verification::Verification::is_pending)
                    .map(|verification| VerifyOrder {
                        id: verification.id().to_owned(),
                        deadline: verification.deadline(),
                    }),
            })
            .collect();
        reachable.sort_by_key(|version| version.number);
        let tags = split
            .tags()
            .map(|(tag, version)| {
                Ok(TagRoute {
                    tag: tag.clone(),
                    host: domain.tag_host(tag, &service.id)?,
                    version,
                })
            })
            .collect::<Result<_, Reason>>()?;
        Ok(Self {
            service: service.id.clone(),
            service_uid: service.uid.clone(),
            hosts: std::iter::once(&service.default_host)
                .chain(&service.hosts)
                .cloned()
                .collect(),
            tags,
            settings: service.settings.clone(),
            versions: reachable,
            slots: slots.cloned(),
        })
    }
}
