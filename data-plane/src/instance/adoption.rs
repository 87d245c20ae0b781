//! Adoptions of containers that an earlier process of this node left, each a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::owner::{Message, Progress};
use super::pool::Shared;
use super::report::FailureReason;
use super::start::Started;
use super::{failure, probe};
use crate::route::Version;

/// Takes a container of an earlier process over: it is ready if it answers within `patience`. One
/// that the earlier process had put to sleep is woken first.
pub(super) struct Adoption {
    pub(super) engine: Arc<Engine>,
    /// Its name, if it is frozen.
    pub(super) frozen: Option<String>,
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
        if let Some(name) = &self.frozen
            && let Err(error) = self.engine.runtime.unpause(name).await
        {
            let failed = Progress::Failed(Box::new(failure::of_engine(error)));
            self.pool.tell(Message::Progress(self.serial, failed));
            return;
        }
        let progress = tokio::select! {
            biased;
            () = self.give_up.cancelled() => return,
            () = self.died.cancelled() => Progress::Failed(Box::new(failure::new(
                FailureReason::Exited, "ended while it was taken over".to_owned(),
            ))),
            () = self.lost.cancelled() => {
                Progress::Failed(Box::new(failure::network_lost("while it was taken over")))
            }
            found = probe::until_ready(self.address, &self.version.spec.readiness, deadline) => {
                match found {
                    Ok(()) => Progress::Answered(Box::new(Started {
                        address: self.address, cold_start: None, image_digest: None, pulled: false,
                    })),
                    Err(found) => Progress::Failed(Box::new(failure::new(FailureReason::NotReady, found))),
                }
            }
        };
        self.pool.tell(Message::Progress(self.serial, progress));
    }
}
