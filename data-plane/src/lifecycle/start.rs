//! Starts, each a task of its own.
//!
//! A start goes through pull (only if the image is missing, or the policy says so), the node's
//! gate, create, start, and probes; each phase is timed. It uses a network sandbox if one is ready
//! (see [`join`]) and else the bridge; if the sandbox turns out to be of no use, it begins once more
//! on the bridge. It is told to give up by a token, and it
//! learns of its container's death by another, at once, from the engine's events; in case an event
//! is lost it also asks the engine now and then.
//!
//! A call to the engine that makes something is never dropped half-way: the container would appear
//! after its removal. So giving up is looked at between such calls, and within the waits.
//!
//! How such a call ended is known from `sure`, not from its answer alone; whose fault a failure is,
//! from `trouble`.

#[path = "start/in_sandbox.rs"]
mod join;
#[path = "start/readiness.rs"]
mod ready;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::engine::Engine;
use super::gate::Place;
use super::owner::{Message, Progress};
use super::phases::Phases;
use super::pool::Shared;
use super::report::{ColdStart, FailureReason, StartFailure};
use super::trouble::{Cause, cause};
use super::{failure, sure};
use crate::route::Version;
use crate::runtime::{ContainerSpec, ContainerState, Error, label};
use join::{Launched, Pending};

/// How often a container that does not answer is asked for, in case its death was not told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One start.
pub(super) struct Start {
    pub(super) engine: Arc<Engine>,
    pub(super) pool: Arc<Shared>,
    pub(super) serial: u64,
    pub(super) name: String,
    pub(super) version: Arc<Version>,
    /// How long it may take, without the pull and the wait for the gate.
    pub(super) patience: Duration,
    /// The port, if an earlier start found it.
    pub(super) port: Option<u16>,
    /// The digest that this node resolved, if an earlier start did.
    pub(super) image_digest: Option<Arc<str>>,
    /// An earlier start has looked at the image.
    pub(super) looked: bool,
    /// The policy says `always` and this is the version's first start here.
    pub(super) pull_first: bool,
    pub(super) give_up: CancellationToken,
    pub(super) died: CancellationToken,
}

/// A start that succeeded.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) address: SocketAddr,
    pub(super) cold_start: Option<ColdStart>,
}

/// Why a start ends early.
pub(super) enum Halt {
    /// It is no longer wanted.
    GivenUp,
    /// The network sandbox cannot be used; see the reason.
    Detached(String),
    Failed(StartFailure, Cause),
}

/// One way through a start.
struct Attempt {
    /// Whether to use a sandbox.
    join: bool,
    /// The container has ended.
    died: CancellationToken,
}

/// What of the node a container runs in.
struct Site {
    network: String,
    /// The engine's id of the sandbox to join.
    sandbox: Option<String>,
    /// The engine's runtime.
    runtime: Option<String>,
}

impl From<StartFailure> for Halt {
    fn from(failure: StartFailure) -> Self {
        Self::Failed(failure, Cause::Version)
    }
}

impl Start {
    /// Runs to its end and reports it.
    pub(super) async fn run(self) {
        let _starting = self.engine.gate.starting();
        let (began, outages) = (Instant::now(), self.outages());
        let mut phases = Phases {
            image_digest: self.image_digest.clone(),
            ..Phases::default()
        };
        let first = Attempt {
            join: true,
            died: self.died.clone(),
        };
        let mut outcome = self.start(&first, began, &mut phases).await;
        if let Err(Halt::Detached(why)) = &outcome {
            self.leave_sandbox(why).await;
            // The end of the container that was removed just now is not that of the next. Its own is
            // found by looking.
            let second = Attempt {
                join: false,
                died: CancellationToken::new(),
            };
            outcome = self.start(&second, began, &mut phases).await;
        }
        let (failure, mut cause) = match outcome {
            Ok((started, pending)) => {
                self.tell(Progress::Answered(Box::new(started)));
                if let Some(pending) = pending {
                    self.see_through(pending).await;
                }
                return;
            }
            Err(Halt::GivenUp) => return,
            Err(Halt::Failed(failure, cause)) => (failure, cause),
            Err(Halt::Detached(why)) => (failure::new(FailureReason::Engine, why), Cause::Node),
        };
        // An engine that restarts ends what it runs.
        if failure.reason == FailureReason::Exited && self.outages() != outages {
            cause = Cause::Engine;
        }
        let spent = phases.of_failed(failure.reason, began.elapsed());
        self.tell(Progress::Spent(failure.reason, Box::new(spent)));
        self.tell(Progress::Failed(Box::new(failure), cause));
    }

    fn outages(&self) -> u64 {
        self.engine.outage.borrow().count()
    }

    /// A wait that ends when the start is given up.
    pub(super) async fn wanted<T>(&self, wait: impl Future<Output = T>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            () = self.give_up.cancelled() => Err(Halt::GivenUp),
            done = wait => Ok(done),
        }
    }

    pub(super) fn tell(&self, progress: Progress) {
        self.pool.tell(Message::Progress(self.serial, progress));
    }

    async fn start(
        &self,
        attempt: &Attempt,
        began: Instant,
        phases: &mut Phases,
    ) -> Result<(Started, Option<Pending<'_>>), Halt> {
        if self.pull_first && phases.pull.is_none() {
            self.pull(phases).await?;
        }
        let port = self.look(phases).await?;
        let network = self.engine.network().await;
        let network = network.map_err(|error| self.engine_failure(error))?;
        let isolated = self.engine.isolation.ready().await;
        isolated.map_err(|lost| self.not_here(lost.to_string()))?;
        let runtime = self.engine.oci.for_create();
        let runtime = runtime.map_err(|unfit| self.not_here(unfit.to_string()))?;
        let mut lease = None;

        let (id, place) = loop {
            let asked = Instant::now();
            let mut place = self
                .wanted(self.engine.gate.enter(&self.version.service))
                .await?;
            phases.queue = Some(phases.queue.unwrap_or_default() + asked.elapsed());
            if attempt.join && lease.is_none() {
                lease = self.engine.sandboxes.take(&self.name);
            }
            let sandbox = lease.as_ref().map(|lease| lease.id.clone());
            let site = Site {
                network: network.clone(),
                sandbox,
                runtime: runtime.clone(),
            };
            let spec = self.spec(port, site, phases);
            if let Some(digest) = self.digest(phases) {
                self.tell(Progress::Resolved(digest));
            }
            let asked = Instant::now();
            match place.during(sure::create(&self.engine, &spec)).await {
                Ok(id) => {
                    self.engine.has_space();
                    phases.create = Some(asked.elapsed());
                    break (id, place);
                }
                Err(Error::ImageMissing { .. }) if !phases.pulled.contains(&spec.image) => {
                    drop(place);
                    self.pull(phases).await?;
                }
                Err(error @ (Error::Refused(_) | Error::NotFound(_))) if lease.is_some() => {
                    return Err(Halt::Detached(error.to_string()));
                }
                Err(error) => return Err(self.engine_failure(error)),
            }
        };
        self.tell(Progress::Created(id));
        if self.give_up.is_cancelled() {
            return Err(Halt::GivenUp);
        }

        let Launched { address, pending } = match &lease {
            Some(lease) => self.join(lease, port, place, attempt, phases).await?,
            None => self.on_the_bridge(port, place, attempt, phases).await?,
        };
        self.settle(phases).await?;
        let cold_start = phases.of_ready(began.elapsed(), SystemTime::now());
        info!(
            service = %self.version.service, version = self.version.key.number, container = %self.name,
            total_ms = cold_start.total.as_millis(), phases = %cold_start, "instance is ready"
        );
        let started = Started {
            address,
            cold_start: Some(cold_start),
        };
        Ok((started, pending))
    }

    /// Starts it with a network of its own and waits until it answers.
    async fn on_the_bridge(
        &self,
        port: u16,
        mut place: Place,
        attempt: &Attempt,
        phases: &mut Phases,
    ) -> Result<Launched<'_>, Halt> {
        let asked = Instant::now();
        if let Err(error) = place.during(sure::start(&self.engine, &self.name)).await {
            return Err(self.engine_failure(error));
        }
        phases.start = Some(asked.elapsed());
        drop(place);
        self.tell(Progress::Started);

        let asked = Instant::now();
        let address = SocketAddr::new(self.address().await?, port);
        let probe = self.probe_of(address);
        self.wanted(self.probe(&probe, &attempt.died)).await??;
        phases.ready = Some(asked.elapsed());
        Ok(Launched {
            address,
            pending: None,
        })
    }

    fn spec(&self, port: u16, site: Site, phases: &Phases) -> ContainerSpec {
        let version = &self.version;
        let mut env: Vec<String> = version
            .spec
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        env.push(format!("PORT={port}"));
        env.push(format!("CLESS_SERVICE={}", version.service));
        env.push(format!("CLESS_VERSION={}", version.key.number));
        let labels = [
            (label::CLUSTER, self.engine.cluster.read().to_string()),
            (label::NODE, self.engine.node.clone()),
            (label::BOOT, self.engine.boot.clone()),
            (label::SERVICE, version.service.to_string()),
            (label::VERSION, version.key.number.to_string()),
            (label::UID, version.key.service_uid.to_string()),
            (label::PORT, port.to_string()),
        ];
        let digest = self.digest(phases);
        let digest = digest.map(|digest| (label::DIGEST, digest.to_string()));
        ContainerSpec {
            name: self.name.clone(),
            image: self.image(phases),
            env,
            command: version.spec.command.clone(),
            args: version.spec.args.clone(),
            labels: labels
                .into_iter()
                .chain(digest)
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            memory: version.spec.memory_bytes,
            cpu_millis: version.spec.cpu_millis,
            network: site.network,
            pids_limit: version.spec.pids_limit,
            read_only_root: version.spec.read_only_root,
            tmpfs: version.spec.tmpfs.clone(),
            user: version.spec.user.clone(),
            stop_signal: version.spec.stop_signal.clone(),
            stop_grace: version.spec.stop_grace,
            runtime: site.runtime,
            sandbox: site.sandbox,
        }
    }

    async fn address(&self) -> Result<IpAddr, Halt> {
        let found = sure::look(&self.engine, &self.name).await;
        let found = found.map_err(|error| self.engine_failure(error))?;
        match (found.state, found.address) {
            (ContainerState::Running, Some(address)) => Ok(address),
            (ContainerState::Running, None) => Err(failure::new(
                FailureReason::Engine,
                "the engine gave the container no address on the node's network".to_owned(),
            )
            .into()),
            _ => Err(self.exited(found.exit).await.into()),
        }
    }

    /// The node is not in order: no fault of the version's.
    fn not_here(&self, why: String) -> Halt {
        Halt::Failed(failure::new(FailureReason::Engine, why), Cause::Node)
    }

    pub(super) fn engine_failure(&self, error: Error) -> Halt {
        if matches!(error, Error::Away(_)) {
            self.engine.missed();
        }
        let cause = cause(&error, self.engine.outage.borrow().is_on());
        if cause == Cause::Node {
            self.engine.forget_network();
        }
        if let Error::NoSpace(said) = &error {
            self.engine.has_no_space(said);
        }
        Halt::Failed(failure::of_engine(error), cause)
    }
}
