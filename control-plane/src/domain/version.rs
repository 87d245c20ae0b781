//! A version: an immutable specification, its digest and its verification.

use super::id::{Percent, ServiceId, Tag, Uid, VersionNumber};
use super::image::ImageDigest;
use super::spec::VersionSpec;
use super::time::Timestamp;
use super::verification::Verification;

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
    /// The digest from the first node that resolved the image; `None` until then.
    pub image_digest: Option<ImageDigest>,
    /// Changes when the version is verified or its digest becomes known.
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
}
