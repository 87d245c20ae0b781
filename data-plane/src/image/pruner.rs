//! Removes unused images if `--prune-images-after` is set.
//!
//! A reconciler: each round rereads the record, the engine and, only if an image is due, the images
//! that versions use. Missing information keeps images: an unreachable control plane, an incomplete
//! list or another cluster's state removes none. As a last safeguard, the engine refuses to untag
//! an image that a container needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{debug, info, warn};

use super::pins::Pins;
use super::prune::{ImageFacts, PruneDecision, decide, retained_names};
use super::record::{PullRecord, PulledImage, seconds};
use crate::runtime::{Error, Runtime};

/// Rounds per retention time: removal is at most a quarter of it late, within the bounds below.
const ROUNDS_PER_RETENTION: u32 = 4;
const MIN_INTERVAL: Duration = Duration::from_millis(500);
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// Pins are small, and one that is kept too long only keeps an image that cless would prune.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// The image of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionImage {
    /// Reference as given in the version.
    pub image: String,
    /// Digest that nodes pull by; `None` while unresolved.
    pub digest: Option<String>,
    /// Uid of the version; empty if the control plane does not say it.
    pub version: String,
}

/// Lists the images of all versions.
#[async_trait::async_trait]
pub trait VersionImages: Send + Sync + 'static {
    /// Images of all existing versions, reachable or not.
    ///
    /// # Errors
    /// A message if the complete list is unavailable; nothing may be removed then.
    async fn retained(&self) -> Result<Vec<VersionImage>, String>;
}

/// Removes unused images; see the module documentation.
pub struct Pruner {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// Images that this node pulled.
    pub record: Arc<PullRecord>,
    /// Images that versions are pinned to.
    pub pins: Arc<Pins>,
    /// Images that versions use.
    pub versions: Arc<dyn VersionImages>,
    /// Retention time of unused images.
    pub after: Duration,
}

/// Drops the pins of versions that no longer exist, once per [`FORGET_EVERY`].
pub async fn forget_pins(pins: Arc<Pins>, versions: Arc<dyn VersionImages>) {
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        forget_pins_once(&pins, &*versions).await;
    }
}

/// Drops the pins of versions that no longer exist. Drops none if the list is unknown.
pub async fn forget_pins_once(pins: &Pins, versions: &dyn VersionImages) {
    // Before the list: a version that is created and pinned in between is kept.
    let mut gone = pins.versions();
    if gone.is_empty() {
        return;
    }
    match versions.retained().await {
        Ok(images) if images.iter().all(|one| !one.version.is_empty()) => {
            for one in &images {
                gone.remove(&one.version);
            }
            if !gone.is_empty() {
                pins.forget(&gone).await;
            }
        }
        Ok(_) => debug!("the control plane does not name versions; all pins are kept"),
        Err(error) => debug!(
            error,
            "the existing versions are unknown; all pins are kept"
        ),
    }
}

impl Pruner {
    /// Runs until dropped.
    pub async fn run(self) {
        let pause = (self.after / ROUNDS_PER_RETENTION).clamp(MIN_INTERVAL, MAX_INTERVAL);
        loop {
            tokio::time::sleep(pause).await;
            if let Err(error) = self.round().await {
                debug!(%error, "images cannot be inspected now");
            }
        }
    }

    /// Decides on every recorded image, and removes those that are due.
    ///
    /// # Errors
    /// The engine's error if it cannot be queried.
    pub async fn round(&self) -> Result<(), Error> {
        let entries = self.record.entries();
        if entries.is_empty() {
            return Ok(());
        }
        let mut names = BTreeMap::new();
        for id in entries.keys() {
            match self.runtime.image(id).await {
                Ok(found) => {
                    let all = found.tags.into_iter().chain(found.repo_digests);
                    names.insert(id.clone(), all.collect::<BTreeSet<_>>());
                }
                Err(Error::ImageMissing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Queried after the images, so that a container created meanwhile is seen.
        let in_use = self.runtime.images_in_use().await?;
        let pinned = self.pins.ids();
        let now = seconds(SystemTime::now());
        let decision = |id: &str, entry: &PulledImage, retained: Option<&BTreeSet<String>>| {
            let facts = ImageFacts {
                entry,
                names: names.get(id),
                in_use: in_use.contains(id),
                pinned: pinned.contains(id),
            };
            decide(&facts, retained, now, self.after)
        };
        let due = |(id, entry): (&String, &PulledImage)| {
            decision(id, entry, None) == PruneDecision::NeedsVersions
        };
        let retained = match entries.iter().any(due) {
            true => self.retained().await,
            false => None,
        };
        let mut needed = Vec::new();
        let mut gone = Vec::new();
        for (id, entry) in &entries {
            match decision(id, entry, retained.as_ref()) {
                PruneDecision::Needed => needed.push(id.as_str()),
                PruneDecision::Forget => gone.push(id.as_str()),
                PruneDecision::Foreign | PruneDecision::TooSoon | PruneDecision::NeedsVersions => {}
                PruneDecision::Remove(names) => {
                    if self.remove(&names).await {
                        gone.push(id.as_str());
                    } else {
                        needed.push(id.as_str());
                    }
                }
            }
        }
        self.record
            .needed(needed.into_iter(), SystemTime::now())
            .await;
        self.record.forget(gone.into_iter()).await;
        Ok(())
    }

    /// Names of the images that versions use; `None` if they are unknown.
    async fn retained(&self) -> Option<BTreeSet<String>> {
        match self.versions.retained().await {
            Ok(images) => Some(
                images
                    .iter()
                    .flat_map(|one| retained_names(&one.image, one.digest.as_deref()))
                    .collect(),
            ),
            Err(error) => {
                debug!(error, "the images in use are unknown; no image is removed");
                None
            }
        }
    }

    /// Whether all names were removed.
    async fn remove(&self, names: &[String]) -> bool {
        for name in names {
            if let Err(error) = self.runtime.remove_image(name).await {
                warn!(image = name, %error, "cannot remove an unused image");
                return false;
            }
        }
        info!(image = ?names, "removed an unused image");
        true
    }
}
