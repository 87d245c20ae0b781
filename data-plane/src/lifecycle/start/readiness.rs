//! Waiting until a started container answers, and the failure if it does not.

use std::net::SocketAddr;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::outcome::StartAbort;
use super::{INSPECT_EVERY, Start};
use crate::engine::error_class::is_unreachable;
use crate::lifecycle::capability;
use crate::lifecycle::failure;
use crate::lifecycle::probe::{Probe, Remedy, Unready};
use crate::report::{FailureReason, StartFailure};
use crate::runtime::{ContainerState, Error, Exit};

impl Start {
    pub(super) fn probe_at(&self, address: SocketAddr) -> Probe {
        let runtime = self.engine.runtime.clone();
        Probe::new(runtime, self.name.clone(), address, &self.version)
    }

    /// Waits until the container answers, dies, or exceeds the time limit.
    pub(super) async fn until_ready(
        &self,
        probe: &Probe,
        died: &CancellationToken,
    ) -> Result<(), StartAbort> {
        let deadline = Instant::now() + self.timeout;
        let outcome = self.probe_until(probe, died, deadline).await;
        outcome.map_err(|abort| match abort {
            StartAbort::Failed(failure, cause) => {
                let last_probe = probe.last();
                StartAbort::Failed(
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

    async fn probe_until(
        &self,
        probe: &Probe,
        died: &CancellationToken,
        deadline: Instant,
    ) -> Result<(), StartAbort> {
        let ready = probe.until_ready(deadline);
        tokio::pin!(ready);
        loop {
            tokio::select! {
                biased;
                outcome = &mut ready => {
                    return outcome.map_err(|unready| self.not_ready(&unready).into());
                }
                () = died.cancelled() => {}
                () = tokio::time::sleep(INSPECT_EVERY) => {}
            }
            match self.engine.runtime.inspect(&self.name).await {
                Ok(found) if found.state == ContainerState::Exited => {
                    return Err(self.exited(found.exit).await.into());
                }
                Err(error @ Error::NotFound(_)) => return Err(self.engine_failure(error)),
                Err(error) if is_unreachable(&error) && !died.is_cancelled() => {
                    self.engine.record_failure();
                }
                _ if died.is_cancelled() => {
                    return Err(self.exited(failure::UNKNOWN_EXIT).await.into());
                }
                // The container runs, or the engine is unavailable and the container may run.
                _ => {}
            }
        }
    }

    fn not_ready(&self, unready: &Unready) -> StartFailure {
        let message = match unready {
            Unready::Late { found, remedy } => {
                let remedy = match remedy {
                    Remedy::Wait => "raise cold_start_timeout",
                    Remedy::Listen => {
                        "it must listen on 0.0.0.0 at the port given as PORT, or raise \
                         cold_start_timeout"
                    }
                    Remedy::Host => {
                        "if it refuses this Host, set readiness.http.host (--health-host) to one that \
                         it takes, else raise cold_start_timeout"
                    }
                };
                format!(
                    "did not become ready within {:?}: {found}; {remedy}",
                    self.timeout
                )
            }
            Unready::Never(why) => format!("cannot become ready: {why}"),
        };
        failure::new(FailureReason::NotReady, message)
    }

    pub(super) async fn exited(&self, exit: Exit) -> StartFailure {
        let runtime = &*self.engine.runtime;
        let mut failure = failure::exited(runtime, &self.name, exit, "before it was ready").await;
        self.explain(&mut failure).await;
        failure
    }

    /// Adds the capability that a refused exec lacked.
    async fn explain(&self, failure: &mut StartFailure) {
        let added = &self.version.spec.options.cap_add;
        capability::explain(&*self.engine.runtime, &self.name, added, failure).await;
    }

    /// The failure of the engine's start call.
    pub(super) async fn start_failure(&self, error: Error) -> StartAbort {
        let mut abort = self.engine_failure(error);
        if let StartAbort::Failed(failure, _) = &mut abort {
            self.explain(failure).await;
        }
        abort
    }
}
