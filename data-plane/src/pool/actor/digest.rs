//! The image digest that instances run and the one that they must run; see
//! `lifecycle/start/image.rs`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::info;

use super::PoolActor;
use crate::instance::state::{Event, State};
use crate::report::ColdStart;
use crate::route::{PullPolicy, Version};

/// Whether an instance of this digest runs another image than the fixed one.
pub(in crate::pool) fn is_stale(digest: Option<&str>, version: &Version) -> bool {
    let has_digest = version.spec.pull_policy != PullPolicy::Never;
    match (digest, &version.image_digest) {
        (Some(runs), Some(fixed)) => has_digest && runs != fixed,
        _ => false,
    }
}

/// Whether an instance of this digest verifies the version: no other digest can be fixed any more.
fn is_final(digest: Option<&str>, version: &Version) -> bool {
    digest.is_none() || digest == version.image_digest.as_deref()
}

impl PoolActor {
    /// Records the digest that a start is about to run.
    pub(super) fn runs_digest(&mut self, serial: u64, digest: Arc<str>) {
        if let Some(entry) = self.instances.get_mut(&serial) {
            entry.digest = Some(digest);
        }
        self.drain_stale();
    }

    /// Records a digest of which a pull or a start succeeded: it is reported from now on.
    pub(super) fn digest_confirmed(&mut self, digest: Arc<str>, cold_start: Option<ColdStart>) {
        self.image_digest = Some(digest);
        if cold_start.is_some() {
            self.last_cold_start = cold_start;
        }
    }

    /// Forgets what the version's image was resolved to. Instances of it are replaced.
    pub(super) fn reset_image(&mut self) {
        info!("the version's image was reset; the next start resolves it again");
        self.image_digest = None;
        self.image_pulled = false;
        self.image_inspected = false;
        self.image_warning = None;
        self.port = None;
        if let Some(verification) = &mut self.verification {
            verification.retry();
        }
        self.drain_all();
    }

    /// Drains instances and cancels starts of a stale digest, because another node fixed its digest
    /// first. If an instance is still needed, the next start runs the fixed digest.
    pub(super) fn drain_stale(&mut self) {
        let version = self.membership.version.clone();
        let stale: Vec<u64> = self
            .instances
            .iter()
            .filter(|(_, one)| one.state.is_active() && is_stale(one.digest.as_deref(), &version))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in stale {
            info!(
                digest = version.image_digest,
                "another node resolved the image first: starting again by its digest"
            );
            if let Some(verification) = &mut self.verification {
                verification.retry();
            }
            self.apply(serial, Event::Drain);
        }
    }

    /// Completes a verification once an instance with a final digest is ready.
    pub(super) fn complete_verification(&mut self) {
        let Some(verification) = &mut self.verification else {
            return;
        };
        if !verification.is_pending() {
            return;
        }
        let version = &self.membership.version;
        let ready = self.instances.values().find(|entry| {
            entry.state == State::Ready && is_final(entry.digest.as_deref(), version)
        });
        if let Some(entry) = ready {
            let cold_start = entry.instance.cold_start().cloned();
            verification.succeed(cold_start.unwrap_or_else(|| ColdStart {
                pull: None,
                queue: None,
                create: None,
                start: None,
                ready: None,
                total: Duration::ZERO,
                at: SystemTime::now(),
            }));
            self.dirty = true;
        }
    }
}
