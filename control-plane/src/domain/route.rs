//! What the feed carries of a service: everything a proxy needs to serve it, and nothing else.
//!
//! A route is a pure function of the service, its traffic and its versions. It holds only versions that can be
//! reached; a service without traffic is carried too, without slots, so that its hosts answer 503 and not 404.

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

/// One service in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its id.
    pub service: ServiceId,
    /// Its uid.
    pub service_uid: Uid,
    /// All hosts but those of tags; the default host first.
    pub hosts: Vec<HostName>,
    /// By ascending version.
    pub tags: Vec<TagRoute>,
    /// How it scales, sleeps and is called.
    pub settings: Settings,
    /// Those that can be reached, ascending.
    pub versions: Vec<RouteVersion>,
    /// Which version takes which of 100 slots, if traffic is set.
    pub slots: Option<Slots>,
}

/// A host that reaches one version alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRoute {
    /// The tag.
    pub tag: Tag,
    /// `TAG--NAME.DOMAIN`.
    pub host: HostName,
    /// What it names.
    pub version: VersionNumber,
}

/// A version that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteVersion {
    /// Its number.
    pub number: VersionNumber,
    /// Its uid.
    pub uid: Uid,
    /// What its containers run.
    pub spec: VersionSpec,
    /// What to pull, once a node has resolved it.
    pub image_digest: Option<ImageDigest>,
    /// Set while nodes are asked to prove it.
    pub verify: Option<VerifyOrder>,
}

/// Asks nodes to prove a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOrder {
    /// Names this run of the proof.
    pub id: String,
    /// No answer counts after this.
    pub deadline: Timestamp,
}

impl Route {
    /// The route of a service; `versions` may hold ones that cannot be reached, in any order.
    ///
    /// # Errors
    /// If a tag does not fit into a host name, which a valid split rules out.
    pub fn build(
        service: &Service,
        split: &TrafficSplit,
        slots: Option<&Slots>,
        versions: impl IntoIterator<Item = Version>,
        domain: &Domain,
    ) -> Result<Self, Reason> {
        let mut reachable: Vec<RouteVersion> = versions
            .into_iter()
            .filter(Version::reachable)
            .map(|version| RouteVersion {
                number: version.number,
                uid: version.uid,
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
