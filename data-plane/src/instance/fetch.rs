//! What a start needs to know of its image, and how the node comes by it.

use std::time::Instant;

use tracing::info;

use super::owner::Progress;
use super::report::FailureReason;
use super::start::{Halt, Phases, Start};
use super::{failure, image};
use crate::route::PullPolicy;
use crate::runtime::Error;

const DEFAULT_PORT: u16 = 8080;

impl Start {
    /// The reference to pull: by digest once a node has reported one, so that all nodes run the same.
    pub(super) fn image(&self) -> String {
        match &self.version.image_digest {
            Some(digest) => image::by_digest(&self.version.spec.image, digest),
            None => self.version.spec.image.clone(),
        }
    }

    pub(super) async fn pull(&self, phases: &mut Phases) -> Result<(), Halt> {
        let image = self.image();
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
        let pulled = self.wanted(self.engine.runtime.pull(&image, &tell)).await?;
        self.tell(Progress::Pulling(None));
        pulled.map_err(|error| self.engine_failure(error))?;
        phases.pull = Some(asked.elapsed());
        if let Ok(found) = self.engine.runtime.image(&image).await {
            phases.image_digest = image::digest_of(&image, &found);
        }
        Ok(())
    }

    pub(super) async fn find_port(&self, phases: &mut Phases) -> Result<u16, Halt> {
        if let Some(port) = self.version.spec.port.or(self.port) {
            return Ok(port);
        }
        let mut found = self.engine.runtime.image(&self.image()).await;
        if let Err(Error::ImageMissing { .. }) = found
            && phases.pull.is_none()
        {
            self.pull(phases).await?;
            found = self.engine.runtime.image(&self.image()).await;
        }
        let found = found.map_err(|error| self.engine_failure(error))?;
        Ok(match found.exposed[..] {
            [port] => port,
            _ => DEFAULT_PORT,
        })
    }
}
