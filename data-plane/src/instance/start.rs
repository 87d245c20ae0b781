//! Starts and adoptions, each a task of its own.
//!
//! A start goes through pull (only if the image is missing, or the policy says so), the node's
//! gate, create, start, and probes; each phase is timed. It is told to give up by a token, and it
//! learns of its container's death by another, at once, from the engine's events; in case an event
//! is lost it also asks the engine now and then.
//!
//! A call to the engine that makes something is never dropped half-way: the container would appear
//! after its removal. So giving up is looked at between such calls, and within the waits.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::engine::Engine;
use super::owner::{Message, Progress};
use super::pool::Shared;
use super::probe::{Probe, Unready};
use super::report::{ColdStart, FailureReason, StartFailure};
use super::{failure, image};
use crate::route::{PullPolicy, Version};
use crate::runtime::{ContainerSpec, ContainerState, Error, Exit, label};

/// How often a container that does not answer is asked for, in case its death was not told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const DEFAULT_PORT: u16 = 8080;

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
    pub(super) image_digest: Option<String>,
    pub(super) pulled: bool,
}

/// Why a start ends early.
enum Halt {
    /// It is no longer wanted.
    GivenUp,
    Failed(StartFailure),
}

impl From<StartFailure> for Halt {
    fn from(failure: StartFailure) -> Self {
        Self::Failed(failure)
    }
}

#[derive(Debug, Default)]
struct Phases {
    pull: Option<Duration>,
    queue: Option<Duration>,
    create: Option<Duration>,
    start: Option<Duration>,
    ready: Option<Duration>,
    image_digest: Option<String>,
}

impl Start {
    /// Runs to its end and reports it.
    pub(super) async fn run(self) {
        match self.start().await {
            Ok(started) => self.tell(Progress::Answered(Box::new(started))),
            Err(Halt::Failed(failure)) => self.tell(Progress::Failed(Box::new(failure))),
            Err(Halt::GivenUp) => {}
        }
    }

    /// A wait that ends when the start is given up.
    async fn wanted<T>(&self, wait: impl Future<Output = T>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            () = self.give_up.cancelled() => Err(Halt::GivenUp),
            done = wait => Ok(done),
        }
    }

    fn tell(&self, progress: Progress) {
        self.pool.tell(Message::Progress(self.serial, progress));
    }

    async fn start(&self) -> Result<Started, Halt> {
        let began = Instant::now();
        let mut phases = Phases::default();
        if self.pull_first {
            self.pull(&mut phases).await?;
        }
        let port = self.find_port(&mut phases).await?;
        let network = self.engine.network().await.map_err(failure::of_engine)?;
        let runtime = self.engine.oci.for_create();
        let runtime = runtime.map_err(failure::unfit)?;
        let spec = self.spec(port, network, runtime);

        let (id, place) = loop {
            let asked = Instant::now();
            let place = self
                .wanted(self.engine.gate.enter(&self.version.service))
                .await?;
            phases.queue = Some(phases.queue.unwrap_or_default() + asked.elapsed());
            let asked = Instant::now();
            match self.engine.runtime.create(&spec).await {
                Ok(id) => {
                    phases.create = Some(asked.elapsed());
                    break (id, place);
                }
                Err(Error::ImageMissing { .. }) if phases.pull.is_none() => {
                    drop(place);
                    self.pull(&mut phases).await?;
                }
                Err(error) => return Err(self.engine_failure(error).into()),
            }
        };
        self.tell(Progress::Created(id));
        if self.give_up.is_cancelled() {
            return Err(Halt::GivenUp);
        }

        let asked = Instant::now();
        if let Err(error) = self.engine.runtime.start(&self.name).await {
            return Err(self.engine_failure(error).into());
        }
        phases.start = Some(asked.elapsed());
        drop(place);
        self.tell(Progress::Started);

        let asked = Instant::now();
        let address = SocketAddr::new(self.address().await?, port);
        self.wanted(self.probe(address)).await??;
        phases.ready = Some(asked.elapsed());
        let total = began.elapsed();
        info!(
            service = %self.version.service, version = self.version.key.number, container = %self.name,
            total_ms = total.as_millis(), "instance is ready"
        );
        Ok(Started {
            address,
            image_digest: phases.image_digest.take(),
            pulled: phases.pull.is_some(),
            cold_start: Some(ColdStart {
                pull: phases.pull,
                queue: phases.queue,
                create: phases.create,
                start: phases.start,
                ready: phases.ready,
                total,
                at: SystemTime::now(),
            }),
        })
    }

    /// The reference to pull: by digest once a node has reported one, so that all nodes run the same.
    fn image(&self) -> String {
        match &self.version.image_digest {
            Some(digest) => image::by_digest(&self.version.spec.image, digest),
            None => self.version.spec.image.clone(),
        }
    }

    async fn pull(&self, phases: &mut Phases) -> Result<(), Halt> {
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

    async fn find_port(&self, phases: &mut Phases) -> Result<u16, Halt> {
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

    fn spec(&self, port: u16, network: String, runtime: Option<String>) -> ContainerSpec {
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
        ContainerSpec {
            name: self.name.clone(),
            image: self.image(),
            env,
            command: version.spec.command.clone(),
            args: version.spec.args.clone(),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            memory: version.spec.memory_bytes,
            cpu_millis: version.spec.cpu_millis,
            network,
            pids_limit: version.spec.pids_limit,
            read_only_root: version.spec.read_only_root,
            tmpfs: version.spec.tmpfs.clone(),
            user: version.spec.user.clone(),
            stop_signal: version.spec.stop_signal.clone(),
            stop_grace: version.spec.stop_grace,
            runtime,
        }
    }

    async fn address(&self) -> Result<IpAddr, StartFailure> {
        let found = self
            .engine
            .runtime
            .inspect(&self.name)
            .await
            .map_err(|error| self.engine_failure(error))?;
        match (found.state, found.address) {
            (ContainerState::Running, Some(address)) => Ok(address),
            (ContainerState::Running, None) => Err(failure::new(
                FailureReason::Engine,
                "the engine gave the container no address on the node's network".to_owned(),
            )),
            _ => Err(self.exited(found.exit).await),
        }
    }

    /// Waits until it answers, dies, or takes too long.
    async fn probe(&self, address: SocketAddr) -> Result<(), StartFailure> {
        let deadline = Instant::now() + self.patience;
        let runtime = self.engine.runtime.clone();
        let probe = Probe::new(runtime, self.name.clone(), address, &self.version.spec);
        let met = self.meet(&probe, deadline).await;
        met.map_err(|failure| StartFailure {
            last_probe: probe.last(),
            ..failure
        })
    }

    async fn meet(&self, probe: &Probe, deadline: Instant) -> Result<(), StartFailure> {
        let answered = probe.until_ready(deadline);
        tokio::pin!(answered);
        loop {
            tokio::select! {
                biased;
                outcome = &mut answered => return outcome.map_err(|found| self.not_ready(&found)),
                () = self.died.cancelled() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            match self.engine.runtime.inspect(&self.name).await {
                Ok(found) if found.state == ContainerState::Exited => {
                    return Err(self.exited(found.exit).await);
                }
                Err(error @ Error::NotFound(_)) => return Err(self.engine_failure(error)),
                _ if self.died.is_cancelled() => {
                    return Err(self
                        .exited(Exit {
                            code: -1,
                            oom_killed: false,
                        })
                        .await);
                }
                // Alive, or the engine is away while the container goes on: so do the looks.
                _ => {}
            }
        }
    }

    fn not_ready(&self, found: &Unready) -> StartFailure {
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

    async fn exited(&self, exit: Exit) -> StartFailure {
        failure::exited(
            &*self.engine.runtime,
            &self.name,
            exit,
            "before it was ready",
        )
        .await
    }

    fn engine_failure(&self, error: Error) -> StartFailure {
        warn!(
            service = %self.version.service, version = self.version.key.number, container = %self.name,
            %error, "a start failed at the engine"
        );
        failure::of_engine(error)
    }
}

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
}

impl Adoption {
    pub(super) async fn run(self) {
        let deadline = Instant::now() + self.patience;
        let runtime = self.engine.runtime.clone();
        let probe = Probe::new(runtime, self.name, self.address, &self.version.spec).at_once();
        if self.frozen
            && let Err(error) = self.engine.runtime.unpause(probe.name()).await
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
            found = probe.until_ready(deadline) => {
                match found {
                    Ok(()) => Progress::Answered(Box::new(Started {
                        address: self.address, cold_start: None, image_digest: None, pulled: false,
                    })),
                    Err(Unready::Late(found) | Unready::Never(found)) => {
                        Progress::Failed(Box::new(StartFailure {
                            last_probe: Some(found.clone()),
                            ..failure::new(FailureReason::NotReady, found)
                        }))
                    }
                }
            }
        };
        self.pool.tell(Message::Progress(self.serial, progress));
    }
}
