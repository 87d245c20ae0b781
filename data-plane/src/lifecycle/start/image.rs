//! How a start comes by its image, and which image that is.
//!
//! The first node that resolves a version's image in a registry fixes its digest; from then on every
//! node runs that one, whatever the tag has become. A start that resolved the image itself, with no
//! digest fixed yet, says so at once and, when its container answers, waits a moment to hear which
//! digest counts (see [`Start::settle`]): of two nodes that resolve a moving tag differently at the
//! same time only one has run what counts, and the other starts over by the digest before it serves.
//!
//! With the policy `never` the image is what the node has under the version's own reference.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::failure;
use super::owner::Progress;
use super::phases::Phases;
use super::report::FailureReason;
use super::start::{Halt, Start};
use crate::image::puller::digest_of;
use crate::route::PullPolicy;
use crate::runtime::{Error, reference};

const DEFAULT_PORT: u16 = 8080;

/// How long a start that resolved its image waits, once its container answers, to hear which digest
/// counts. It is a report, a write and a change of the feed away, all together some 200 ms, and was
/// asked for before the container was made. After that, and at once while no control plane is
/// connected, the start goes on: a request does not depend on one.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

impl Start {
    /// The digest to run: the one that counts, else the one that this node resolved.
    pub(super) fn digest(&self, phases: &Phases) -> Option<Arc<str>> {
        if self.version.spec.pull_policy == PullPolicy::Never {
            return None;
        }
        let fixed = self.pool.fixed_digest();
        fixed.or_else(|| phases.image_digest.clone())
    }

    /// The reference to create by.
    pub(super) fn image(&self, phases: &Phases) -> String {
        match self.digest(phases) {
            Some(digest) => reference::by_digest(&self.version.spec.image, &digest),
            None => self.version.spec.image.clone(),
        }
    }

    /// Pulls the image. At most once under each name in one start.
    pub(super) async fn pull(&self, phases: &mut Phases) -> Result<(), Halt> {
        let image = self.image(phases);
        if self.version.spec.pull_policy == PullPolicy::Never {
            return Err(failure::new(
                FailureReason::Image,
                format!(
                    "image {image} is not on this node and the pull policy is `never`: load it on \
                     the node, or deploy with --pull missing"
                ),
            )
            .into());
        }
        info!(service = %self.version.service, version = self.version.key.number, image, "pulling");
        let asked = Instant::now();
        let tell = |line: &str| self.tell(Progress::Pulling(Some(line.to_owned())));
        let pulled = self.wanted(self.engine.puller.pull(&image, tell)).await?;
        self.tell(Progress::Pulling(None));
        let pulled = pulled.map_err(|error| self.engine_failure(error))?;
        self.tell(Progress::Pulled);
        phases.pull = Some(phases.pull.unwrap_or_default() + asked.elapsed());
        phases.pulled.insert(image);
        if let Some(digest) = pulled.digest {
            self.resolved(digest.into(), phases);
        }
        Ok(())
    }

    /// Looks at the image as far as earlier starts have not, pulls it if it must, and finds the port.
    pub(super) async fn look(&self, phases: &mut Phases) -> Result<u16, Halt> {
        let port = self.version.spec.port.or(self.port);
        let never = self.version.spec.pull_policy == PullPolicy::Never;
        let resolved = never || self.looked || self.digest(phases).is_some();
        if let (Some(port), true) = (port, resolved) {
            return Ok(port);
        }
        let found = loop {
            let image = self.image(phases);
            match self.engine.runtime.image(&image).await {
                Ok(found) => break found,
                Err(Error::ImageMissing { .. }) if !phases.pulled.contains(&image) => {
                    self.pull(phases).await?;
                }
                Err(error) => return Err(self.engine_failure(error)),
            }
        };
        if !never && let Some(digest) = digest_of(&self.version.spec.image, &found) {
            self.resolved(digest.into(), phases);
        }
        Ok(port.unwrap_or(match found.exposed[..] {
            [port] => port,
            _ => DEFAULT_PORT,
        }))
    }

    fn resolved(&self, digest: Arc<str>, phases: &mut Phases) {
        if phases.image_digest.is_none() {
            self.tell(Progress::Resolved(digest.clone()));
            phases.image_digest = Some(digest);
            phases.resolved_here = true;
        }
    }

    /// Waits until it is known which digest counts, if this start resolved one; see the module. What
    /// another counts for is the owner's business.
    pub(super) async fn settle(&self, phases: &Phases) -> Result<(), Halt> {
        if !phases.resolved_here {
            return Ok(());
        }
        let mut fixed = self.pool.digests();
        let mut linked = self.engine.linked.subscribe();
        let settled = async {
            tokio::select! {
                _ = fixed.wait_for(Option::is_some) => {}
                _ = linked.wait_for(|linked| !*linked) => {}
                () = tokio::time::sleep(SETTLE_WITHIN) => {}
            }
        };
        self.wanted(settled).await
    }
}
