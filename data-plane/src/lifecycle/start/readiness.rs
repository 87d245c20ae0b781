//! Whether the container answers, and in what words it does not.

use std::net::SocketAddr;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{Halt, LOOK_AGAIN, Start};
use crate::instance::failure;
use crate::instance::probe::{Probe, Unready};
use crate::instance::report::{FailureReason, StartFailure};
use crate::instance::trouble::is_no_answer;
use crate::runtime::{ContainerState, Error, Exit};

impl Start {
    /// How it is looked at, at its address.
    pub(super) fn probe_of(&self, address: SocketAddr) -> Probe {
        let runtime = self.engine.runtime.clone();
        Probe::new(runtime, self.name.clone(), address, &self.version.spec)
    }

    /// Waits until it answers, dies, or takes too long.
    pub(super) async fn probe(&self, probe: &Probe, died: &CancellationToken) -> Result<(), Halt> {
        let deadline = Instant::now() + self.patience;
        let met = self.meet(probe, died, deadline).await;
        met.map_err(|halt| match halt {
            Halt::Failed(failure, cause) => {
                let last_probe = probe.last();
                Halt::Failed(
                    StartFailure {
                        last_probe,
                        ..failure
                    },
                    cause,
                )
            }
            other => other,
        })
    }

    pub(super) async fn meet(
        &self,
        probe: &Probe,
        died: &CancellationToken,
        deadline: Instant,
    ) -> Result<(), Halt> {
        let answered = probe.until_ready(deadline);
        tokio::pin!(answered);
        loop {
            tokio::select! {
                biased;
                outcome = &mut answered => return outcome.map_err(|found| self.not_ready(&found).into()),
                () = died.cancelled() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            match self.engine.runtime.inspect(&self.name).await {
                Ok(found) if found.state == ContainerState::Exited => {
                    return Err(self.exited(found.exit).await.into());
                }
                Err(error @ Error::NotFound(_)) => return Err(self.engine_failure(error)),
                Err(error) if is_no_answer(&error) && !died.is_cancelled() => {
                    self.engine.missed();
                }
                _ if died.is_cancelled() => {
                    return Err(self
                        .exited(Exit {
                            code: -1,
                            oom_killed: false,
                        })
                        .await
                        .into());
                }
                // Alive, or the engine is away while the container goes on: so do the looks.
                _ => {}
            }
        }
    }

    pub(super) fn not_ready(&self, found: &Unready) -> StartFailure {
        let message = match found {
            Unready::Late(found) => format!(
                "did not become ready within {:?}: {found}; it must listen on 0.0.0.0 at the port \
                 given as PORT, or raise cold_start_timeout",
                self.patience
            ),
            Unready::Never(why) => format!("cannot become ready: {why}"),
        };
        failure::new(FailureReason::NotReady, message)
    }

    pub(super) async fn exited(&self, exit: Exit) -> StartFailure {
        failure::exited(
            &*self.engine.runtime,
            &self.name,
            exit,
            "before it was ready",
        )
        .await
    }
}
