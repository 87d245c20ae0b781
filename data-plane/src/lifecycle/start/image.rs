//! The image of a start: its digest, its pull and its port.
//!
//! The first node that resolves a version's image in a registry fixes its digest for all nodes,
//! even if the tag moves later. A digest is reported once a pull or a start of it succeeded. A start
//! that resolved the image while no digest is fixed waits briefly for the fixed digest when its
//! container answers (see [`Start::await_digest`]). If two nodes resolve a moving tag differently,
//! only one digest is fixed, and the other node starts again by that digest before it serves.
//!
//! An image without a digest was never in a registry. The first start pins its id (see
//! [`crate::image::pins`]), and all later starts run that id, whatever the reference names then. So do
//! all starts under the pull policy `never`. If the pinned image is gone, the start fails and runs
//! nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::outcome::StartAbort;
use super::{Start, node_failure};
use crate::image::puller::digest_of;
use crate::image::resolve::never_pulled;
use crate::lifecycle::event::TaskEvent;
use crate::lifecycle::failure;
use crate::lifecycle::phases::Phases;
use crate::report::{FailureReason, StartFailure};
use crate::route::PullPolicy;
use crate::runtime::{Error, Image, reference};

const DEFAULT_PORT: u16 = 8080;
/// Ports of an image in a message.
const PORTS_SHOWN: usize = 10;

/// The longest wait for the fixed digest. A report, a write and a feed change take about 200 ms. The
/// start then goes on, because requests do not depend on a control plane.
const DIGEST_TIMEOUT: Duration = Duration::from_secs(2);

impl Start {
    /// The digest to run: the fixed one, or the one that this node resolved.
    pub(super) fn digest(&self, phases: &Phases) -> Option<Arc<str>> {
        if self.version.spec.pull_policy == PullPolicy::Never {
            return None;
        }
        let fixed = self.fixed_digest.borrow().clone();
        fixed.or_else(|| phases.image_digest.clone())
    }

    /// The name or id by which the engine finds the image.
    pub(super) fn image(&self, phases: &Phases) -> String {
        match (self.digest(phases), &phases.image_id) {
            (Some(digest), _) => reference::by_digest(&self.version.spec.image, &digest),
            (None, Some(id)) => id.to_string(),
            (None, None) => self.version.spec.image.clone(),
        }
    }

    /// Whether the image is the node's own, so that neither a pull nor a digest concerns it.
    fn is_local(&self) -> bool {
        let version = &self.version;
        version.spec.pull_policy == PullPolicy::Never
            || (version.image_id.is_some() && self.fixed_digest.borrow().is_none())
    }

    pub(super) async fn pull(&self, phases: &mut Phases) -> Result<(), StartAbort> {
        if self.digest(phases).is_none() {
            if let Some(id) = &phases.image_id {
                return Err(self.pinned_is_gone(id).await);
            }
            if self.is_local() {
                return Err(self.not_loaded());
            }
        }
        let image = self.image(phases);
        info!(image, "pulling");
        let began = Instant::now();
        let progress = |line: &str| self.events.send(TaskEvent::Pulling(Some(line.to_owned())));
        let pulled = self
            .or_cancelled(self.engine.puller.pull(&image, progress))
            .await?;
        self.events.send(TaskEvent::Pulling(None));
        let pulled = pulled.map_err(|error| self.engine_failure(error))?;
        self.events.send(TaskEvent::Pulled);
        phases.pull = Some(phases.pull.unwrap_or_default() + began.elapsed());
        phases.pulled.insert(image);
        if let Some(digest) = pulled.digest {
            let digest: Arc<str> = digest.into();
            self.events
                .send(TaskEvent::DigestConfirmed(digest.clone(), None));
            set_resolved(digest, phases);
        }
        Ok(())
    }

    /// Returns the port. Inspects the image unless an earlier start did, and pulls it if it is
    /// missing.
    pub(super) async fn inspect_image(&self, phases: &mut Phases) -> Result<u16, StartAbort> {
        let port = self.version.spec.port.or(self.port);
        if self.digest(phases).is_none() {
            let version = &self.version;
            let pins = &self.engine.pins;
            phases.image_id = pins.get(&version.uid, version.image_generation);
        }
        let pinned = self.image_inspected && phases.image_id.is_some();
        if let (Some(port), true) = (port, pinned || self.digest(phases).is_some()) {
            return Ok(port);
        }
        let found = self.find_image(phases).await?;
        match (port, &found.exposed[..]) {
            (Some(port), _) | (None, &[port]) => Ok(port),
            (None, []) => Ok(DEFAULT_PORT),
            (None, ports) => Err(several_ports(ports).into()),
        }
    }

    /// Finds the image that the version runs, and pins it if it has no digest.
    async fn find_image(&self, phases: &mut Phases) -> Result<Image, StartAbort> {
        if self.digest(phases).is_none() {
            if let Some(id) = phases.image_id.clone() {
                return self.find_pinned(&id).await;
            }
            if let Some(id) = &self.version.image_id
                && self.is_local()
                && let Some(found) = self.inspect(id).await?
            {
                return self.pin(found, phases).await;
            }
        }
        let found = loop {
            let image = self.image(phases);
            match self.inspect(&image).await? {
                Some(found) => break found,
                None if phases.pulled.contains(&image) => {
                    return Err(self.engine_failure(Error::ImageMissing { image }));
                }
                None => self.pull(phases).await?,
            }
        };
        if self.digest(phases).is_some() {
            return Ok(found);
        }
        let digest = digest_of(&self.version.spec.image, &found);
        if let Some(digest) = digest.filter(|_| !self.is_local()) {
            set_resolved(digest.into(), phases);
            return Ok(found);
        }
        self.pin(found, phases).await
    }

    /// `None`: the engine has no such image.
    async fn inspect(&self, image: &str) -> Result<Option<Image>, StartAbort> {
        match self.engine.runtime.image(image).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::ImageMissing { .. }) => Ok(None),
            Err(error) => Err(self.engine_failure(error)),
        }
    }

    /// Pins the version to an image, unless another start has pinned it meanwhile.
    async fn pin(&self, found: Image, phases: &mut Phases) -> Result<Image, StartAbort> {
        let version = &self.version;
        let (image, generation) = (&version.spec.image, version.image_generation);
        let pinned = self
            .engine
            .pins
            .pin(&version.uid, generation, image, &found.id);
        let id = pinned.await.map_err(|error| {
            node_failure(format!(
                "the id of image {image} cannot be recorded in the cache folder of this node: {error}; \
                 the version is not started, because it could run another image later"
            ))
        })?;
        info!(image, image_id = %id, "the version is pinned to a local image");
        phases.image_id = Some(id.clone());
        match *id == *found.id {
            true => {
                self.warn_of_another(&id).await;
                Ok(found)
            }
            false => self.find_pinned(&id).await,
        }
    }

    async fn find_pinned(&self, id: &Arc<str>) -> Result<Image, StartAbort> {
        match self.inspect(id).await? {
            Some(found) => {
                self.warn_of_another(id).await;
                Ok(found)
            }
            None => Err(self.pinned_is_gone(id).await),
        }
    }

    /// The id of the image that the reference names on this node now; `None` if it names none.
    async fn named_id(&self) -> Option<String> {
        let named = self.engine.runtime.image(&self.version.spec.image).await;
        named.ok().map(|found| found.id)
    }

    /// Reports whether the reference, or the node that resolved it, names another image than the
    /// one that this node runs.
    async fn warn_of_another(&self, pinned: &str) {
        let image = &self.version.spec.image;
        let named = self.named_id().await.filter(|id| id != pinned);
        let chosen = self.version.image_id.as_deref();
        let chosen = chosen.filter(|id| *id != pinned && self.is_local());
        let warning = match (named, chosen) {
            (Some(named), _) => Some(format!(
                "image {image} names {named} on this node now; the version runs {pinned}, to which \
                 it is pinned: deploy a new version to run the other image"
            )),
            (None, Some(chosen)) => Some(format!(
                "image {image} is {pinned} on this node, but was {chosen} when the version was \
                 created: load that image on this node, and reset the version's image"
            )),
            (None, None) => None,
        };
        if let Some(warning) = &warning {
            warn!(warning, "the image of a version");
        }
        self.events.send(TaskEvent::ImageWarning(warning));
    }

    /// The failure of a start whose pinned image is gone.
    async fn pinned_is_gone(&self, id: &str) -> StartAbort {
        let image = &self.version.spec.image;
        let named = match self.named_id().await {
            Some(named) => format!("the name stands for {named} now"),
            None => "the name stands for no image now".to_owned(),
        };
        failure::new(
            FailureReason::Image,
            format!(
                "image {image} of this version is pinned to {id}, which is no longer on this node \
                 ({named}); nothing else is run: load that image again, or deploy a new version"
            ),
        )
        .into()
    }

    /// The failure of a start whose local image this node never had.
    fn not_loaded(&self) -> StartAbort {
        let version = &self.version;
        let image = &version.spec.image;
        let message = match (&version.image_id, version.spec.pull_policy) {
            (_, PullPolicy::Never) => never_pulled(image),
            (id, _) => format!(
                "image {image} is not on this node, and it was never in a registry (its id is {}): \
                 load it on the node, for example with `docker save` and `docker load`, or push it \
                 to a registry and deploy a new version",
                id.as_deref().unwrap_or("unknown")
            ),
        };
        failure::new(FailureReason::Image, message).into()
    }

    /// Waits for the fixed digest, if this start resolved one. Does not wait without a control
    /// plane. If another digest is fixed, the pool cancels this start.
    pub(super) async fn await_digest(&self, phases: &Phases) -> Result<(), StartAbort> {
        if !phases.resolved_here {
            return Ok(());
        }
        let mut fixed = self.fixed_digest.clone();
        let mut connected = self.engine.control_plane.subscribe();
        let wait = async {
            tokio::select! {
                _ = fixed.wait_for(Option::is_some) => {}
                _ = connected.wait_for(|connected| !*connected) => {}
                () = tokio::time::sleep(DIGEST_TIMEOUT) => {}
            }
        };
        self.or_cancelled(wait).await
    }
}

fn set_resolved(digest: Arc<str>, phases: &mut Phases) {
    if phases.image_digest.is_none() {
        phases.image_digest = Some(digest);
        phases.resolved_here = true;
    }
}
/// The failure of a version whose image exposes several ports and which names none.
fn several_ports(ports: &[u16]) -> StartFailure {
    let shown = ports.iter().take(PORTS_SHOWN).map(ToString::to_string);
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = if ports.len() > PORTS_SHOWN {
        ", …"
    } else {
        ""
    };
    failure::new(
        FailureReason::Image,
        format!(
            "the image exposes several ports ({shown}{more}) and the version names none: deploy with \
             --port, the one that serves HTTP"
        ),
    )
}
