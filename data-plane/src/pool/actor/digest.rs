//! Which image the instances run, and which they should: see `instance/fetch.rs`.

use std::sync::Arc;

use tracing::info;

use super::Owner;
use super::tenant::is_hopeful;
use crate::instance::report::VerifyResult;
use crate::instance::state::Event;
use crate::route::{PullPolicy, Version};

/// An instance of this digest does not run what counts for the version.
pub(in crate::instance) fn is_stale(digest: Option<&str>, version: &Version) -> bool {
    let tells = version.spec.pull_policy != PullPolicy::Never;
    match (digest, &version.image_digest) {
        (Some(runs), Some(counts)) => tells && runs != counts,
        _ => false,
    }
}

/// An instance of this digest certainly runs what counts: a proof by it stands.
pub(super) fn is_settled(digest: Option<&str>, version: &Version) -> bool {
    digest.is_none() || digest == version.image_digest.as_deref()
}

impl Owner {
    /// A start resolved its image, or is about to run this digest.
    pub(super) fn resolved(&mut self, serial: u64, digest: Arc<str>) {
        if let Some(tenant) = self.tenants.get_mut(&serial) {
            tenant.digest = Some(digest.clone());
        }
        self.image_digest = Some(digest);
        self.drain_stale();
    }

    /// Lets no more requests into instances that do not run what counts, and gives up starts of them:
    /// another node was first. What still needs an instance starts one by the digest.
    pub(super) fn drain_stale(&mut self) {
        let version = self.member.version.clone();
        let stale: Vec<u64> = self
            .tenants
            .iter()
            .filter(|(_, one)| is_hopeful(one.state) && is_stale(one.digest.as_deref(), &version))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in stale {
            info!(
                service = %version.service, version = version.key.number,
                digest = version.image_digest,
                "another node was first to resolve the image: starting over by its digest"
            );
            if let Some(proof) = &mut self.proof
                && proof.result == VerifyResult::Pending
            {
                proof.tried = false;
            }
            self.apply(serial, Event::Drain);
        }
    }
}
