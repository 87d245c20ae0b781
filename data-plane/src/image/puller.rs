//! Pulls images, with one concurrent pull per name.
//!
//! A pull runs in a task of its own. Callers that want the image join the running pull, and
//! cancelling a caller does not end it. The pull always completes, and its image is recorded.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::progress::Progress;
use super::record::PullRecord;
use crate::runtime::{Error, Image, PullStep, Runtime, reference};

/// Minimum interval between progress calls.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Result of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Digest of the image in the registry; `None` if unknown.
    pub digest: Option<String>,
}

#[derive(Debug, Clone)]
enum PullState {
    /// The progress line.
    Running(Arc<str>),
    Done(Result<Pulled, Error>),
}

/// The pulls of a node. Cheap to clone.
#[derive(Clone)]
pub struct Puller {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Arc<dyn Runtime>,
    record: Arc<PullRecord>,
    pulls: Mutex<HashMap<String, watch::Receiver<PullState>>>,
}

impl Puller {
    /// A puller without running pulls.
    pub fn new(runtime: Arc<dyn Runtime>, record: Arc<PullRecord>) -> Self {
        Self {
            inner: Arc::new(Inner {
                runtime,
                record,
                pulls: Mutex::default(),
            }),
        }
    }

    /// Pulls an image or joins its running pull. `on_progress` is called with the progress line at
    /// once, and then at most every half second when it changes.
    ///
    /// Dropping the future does not cancel the pull.
    ///
    /// # Errors
    /// Those of [`Runtime::pull`].
    pub async fn pull(&self, image: &str, on_progress: impl Fn(&str)) -> Result<Pulled, Error> {
        let mut state = self.join(&reference::name(image));
        let mut reported: Option<Arc<str>> = None;
        loop {
            if let PullState::Running(line) = &*state.borrow_and_update()
                && reported.as_ref() != Some(line)
            {
                on_progress(line);
                reported = Some(line.clone());
            }
            let done = state.wait_for(|state| matches!(state, PullState::Done(_)));
            match tokio::time::timeout(PROGRESS_INTERVAL, done).await {
                Ok(Ok(done)) => {
                    if let PullState::Done(outcome) = &*done {
                        return outcome.clone();
                    }
                }
                Ok(Err(_)) => {
                    return Err(Error::NoResponse(
                        "the pull task ended without a result".to_owned(),
                    ));
                }
                Err(_) => {}
            }
        }
    }

    fn join(&self, name: &str) -> watch::Receiver<PullState> {
        let mut pulls = self.inner.pulls.lock();
        if let Some(state) = pulls.get(name) {
            return state.clone();
        }
        let initial: Arc<str> = format!("from {}", reference::registry(name)).into();
        let (progress, state) = watch::channel(PullState::Running(initial));
        pulls.insert(name.to_owned(), state.clone());
        let guard = PullGuard {
            inner: self.inner.clone(),
            name: name.to_owned(),
        };
        tokio::spawn(async move {
            let outcome = guard.inner.run(&guard.name, &progress).await;
            // Removed first: later callers start a new pull, while current waiters receive this
            // result.
            drop(guard);
            progress.send_replace(PullState::Done(outcome));
        });
        state
    }
}

/// Unregisters the pull, even if its task panics.
struct PullGuard {
    inner: Arc<Inner>,
    name: String,
}

impl Drop for PullGuard {
    fn drop(&mut self) {
        self.inner.pulls.lock().remove(&self.name);
    }
}

impl Inner {
    async fn run(&self, name: &str, progress: &watch::Sender<PullState>) -> Result<Pulled, Error> {
        // An image that existed before may be removed later only if an earlier pull brought it.
        let before = self.runtime.image(name).await;
        let is_ours = match before {
            Ok(_) => self.record.has_name(name),
            Err(Error::ImageMissing { .. }) => true,
            Err(_) => false,
        };
        let steps = Mutex::new(Progress::default());
        let step = |step: PullStep| {
            let mut steps = steps.lock();
            steps.step(&step);
            if let Some(line) = steps.line() {
                progress.send_if_modified(|state| {
                    let differs =
                        !matches!(state, PullState::Running(reported) if **reported == *line);
                    if differs {
                        *state = PullState::Running(line.into());
                    }
                    differs
                });
            }
        };
        let reported_digest = self.runtime.pull(name, &step).await?;
        let found = self.runtime.image(name).await.ok();
        let digest =
            reported_digest.or_else(|| found.as_ref().and_then(|found| digest_of(name, found)));
        if let Some(found) = found.filter(|_| is_ours) {
            let names = pulled_names(name, digest.as_deref());
            self.record
                .pulled(&found.id, names, SystemTime::now())
                .await;
        }
        Ok(Pulled { digest })
    }
}

/// The names that a pull gives an image: the requested one and the digest.
fn pulled_names(name: &str, digest: Option<&str>) -> BTreeSet<String> {
    let by_digest = digest.map(|digest| reference::by_digest(name, digest));
    by_digest.into_iter().chain([name.to_owned()]).collect()
}

/// The image's digest in its own repository; a digest in the reference takes precedence.
pub fn digest_of(image: &str, found: &Image) -> Option<String> {
    if let Some(digest) = reference::own_digest(image) {
        return Some(digest.to_owned());
    }
    let wanted = reference::repository(image);
    found.repo_digests.iter().find_map(|known| {
        let (repository, digest) = known.split_once('@')?;
        (repository == wanted).then(|| digest.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_images_own_repository() {
        let image = Image {
            id: String::new(),
            exposed: vec![],
            tags: vec![],
            repo_digests: vec![
                "other@sha256:1".into(),
                "r:5000/app@sha256:2".into(),
                "hello@sha256:3".into(),
            ],
            created: None,
        };
        let digest = |reference| digest_of(reference, &image);
        assert_eq!(digest("r:5000/app:tag").as_deref(), Some("sha256:2"));
        assert_eq!(
            digest("docker.io/library/hello").as_deref(),
            Some("sha256:3")
        );
        assert_eq!(digest("hello@sha256:4").as_deref(), Some("sha256:4"));
        assert_eq!(digest("app:tag"), None);
    }
}
