//! Removes images that nothing needs, if the node is told to (`--prune-images-after`).
//!
//! A reconciler: each round rereads the record, the engine, and, only if an image's time is over,
//! what versions need. Whatever is not known keeps images: a control plane that does not answer in
//! full, or one of another state, removes none. The last word is the engine's own, which takes no
//! name off an image that a container needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{debug, info, warn};

use super::prune::{Facts, Verdict, judge, retained_names};
use super::record::{Entry, Record, seconds};
use crate::runtime::{Error, Runtime};

/// An image goes at most a quarter of its time late, and an hour-long time is looked at every 10 min.
const PART: u32 = 4;
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(600);

/// The image of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// As the version names it.
    pub image: String,
    /// The digest that nodes pull by, once one is known.
    pub digest: Option<String>,
}

/// Who knows what versions there are.
#[async_trait::async_trait]
pub trait Versions: Send + Sync + 'static {
    /// The images of every version there is, reachable or not.
    ///
    /// # Errors
    /// For a person, if it is not known in full; then nothing may be removed.
    async fn retained(&self) -> Result<Vec<Retained>, String>;
}

/// See the module.
pub struct Pruner {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// What this node pulled.
    pub record: Arc<Record>,
    /// What versions need.
    pub versions: Arc<dyn Versions>,
    /// How long an image is kept that nothing needs.
    pub after: Duration,
}

impl Pruner {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let pause = (self.after / PART).clamp(SHORTEST, LONGEST);
        loop {
            tokio::time::sleep(pause).await;
            if let Err(error) = self.round().await {
                debug!(%error, "images cannot be looked at now");
            }
        }
    }

    /// Judges every image of the record, and removes those that may go.
    ///
    /// # Errors
    /// The engine's, if it does not answer.
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
        // After the images: a container that was made meanwhile is seen.
        let in_use = self.runtime.images_in_use().await?;
        let now = seconds(SystemTime::now());
        let verdict = |id: &str, entry: &Entry, retained: Option<&BTreeSet<String>>| {
            let facts = Facts {
                entry,
                names: names.get(id),
                in_use: in_use.contains(id),
            };
            judge(&facts, retained, now, self.after)
        };
        let due = |(id, entry): (&String, &Entry)| verdict(id, entry, None) == Verdict::Ask;
        let retained = match entries.iter().any(due) {
            true => self.retained().await,
            false => None,
        };
        let mut needed = Vec::new();
        let mut gone = Vec::new();
        for (id, entry) in &entries {
            match verdict(id, entry, retained.as_ref()) {
                Verdict::Needed => needed.push(id.as_str()),
                Verdict::Forget => gone.push(id.as_str()),
                Verdict::Foreign | Verdict::TooSoon | Verdict::Ask => {}
                Verdict::Remove(names) => {
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

    /// The names of what versions need; `None` if that is not known.
    async fn retained(&self) -> Option<BTreeSet<String>> {
        match self.versions.retained().await {
            Ok(images) => Some(
                images
                    .iter()
                    .flat_map(|one| retained_names(&one.image, one.digest.as_deref()))
                    .collect(),
            ),
            Err(error) => {
                debug!(
                    error,
                    "what versions need is not known: no image is removed"
                );
                None
            }
        }
    }

    /// False if the engine keeps it.
    async fn remove(&self, names: &[String]) -> bool {
        for name in names {
            if let Err(error) = self.runtime.remove_image(name).await {
                warn!(image = name, %error, "an image that nothing needs cannot be removed");
                return false;
            }
        }
        info!(image = ?names, "removed an image that nothing needs");
        true
    }
}
