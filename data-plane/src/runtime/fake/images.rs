//! Images of the scripted engine, and its registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::runtime::{Error, Image, PullStep, reference};

/// Local images and registry. Every image exists locally, without a digest, until [`Images::push`]
/// creates a registry. Afterwards only pulled images do.
#[derive(Debug)]
pub struct Images {
    /// Digest by name; `None` without a registry.
    registry: Mutex<Option<BTreeMap<String, String>>>,
    /// Digest by name; the digest is the image id as well.
    local: Mutex<BTreeMap<String, String>>,
    /// Ids of images that were never in the registry, with or without a name.
    loaded: Mutex<BTreeSet<String>>,
    down: AtomicBool,
    pulls: AtomicU32,
    /// Pulls wait while this is true.
    held: watch::Sender<bool>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            registry: Mutex::default(),
            local: Mutex::default(),
            loaded: Mutex::default(),
            down: AtomicBool::new(false),
            pulls: AtomicU32::new(0),
            held: watch::Sender::new(false),
        }
    }
}

impl Images {
    /// Adds an image to the registry, under its tag and under its digest.
    pub fn push(&self, tag: &str, digest: &str) {
        let mut registry = self.registry.lock();
        let registry = registry.get_or_insert_default();
        registry.insert(reference::name(tag), digest.to_owned());
        registry.insert(reference::by_digest(tag, digest), digest.to_owned());
    }

    /// Gives a name to a local image that was never in a registry. From then on, only local images
    /// exist. Another image of that name stays, without it.
    pub fn load(&self, name: &str, id: &str) {
        self.registry.lock().get_or_insert_default();
        self.loaded.lock().insert(id.to_owned());
        self.local
            .lock()
            .insert(reference::name(name), id.to_owned());
    }

    /// Removes a local image with all its names.
    pub fn delete(&self, id: &str) {
        self.loaded.lock().remove(id);
        self.local.lock().retain(|_, known| known != id);
    }

    /// Makes the registry unreachable or reachable again.
    pub fn set_registry_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The digest of a name in the registry.
    pub(super) fn registry_digest(&self, image: &str) -> Result<String, Error> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::RegistryUnavailable {
                image: image.to_owned(),
                message: "connection refused".to_owned(),
            });
        }
        let registry = self.registry.lock();
        let found = registry
            .as_ref()
            .and_then(|registry| registry.get(&reference::name(image)).cloned());
        found.ok_or_else(|| Error::Pull {
            image: image.to_owned(),
            message: "the registry has no image of that name".to_owned(),
        })
    }

    /// Number of pulls, including unfinished ones.
    pub fn pulls(&self) -> u32 {
        self.pulls.load(Ordering::SeqCst)
    }

    /// Suspends or resumes pulls.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Names of the local images.
    pub fn names(&self) -> Vec<String> {
        self.local.lock().keys().cloned().collect()
    }

    /// Adds a name to a local image.
    pub fn tag(&self, image: &str, name: &str) {
        let mut local = self.local.lock();
        if let Some(digest) = local.get(&reference::name(image)).cloned() {
            local.insert(reference::name(name), digest);
        }
    }

    pub(super) fn id(&self, image: &str) -> Option<String> {
        if self.loaded.lock().contains(image) {
            return Some(image.to_owned());
        }
        self.local.lock().get(&reference::name(image)).cloned()
    }

    pub(super) fn remove(&self, name: &str) {
        self.local.lock().remove(name);
    }

    /// Looks an image up by name or id.
    pub(super) fn find(&self, image: &str) -> Result<Image, Error> {
        let missing = || Error::ImageMissing {
            image: image.to_owned(),
        };
        if self.registry.lock().is_none() {
            return Ok(Image {
                id: format!("sha256:{}", "f".repeat(64)),
                exposed: Vec::new(),
                tags: Vec::new(),
                repo_digests: Vec::new(),
                created: None,
            });
        }
        let local = self.local.lock();
        let by_name = local.get(&reference::name(image));
        let loaded = self.loaded.lock();
        let by_id = || local.values().chain(&*loaded).find(|id| *id == image);
        let digest = by_name.or_else(by_id).ok_or_else(missing)?.clone();
        let names = local.iter().filter(|(_, known)| **known == digest);
        let (repo_digests, tags) = names
            .map(|(name, _)| name.clone())
            .partition(|name| name.contains('@'));
        Ok(Image {
            id: digest,
            exposed: Vec::new(),
            tags,
            repo_digests,
            created: None,
        })
    }

    pub(super) async fn pull(
        &self,
        image: &str,
        progress: &(dyn Fn(PullStep) + Send + Sync),
    ) -> Result<Option<String>, Error> {
        self.pulls.fetch_add(1, Ordering::SeqCst);
        progress(PullStep {
            layer: Some("layer".to_owned()),
            status: "Downloading".to_owned(),
            current: Some(1_000_000),
            total: Some(4_000_000),
        });
        // The sender lives in `self`, so the wait ends only with the value.
        let _ = self.held.subscribe().wait_for(|held| !*held).await;
        let name = reference::name(image);
        let digest = self.registry_digest(image)?;
        let mut local = self.local.lock();
        local.insert(reference::by_digest(image, &digest), digest.clone());
        local.insert(name, digest.clone());
        Ok(Some(digest))
    }
}
