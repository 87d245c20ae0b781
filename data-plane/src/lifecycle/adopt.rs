//! Adoption of a container that an earlier process of this node left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::event::{EventSender, Started, TaskEvent};
use super::failure;
use super::probe::{Probe, Unready};
use crate::engine::confirmed_calls;
use crate::engine::context::EngineContext;
use crate::engine::error_class::{Cause, cause};
use crate::report::{FailureReason, StartFailure};
use crate::route::Version;

/// An adoption, ready to [run](Adoption::run).
pub(crate) struct Adoption {
    pub(crate) engine: Arc<EngineContext>,
    pub(crate) events: EventSender,
    pub(crate) name: String,
    /// Whether the container is paused and must be resumed first.
    pub(crate) paused: bool,
    pub(crate) version: Arc<Version>,
    pub(crate) address: SocketAddr,
    pub(crate) timeout: Duration,
    pub(crate) cancel: CancellationToken,
    pub(crate) died: CancellationToken,
    /// Cancelled when the container's sandbox ends.
    pub(crate) network_lost: CancellationToken,
}

impl Adoption {
    pub(crate) async fn run(self) {
        let deadline = Instant::now() + self.timeout;
        let runtime = self.engine.runtime.clone();
        let probe = Probe::new(runtime, self.name, self.address, &self.version).at_once();
        let failed = |failure, cause| TaskEvent::Failed(Box::new(failure), cause);
        if self.paused
            && let Err(error) = confirmed_calls::unpause(&self.engine, probe.name()).await
        {
            let cause = cause(&error, self.engine.is_available());
            self.events.send(failed(failure::of_engine(error), cause));
            return;
        }
        let event = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return,
            () = self.died.cancelled() => {
                let why = "ended during its adoption".to_owned();
                failed(failure::new(FailureReason::Exited, why), Cause::Version)
            }
            () = self.network_lost.cancelled() => {
                failed(failure::network_lost("during its adoption"), Cause::Node)
            }
            outcome = probe.until_ready(deadline) => match outcome {
                Ok(()) => TaskEvent::Answered(Box::new(Started {
                    address: self.address,
                    cold_start: None,
                })),
                Err(Unready::Late { found, .. } | Unready::Never(found)) => {
                    let failure = StartFailure {
                        last_probe: Some(found.clone()),
                        ..failure::new(FailureReason::NotReady, found)
                    };
                    failed(failure, Cause::Version)
                }
            },
        };
        self.events.send(event);
    }
}
