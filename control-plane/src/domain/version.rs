//! A version: an immutable specification and what became of it.

use super::id::{Percent, ServiceId, Tag, Uid, VersionNumber};
use super::image::ImageDigest;
use super::spec::VersionSpec;
use super::time::Timestamp;
use super::verification::Verification;

/// An immutable revision of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Never reused.
    pub uid: Uid,
    /// Whose.
    pub service: ServiceId,
    /// Its uid.
    pub service_uid: Uid,
    /// 1, 2, 3 per service.
    pub number: VersionNumber,
    /// What its containers run.
    pub spec: VersionSpec,
    /// What the image resolved to on the first node that resolved it.
    pub image_digest: Option<ImageDigest>,
    /// Changes when the version is verified or its digest becomes known.
    pub etag: String,
    /// When it was created.
    pub create_time: Timestamp,
    /// The last request to prove it.
    pub verification: Option<Verification>,
    /// Its share of traffic now.
    pub percent: Percent,
    /// The tag that names it now; a version has at most one.
    pub tags: Vec<Tag>,
}

impl Version {
    /// Whether a request or a proof can reach it, so that the feed carries it.
    #[must_use]
    pub fn reachable(&self) -> bool {
        !self.percent.is_zero()
            || !self.tags.is_empty()
            || self
                .verification
                .as_ref()
                .is_some_and(Verification::is_pending)
    }
}
