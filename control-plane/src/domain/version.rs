//! A version: an immutable specification, its digest and its verification.

use super::id::{Percent, ServiceId, Tag, Uid, VersionNumber};
use super::image::{ImageDigest, ResolvedImage};
use super::spec::VersionSpec;
use super::time::Timestamp;
use super::verification::{Verification, VerificationState};

/// An immutable revision of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The uid, never reused.
    pub uid: Uid,
    /// The id of the service.
    pub service: ServiceId,
    /// The uid of the service.
    pub service_uid: Uid,
    /// Counts 1, 2, 3 per service.
    pub number: VersionNumber,
    /// The specification of its containers.
    pub spec: VersionSpec,
    /// The digest of the image, resolved at creation, else by the first node that pulled or started
    /// it; `None` until then, and for an image that was never in a registry.
    pub image_digest: Option<ImageDigest>,
    /// The image that the reference named at creation; `None` if no node could tell.
    pub resolved_image: Option<ResolvedImage>,
    /// The number of resets of the image.
    pub image_generation: u32,
    /// Whether it has had a share of the traffic.
    pub carried_traffic: bool,
    /// Changes when the version is verified, or its digest becomes known or is reset.
    pub etag: String,
    /// Time of creation.
    pub create_time: Timestamp,
    /// The last verification; `None` if there was none.
    pub verification: Option<Verification>,
    /// Its current share of traffic.
    pub percent: Percent,
    /// Its current tags, at most one.
    pub tags: Vec<Tag>,
}

impl Version {
    /// Whether its image is not resolved: no digest, and no image that was never in a registry.
    #[must_use]
    pub fn needs_digest(&self) -> bool {
        self.image_digest.is_none() && self.resolved_image.is_none()
    }

    /// Whether traffic, a tag or a pending verification needs it, so that the feed carries it.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        !self.percent.is_zero()
            || !self.tags.is_empty()
            || self
                .verification
                .as_ref()
                .is_some_and(Verification::is_pending)
    }

    /// Whether it may get a share of the traffic: it had one before, or its last verification
    /// succeeded.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.carried_traffic
            || self
                .verification
                .as_ref()
                .is_some_and(|verification| verification.state() == VerificationState::Verified)
    }
}
