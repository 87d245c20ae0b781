//! The image of a start: its digest, its pull and its port.
//!
//! The first node that resolves a version's image in a registry fixes its digest for all nodes,
//! even if the tag moves later. A start that resolves the image while no digest is fixed reports
//! its digest at once. When its container answers, it waits briefly for the fixed digest (see
//! [`Start::await_digest`]). If two nodes resolve a moving tag differently, only one digest is
//! fixed, and the other node starts again by that digest before it serves.
//!
//! Under the pull policy `never` the image is the one that the node has under the version's
//! reference.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::Start;
use super::outcome::StartAbort;
use crate::image::puller::digest_of;
use crate::lifecycle::event::TaskEvent;
use crate::lifecycle::failure;
use crate::lifecycle::phases::Phases;
use crate::report::{FailureReason, StartFailure};
use crate::route::PullPolicy;
use crate::runtime::{Error, reference};

const DEFAULT_PORT: u16 = 8080;
/// Ports of an image in a message.
const PORTS_SHOWN: usize = 10;

/// The longest wait for the fixed digest. A report, a write and a feed change take about 200 ms,
/// and they began before the create call. The start then goes on, because requests do not depend on
/// a control plane.
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

    pub(super) fn image(&self, phases: &Phases) -> String {
        match self.digest(phases) {
            Some(digest) => reference::by_digest(&self.version.spec.image, &digest),
            None => self.version.spec.image.clone(),
        }
    }

    pub(super) async fn pull(&self, phases: &mut Phases) -> Result<(), StartAbort> {
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
            self.set_resolved(digest.into(), phases);
        }
        Ok(())
    }

    /// Returns the port. Inspects the image unless an earlier start did, and pulls it if it is
    /// missing.
    pub(super) async fn inspect_image(&self, phases: &mut Phases) -> Result<u16, StartAbort> {
        let port = self.version.spec.port.or(self.port);
        let never = self.version.spec.pull_policy == PullPolicy::Never;
        let resolved = never || self.image_inspected || self.digest(phases).is_some();
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
            self.set_resolved(digest.into(), phases);
        }
        match (port, &found.exposed[..]) {
            (Some(port), _) | (None, &[port]) => Ok(port),
            (None, []) => Ok(DEFAULT_PORT),
            (None, ports) => Err(several_ports(ports).into()),
        }
    }

    fn set_resolved(&self, digest: Arc<str>, phases: &mut Phases) {
        if phases.image_digest.is_none() {
            self.events.send(TaskEvent::Resolved(digest.clone()));
            phases.image_digest = Some(digest);
            phases.resolved_here = true;
        }
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
