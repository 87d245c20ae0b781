//! The start of one instance.
//!
//! ```text
//!   pull, if needed ──► start permit ──► create ──► start ──► probe ──► ready
//! ```
//!
//! A start joins a network sandbox if one is ready (see [`in_sandbox`]) and uses the bridge
//! otherwise. If the sandbox is unusable, or another program has removed the node's network, the
//! start begins again on the bridge, whose network is created if it is missing. A token cancels
//! the start; another reports the container's death, from the engine's events. Because an event may
//! be lost, the start also inspects the container periodically.
//!
//! An engine call that creates something is never dropped: its container would appear after the
//! removal. So cancellation takes effect between such calls and during waits.

mod image;
mod in_sandbox;
mod outcome;
mod readiness;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span};

use super::event::{EventSender, Started, TaskEvent};
use super::failure;
use super::phases::Phases;
use crate::engine::confirmed_calls;
use crate::engine::context::EngineContext;
use crate::engine::error_class::{Cause, cause};
use crate::engine::sandbox::Sandboxes;
use crate::engine::start_limiter::{Caller, Demand, StartPermit, StartRequest};
use crate::engine::start_order::Rank;
use crate::report::FailureReason;
use crate::route::Version;
use crate::runtime::{ContainerOptions, ContainerSpec, ContainerState, Error, NetworkNames, label};
use outcome::{Launched, PendingStart, StartAbort};

/// Interval at which a starting container is inspected, in case the event of its death was lost.
const INSPECT_EVERY: Duration = Duration::from_millis(500);

/// A start, ready to [run](Start::run).
pub(crate) struct Start {
    pub(crate) engine: Arc<EngineContext>,
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) events: EventSender,
    pub(crate) name: String,
    pub(crate) version: Arc<Version>,
    /// The digest that the control plane fixed for the version; `None` until it has.
    pub(crate) fixed_digest: watch::Receiver<Option<Arc<str>>>,
    /// Time limit of the probes; pull and permit have none.
    pub(crate) timeout: Duration,
    /// The port that an earlier start found.
    pub(crate) port: Option<u16>,
    /// The digest that an earlier start on this node resolved.
    pub(crate) image_digest: Option<Arc<str>>,
    /// Whether an earlier start has inspected the image.
    pub(crate) image_inspected: bool,
    /// Whether to pull before anything else: the first start under the pull policy `always`.
    pub(crate) pull_first: bool,
    /// Those who wait for it.
    pub(crate) demand: Arc<Demand>,
    /// The operator who waits for a verification; `None` for any other start.
    pub(crate) _operator: Option<Caller>,
    pub(crate) rank: Rank,
    pub(crate) cancel: CancellationToken,
    pub(crate) died: CancellationToken,
}

struct Attempt {
    use_sandbox: bool,
    died: CancellationToken,
}

/// The parts of a container's specification that depend on the node.
struct Placement {
    network: String,
    /// The engine's id of the sandbox to join; `None`: the bridge.
    sandbox: Option<String>,
    /// `None`: the engine's default.
    oci_runtime: Option<String>,
}

impl Start {
    pub(crate) async fn run(self) {
        let span = info_span!(
            parent: None,
            "cold_start",
            service = %self.version.service,
            version = self.version.key.number,
            instance = %self.name,
        );
        self.run_to_end().instrument(span).await;
    }

    async fn run_to_end(self) {
        let _in_progress = self.engine.start_limiter.begin_start();
        let _task = self.engine.begin_task();
        let (began, outages) = (Instant::now(), self.outages());
        let mut phases = Phases {
            image_digest: self.image_digest.clone(),
            ..Phases::default()
        };
        let first = Attempt {
            use_sandbox: true,
            died: self.died.clone(),
        };
        let mut outcome = self.attempt(&first, began, &mut phases).await;
        if let Err(StartAbort::NetworkUnusable(why)) = &outcome {
            self.engine.forget_network();
            self.leave_sandbox(why).await;
            // `self.died` may report the container that was just removed. Inspections notice the
            // death of the next.
            let second = Attempt {
                use_sandbox: false,
                died: CancellationToken::new(),
            };
            outcome = self.attempt(&second, began, &mut phases).await;
        }
        let (failure, mut cause) = match outcome {
            Ok((started, pending)) => {
                self.events.send(TaskEvent::Answered(Box::new(started)));
                if let Some(pending) = pending {
                    self.await_engine(pending).await;
                }
                return;
            }
            Err(StartAbort::Cancelled) => return,
            Err(StartAbort::Failed(failure, cause)) => (failure, cause),
            Err(StartAbort::NetworkUnusable(why)) => {
                (failure::new(FailureReason::Engine, why), Cause::Node)
            }
        };
        // A restarting engine ends its containers.
        if failure.reason == FailureReason::Exited && self.outages() != outages {
            cause = Cause::Engine;
        }
        let spent = phases.of_failed(failure.reason, began.elapsed());
        self.events
            .send(TaskEvent::FailedPhases(failure.reason, Box::new(spent)));
        self.events
            .send(TaskEvent::Failed(Box::new(failure), cause));
    }

    fn request(&self) -> StartRequest {
        StartRequest {
            service: self.version.service.clone(),
            rank: self.rank,
            demand: self.demand.clone(),
        }
    }

    fn outages(&self) -> u64 {
        self.engine.availability.borrow().outages()
    }

    /// Waits, unless the start is cancelled.
    async fn or_cancelled<T>(&self, wait: impl Future<Output = T>) -> Result<T, StartAbort> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(StartAbort::Cancelled),
            done = wait => Ok(done),
        }
    }

    async fn attempt(
        &self,
        attempt: &Attempt,
        began: Instant,
        phases: &mut Phases,
    ) -> Result<(Started, Option<PendingStart<'_>>), StartAbort> {
        if let Some(refused) = self.not_allowed() {
            return Err(refused);
        }
        if self.pull_first && phases.pull.is_none() {
            self.pull(phases).await?;
        }
        let port = self.inspect_image(phases).await?;
        self.events.send(TaskEvent::Port(port));
        let network = self.engine.network().await;
        let network = network.map_err(|error| self.engine_failure(error))?;
        let isolated = self.engine.isolation.ready().await;
        isolated.map_err(|error| node_failure(error.to_string()))?;
        let oci_runtime = self.engine.oci_runtime.for_create();
        let oci_runtime = oci_runtime.map_err(|error| node_failure(error.to_string()))?;
        let mut lease = None;

        let (id, permit) = loop {
            let began = Instant::now();
            let limiter = &self.engine.start_limiter;
            let mut permit = self.or_cancelled(limiter.acquire(self.request())).await?;
            phases.queue = Some(phases.queue.unwrap_or_default() + began.elapsed());
            if attempt.use_sandbox && lease.is_none() {
                lease = self.sandbox().await;
            }
            let placement = Placement {
                network: network.clone(),
                sandbox: lease.as_ref().map(|lease| lease.id.clone()),
                oci_runtime: oci_runtime.clone(),
            };
            let spec = self.spec(port, placement, phases);
            if let Some(digest) = self.digest(phases) {
                self.events.send(TaskEvent::Runs(digest));
            }
            let began = Instant::now();
            let create = confirmed_calls::create(&self.engine, &spec);
            match permit.during(create).await {
                Ok(id) => {
                    self.engine.clear_disk_full();
                    phases.create = Some(began.elapsed());
                    break (id, permit);
                }
                Err(Error::ImageMissing { .. }) if !phases.pulled.contains(&spec.image) => {
                    drop(permit);
                    self.pull(phases).await?;
                }
                Err(error @ (Error::Refused(_) | Error::NotFound(_))) if lease.is_some() => {
                    return Err(StartAbort::NetworkUnusable(error.to_string()));
                }
                Err(error) => return Err(self.engine_failure(error)),
            }
        };
        self.events.send(TaskEvent::Created(id));
        if self.cancel.is_cancelled() {
            return Err(StartAbort::Cancelled);
        }

        let Launched { address, pending } = match &lease {
            Some(lease) => {
                self.start_in_sandbox(lease, port, permit, attempt, phases)
                    .await?
            }
            None => self.start_on_bridge(port, permit, attempt, phases).await?,
        };
        let cold_start = phases.of_ready(began.elapsed(), SystemTime::now());
        if let Some(digest) = self.digest(phases) {
            let cold_start = Some(Box::new(cold_start.clone()));
            self.events
                .send(TaskEvent::DigestConfirmed(digest, cold_start));
        }
        self.await_digest(phases).await?;
        let cold_start = phases.of_ready(began.elapsed(), SystemTime::now());
        info!(
            total_ms = cold_start.total.as_millis(), phases = %cold_start, "instance is ready"
        );
        let started = Started {
            address,
            cold_start: Some(cold_start),
        };
        Ok((started, pending))
    }

    /// Starts the container in a network namespace of its own and waits until it answers.
    async fn start_on_bridge(
        &self,
        port: u16,
        mut permit: StartPermit,
        attempt: &Attempt,
        phases: &mut Phases,
    ) -> Result<Launched<'_>, StartAbort> {
        let began = Instant::now();
        let start = confirmed_calls::start(&self.engine, &self.name);
        match permit.during(start).await {
            Ok(()) => {}
            Err(Error::NotFound(why)) if attempt.use_sandbox => {
                return Err(StartAbort::NetworkUnusable(why));
            }
            Err(error) => return Err(self.start_failure(error).await),
        }
        phases.start = Some(began.elapsed());
        drop(permit);
        self.events.send(TaskEvent::Started);

        let began = Instant::now();
        let address = SocketAddr::new(self.address().await?, port);
        self.permit_egress(address.ip()).await;
        let probe = self.probe_at(address);
        self.or_cancelled(self.until_ready(&probe, &attempt.died))
            .await??;
        phases.ready = Some(began.elapsed());
        Ok(Launched {
            address,
            pending: None,
        })
    }

    fn spec(&self, port: u16, placement: Placement, phases: &Phases) -> ContainerSpec {
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
        let generation = version.image_generation;
        let generation =
            (generation > 0).then(|| (label::IMAGE_GENERATION, generation.to_string()));
        ContainerSpec {
            name: self.name.clone(),
            image: self.image(phases),
            env,
            command: version.spec.command.clone(),
            args: version.spec.args.clone(),
            labels: labels
                .into_iter()
                .chain(digest)
                .chain(generation)
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            memory: version.spec.memory_bytes,
            cpu_millis: version.spec.cpu_millis,
            network: placement.network,
            pids_limit: version.spec.pids_limit,
            read_only_root: version.spec.read_only_root,
            tmpfs: version.spec.tmpfs.clone(),
            user: version.spec.user.clone(),
            stop_signal: version.spec.stop_signal.clone(),
            stop_grace: version.spec.stop_grace,
            runtime: placement.oci_runtime,
            sandbox: placement.sandbox,
            options: self.options(),
        }
    }

    fn options(&self) -> ContainerOptions {
        let options = &self.version.spec.options;
        let ulimits = options.ulimits.iter();
        ContainerOptions {
            no_init: options.no_init,
            cap_add: options.cap_add.clone(),
            tmpfs_exec: options.tmpfs_exec.clone(),
            shm_bytes: options.shm_bytes,
            ulimits: ulimits
                .map(|one| (one.name.clone(), one.soft, one.hard))
                .collect(),
            names: self.names(),
        }
    }

    fn names(&self) -> NetworkNames {
        let options = &self.version.spec.options;
        NetworkNames {
            hosts: options.extra_hosts.clone(),
            dns: options.dns.clone(),
        }
    }

    /// The refusal of a version that asks for more than the node allows.
    fn not_allowed(&self) -> Option<StartAbort> {
        let options = &self.version.spec.options;
        let why = self
            .engine
            .policy
            .refusal(&options.cap_add, &options.egress)?;
        let failure = failure::new(FailureReason::NotAllowed, why);
        Some(StartAbort::Failed(failure, Cause::Node))
    }

    async fn address(&self) -> Result<IpAddr, StartAbort> {
        let found = confirmed_calls::inspect(&self.engine, &self.name).await;
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

    fn engine_failure(&self, error: Error) -> StartAbort {
        if matches!(error, Error::NotSent(_)) {
            self.engine.record_failure();
        }
        let cause = cause(&error, self.engine.is_available());
        if cause == Cause::Node {
            self.engine.forget_network();
        }
        if let Error::NoSpace(message) = &error {
            self.engine.set_disk_full(message);
        }
        StartAbort::Failed(failure::of_engine(error), cause)
    }
}

/// A failure of the node, not of the version.
fn node_failure(why: String) -> StartAbort {
    StartAbort::Failed(failure::new(FailureReason::Engine, why), Cause::Node)
}
