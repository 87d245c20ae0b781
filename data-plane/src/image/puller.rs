//! Pulls, one at a time for each name.
//!
//! A pull is a task of its own. Whoever wants the image joins the one under way, and whoever goes
//! away leaves it to the others: it always runs to its end, and what it brought is recorded.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::progress::Progress;
use super::record::Record;
use crate::runtime::{Error, Image, PullStep, Runtime, reference};

/// A caller is told how far it is about this often, however many steps an engine reports.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The digest under which the registry has it.
    pub digest: Option<String>,
}

#[derive(Debug, Clone)]
enum Flight {
    /// With a line for a person.
    Underway(Arc<str>),
    Over(Result<Pulled, Error>),
}

/// The pulls of a node. Cheap to clone.
#[derive(Clone)]
pub struct Puller {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Arc<dyn Runtime>,
    record: Arc<Record>,
    flights: Mutex<HashMap<String, watch::Receiver<Flight>>>,
}

impl Puller {
    /// No pulls yet.
    pub fn new(runtime: Arc<dyn Runtime>, record: Arc<Record>) -> Self {
        Self {
            inner: Arc::new(Inner {
                runtime,
                record,
                flights: Mutex::default(),
            }),
        }
    }

    /// Pulls an image, or joins the pull of it; `tell` is called with a line for a person, at once
    /// and then every half second if it has changed.
    ///
    /// Dropping the future ends nothing but the wait.
    ///
    /// # Errors
    /// Those of [`Runtime::pull`].
    pub async fn pull(&self, image: &str, tell: impl Fn(&str)) -> Result<Pulled, Error> {
        let mut flight = self.join(&reference::name(image));
        let mut told: Option<Arc<str>> = None;
        loop {
            if let Flight::Underway(line) = &*flight.borrow_and_update()
                && told.as_ref() != Some(line)
            {
                tell(line);
                told = Some(line.clone());
            }
            let over = flight.wait_for(|flight| matches!(flight, Flight::Over(_)));
            match tokio::time::timeout(TELL_EVERY, over).await {
                Ok(Ok(over)) => {
                    if let Flight::Over(outcome) = &*over {
                        return outcome.clone();
                    }
                }
                Ok(Err(_)) => {
                    return Err(Error::NoResponse(
                        "the pull ended without an outcome".to_owned(),
                    ));
                }
                Err(_) => {}
            }
        }
    }

    fn join(&self, name: &str) -> watch::Receiver<Flight> {
        let mut flights = self.inner.flights.lock();
        if let Some(flight) = flights.get(name) {
            return flight.clone();
        }
        let asking: Arc<str> = format!("from {}", reference::registry(name)).into();
        let (progress, flight) = watch::channel(Flight::Underway(asking));
        flights.insert(name.to_owned(), flight.clone());
        let landing = Landing {
            inner: self.inner.clone(),
            name: name.to_owned(),
        };
        tokio::spawn(async move {
            let outcome = landing.inner.fly(&landing.name, &progress).await;
            // Whoever comes from now on begins anew; whoever waits gets this outcome.
            drop(landing);
            progress.send_replace(Flight::Over(outcome));
        });
        flight
    }
}

/// Takes the pull off the list, also should its task panic.
struct Landing {
    inner: Arc<Inner>,
    name: String,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights.lock().remove(&self.name);
    }
}

impl Inner {
    async fn fly(&self, name: &str, progress: &watch::Sender<Flight>) -> Result<Pulled, Error> {
        // What was here before is not ours to remove later, unless an earlier pull brought it.
        let before = self.runtime.image(name).await;
        let ours = match before {
            Ok(_) => self.record.has_name(name),
            Err(Error::ImageMissing { .. }) => true,
            Err(_) => false,
        };
        let steps = Mutex::new(Progress::default());
        let step = |step: PullStep| {
            let mut steps = steps.lock();
            steps.step(&step);
            if let Some(line) = steps.line() {
                progress.send_if_modified(|flight| {
                    let differs = !matches!(flight, Flight::Underway(told) if **told == *line);
                    if differs {
                        *flight = Flight::Underway(line.into());
                    }
                    differs
                });
            }
        };
        let said = self.runtime.pull(name, &step).await?;
        let found = self.runtime.image(name).await.ok();
        let digest = said.or_else(|| found.as_ref().and_then(|found| digest_of(name, found)));
        if let Some(found) = found.filter(|_| ours) {
            let names = given_names(name, digest.as_deref());
            self.record
                .pulled(&found.id, names, SystemTime::now())
                .await;
        }
        Ok(Pulled { digest })
    }
}

/// The names that a pull gives an image: the one it was asked for by, and its digest.
fn given_names(name: &str, digest: Option<&str>) -> BTreeSet<String> {
    let by_digest = digest.map(|digest| reference::by_digest(name, digest));
    by_digest.into_iter().chain([name.to_owned()]).collect()
}

/// The digest under which the image's own repository has it: the reference's own, if it gives one.
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
