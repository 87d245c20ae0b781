//! Starting an instance in a network sandbox.
//!
//! Its address is known before its start, so probes begin with the start call, and it may serve
//! before the engine responds. The start call is still awaited: a call that creates something is
//! never dropped, and a later pause or removal waits for it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::outcome::{Launched, PendingStart, StartAbort};
use super::{Attempt, Start};
use crate::engine::confirmed_calls;
use crate::engine::sandbox::Lease;
use crate::engine::start_limiter::StartPermit;
use crate::isolation::Permit;
use crate::lifecycle::event::TaskEvent;
use crate::lifecycle::phases::Phases;
use crate::runtime::{ContainerState, Error};

impl Start {
    /// The sandbox of this start; `None` for the bridge. A sandbox has no names of its own unless
    /// it is made for them. Egress needs an address that is known before the program runs, which
    /// may connect at once: such a start makes a sandbox if none is ready.
    pub(super) async fn sandbox(&self) -> Option<Lease> {
        let names = self.names();
        if names.is_empty()
            && let Some(lease) = self.sandboxes.take(&self.name)
        {
            self.permit_egress(lease.address).await;
            return Some(lease);
        }
        if self.version.spec.options.egress.is_empty() {
            return None;
        }
        match self.sandboxes.make(&self.name, names).await {
            Ok(lease) => {
                self.permit_egress(lease.address).await;
                Some(lease)
            }
            Err(error) => {
                warn!(
                    %error,
                    "cannot make a network sandbox; the egress of the container opens after its start"
                );
                None
            }
        }
    }

    /// Lets the container at this address reach its destinations on this node.
    pub(super) async fn permit_egress(&self, from: IpAddr) {
        let to = &self.version.spec.options.egress;
        if let Some(permit) = Permit::new(&self.name, from, to) {
            self.engine.isolation.permit(permit).await;
        }
    }

    /// Starts the container in its sandbox and waits until it answers.
    pub(super) async fn start_in_sandbox(
        &self,
        lease: &Lease,
        port: u16,
        mut permit: StartPermit,
        attempt: &Attempt,
        phases: &mut Phases,
    ) -> Result<Launched<'_>, StartAbort> {
        let address = SocketAddr::new(lease.address, port);
        let probe = self.probe_at(address);
        let began = Instant::now();
        let mut call: PendingStart<'_> = Box::pin(async move {
            let start = confirmed_calls::start(&self.engine, &self.name);
            permit.during(start).await
        });
        let started = tokio::select! {
            () = probe.while_starting() => None,
            started = &mut call => Some(started),
        };
        phases.start = Some(began.elapsed());
        let Some(started) = started else {
            phases.ready = Some(Duration::ZERO);
            let pending = Some(call);
            return Ok(Launched { address, pending });
        };
        if let Err(error) = started {
            return Err(self.classify_start_error(lease, error).await);
        }
        drop(call);
        self.events.send(TaskEvent::Started);
        let began = Instant::now();
        tokio::select! {
            biased;
            () = lease.lost.cancelled() => {
                let why = "its pause container has ended".to_owned();
                return Err(StartAbort::NetworkUnusable(why));
            }
            ready = self.or_cancelled(self.until_ready(&probe, &attempt.died)) => ready??,
        }
        phases.ready = Some(began.elapsed());
        Ok(Launched {
            address,
            pending: None,
        })
    }

    /// Decides whether the sandbox caused a failed start call.
    async fn classify_start_error(&self, lease: &Lease, error: Error) -> StartAbort {
        let refused = matches!(error, Error::Refused(_) | Error::NotFound(_));
        let holder = self.engine.runtime.inspect(&lease.id).await;
        if refused || !holder.is_ok_and(|holder| holder.state == ContainerState::Running) {
            return StartAbort::NetworkUnusable(error.to_string());
        }
        self.start_failure(error).await
    }

    /// Removes the container and its sandbox, before another attempt on the bridge.
    pub(super) async fn leave_sandbox(&self, why: &str) {
        info!(why, "starting again on the node's network");
        if let Err(error) = confirmed_calls::remove(&self.engine, &self.name).await {
            warn!(%error, "cannot remove a container before it is created again");
        }
        self.engine.isolation.revoke(&self.name).await;
        self.sandboxes.discard(&self.name);
    }

    /// Awaits the engine's response to the start of a container that already serves.
    pub(super) async fn await_engine(&self, pending: PendingStart<'_>) {
        if let Err(error) = pending.await {
            warn!(%error, "the engine reports a failed start of a container that answers");
            self.events.send(TaskEvent::StartUnconfirmed);
        }
    }
}
