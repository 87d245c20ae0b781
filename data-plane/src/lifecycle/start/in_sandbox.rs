//! Starting an instance in a network sandbox.
//!
//! Its address is known before it is started, so it is probed from the moment start is sent, and may
//! serve before the engine says that it runs. The engine's answer is waited for all the same: a call
//! that makes something is never dropped half-way, and who freezes or removes the container waits
//! for it too.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Attempt, Halt, Phases, Start};
use crate::instance::gate::Place;
use crate::instance::owner::{Message, Progress};
use crate::instance::sandbox::Lease;
use crate::instance::sure;
use crate::runtime::{ContainerState, Error};

/// An instance that answers.
pub(super) struct Launched<'a> {
    pub(super) address: SocketAddr,
    /// What the engine has still to say about it.
    pub(super) pending: Option<Pending<'a>>,
}

/// A start that the engine has not answered yet.
pub(super) struct Pending<'a>(Call<'a>);

/// A start at the engine; it has a place at the gate until it is over.
type Call<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

impl Start {
    /// Starts it in its sandbox and waits until it answers.
    pub(super) async fn join(
        &self,
        lease: &Lease,
        port: u16,
        mut place: Place,
        attempt: &Attempt,
        phases: &mut Phases,
    ) -> Result<Launched<'_>, Halt> {
        let address = SocketAddr::new(lease.address, port);
        let probe = self.probe_of(address);
        let asked = Instant::now();
        let mut call: Call<'_> = Box::pin(async move {
            let started = sure::start(&self.engine, &self.name);
            place.during(started).await
        });
        let started = tokio::select! {
            () = probe.while_starting() => None,
            started = &mut call => Some(started),
        };
        phases.start = Some(asked.elapsed());
        let Some(started) = started else {
            phases.ready = Some(Duration::ZERO);
            let pending = Some(Pending(call));
            return Ok(Launched { address, pending });
        };
        if let Err(error) = started {
            return Err(self.not_joined(lease, error).await);
        }
        drop(call);
        self.tell(Progress::Started);
        let asked = Instant::now();
        tokio::select! {
            biased;
            () = lease.lost.cancelled() => {
                return Err(Halt::Detached("its pause container has ended".to_owned()));
            }
            answered = self.wanted(self.probe(&probe, &attempt.died)) => answered??,
        }
        phases.ready = Some(asked.elapsed());
        Ok(Launched {
            address,
            pending: None,
        })
    }

    /// Whether the sandbox is to blame for a start that the engine did not do.
    async fn not_joined(&self, lease: &Lease, error: Error) -> Halt {
        let refused = matches!(error, Error::Refused(_) | Error::NotFound(_));
        let held = self.engine.runtime.inspect(&lease.id).await;
        if refused || !held.is_ok_and(|held| held.state == ContainerState::Running) {
            return Halt::Detached(error.to_string());
        }
        self.engine_failure(error)
    }

    /// Makes way for another attempt, on the bridge.
    pub(super) async fn leave_sandbox(&self, why: &str) {
        info!(
            service = %self.version.service, version = self.version.key.number, container = %self.name,
            why, "starting without a network sandbox"
        );
        let engine = &self.engine;
        if let Err(error) = sure::remove(engine, &self.name).await {
            warn!(container = %self.name, %error, "cannot remove a container that is to be made again");
        }
        engine.sandboxes.discard(&engine.runtime, &self.name);
    }

    /// Waits for the engine's answer to the start of an instance that serves already.
    pub(super) async fn see_through(&self, pending: Pending<'_>) {
        if let Err(error) = pending.0.await {
            warn!(container = %self.name, %error, "the engine failed to start what answers");
            self.pool.tell(Message::Suspected(self.serial));
        }
    }
}
