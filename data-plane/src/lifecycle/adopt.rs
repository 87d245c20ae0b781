//! Adoptions of containers that an earlier process of this node left, each a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::owner::{Message, Progress};
use super::pool::Shared;
use super::probe::{Probe, Unready};
use super::report::{FailureReason, StartFailure};
use super::start::Started;
use super::trouble::{Cause, cause};
use super::{failure, sure};
use crate::route::Version;

/// Takes a container of an earlier process over: it is ready if it answers within `patience`. One
/// that the earlier process had put to sleep is woken first.
pub(super) struct Adoption {
    pub(super) engine: Arc<Engine>,
    pub(super) name: String,
    /// It is to be thawed first.
    pub(super) frozen: bool,
    pub(super) pool: Arc<Shared>,
    pub(super) serial: u64,
    pub(super) version: Arc<Version>,
    pub(super) address: SocketAddr,
    pub(super) patience: Duration,
    pub(super) give_up: CancellationToken,
    pub(super) died: CancellationToken,
    /// The sandbox it is in has ended.
    pub(super) lost: CancellationToken,
}

impl Adoption {
    pub(super) async fn run(self) {
        let deadline = Instant::now() + self.patience;
        let runtime = self.engine.runtime.clone();
        let probe = Probe::new(runtime, self.name, self.address, &self.version.spec).at_once();
        let failed = |failure, cause| Progress::Failed(Box::new(failure), cause);
        if self.frozen
            && let Err(error) = sure::unpause(&self.engine, probe.name()).await
        {
            let cause = cause(&error, self.engine.outage.borrow().is_on());
            let failed = failed(failure::of_engine(error), cause);
            self.pool.tell(Message::Progress(self.serial, failed));
            return;
        }
        let progress = tokio::select! {
            biased;
            () = self.give_up.cancelled() => return,
            () = self.died.cancelled() => {
                let why = "ended while it was taken over".to_owned();
                failed(failure::new(FailureReason::Exited, why), Cause::Version)
            }
            () = self.lost.cancelled() => {
                failed(failure::network_lost("while it was taken over"), Cause::Node)
            }
            found = probe.until_ready(deadline) => match found {
                Ok(()) => Progress::Answered(Box::new(Started {
                    address: self.address,
                    cold_start: None,
                })),
                Err(Unready::Late(found) | Unready::Never(found)) => {
                    let failure = StartFailure {
                        last_probe: Some(found.clone()),
                        ..failure::new(FailureReason::NotReady, found)
                    };
                    failed(failure, Cause::Version)
                }
            },
        };
        self.pool.tell(Message::Progress(self.serial, progress));
    }
}
