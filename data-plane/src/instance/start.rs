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

mod join;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::engine::Engine;
use super::gate::Place;
use super::owner::{Message, Progress};
use super::pool::Shared;
use super::report::{ColdStart, FailureReason, StartFailure};
use super::{failure, image, probe};
use crate::route::{PullPolicy, Version};
use crate::runtime::{ContainerSpec, ContainerState, Error, Exit, label};
use join::{Launched, Pending};

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
    /// The network sandbox cannot be used; see the reason.
    Detached(String),
    Failed(StartFailure),
}

/// One way through a start.
struct Attempt {
    /// Whether to use a sandbox.
    join: bool,
    /// The container has ended.
    died: CancellationToken,
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
        let _starting = self.engine.gate.starting();
        let (began, mut phases) = (Instant::now(), Phases::default());
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
        match outcome {
            Ok((started, pending)) => {
                self.tell(Progress::Answered(Box::new(started)));
                if let Some(pending) = pending {
                    self.see_through(pending).await;
                }
            }
            Err(Halt::Failed(failure)) => self.tell(Progress::Failed(Box::new(failure))),
            Err(Halt::Detached(why)) => {
                let failure = failure::new(FailureReason::Engine, why);
                self.tell(Progress::Failed(Box::new(failure)));
            }
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

    async fn start(
        &self,
        attempt: &Attempt,
        began: Instant,
        phases: &mut Phases,
    ) -> Result<(Started, Option<Pending<'_>>), Halt> {
        if self.pull_first && phases.pull.is_none() {
            self.pull(phases).await?;
        }
        let port = self.find_port(phases).await?;
        let network = self.engine.network().await.map_err(failure::of_engine)?;
        let mut spec = self.spec(port, network);
        let mut lease = None;

        let (id, place) = loop {
            let asked = Instant::now();
            let place = self
                .wanted(self.engine.gate.enter(&self.version.service))
                .await?;
            phases.queue = Some(phases.queue.unwrap_or_default() + asked.elapsed());
            if attempt.join && lease.is_none() {
                lease = self.engine.sandboxes.take(&self.name);
                spec.sandbox = lease.as_ref().map(|lease| lease.id.clone());
            }
            let asked = Instant::now();
            match self.engine.runtime.create(&spec).await {
                Ok(id) => {
                    phases.create = Some(asked.elapsed());
                    break (id, place);
                }
                Err(Error::ImageMissing { .. }) if phases.pull.is_none() => {
                    drop(place);
                    self.pull(phases).await?;
                }
                Err(error @ (Error::Refused(_) | Error::NotFound(_))) if lease.is_some() => {
                    return Err(Halt::Detached(error.to_string()));
                }
                Err(error) => return Err(self.engine_failure(error).into()),
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
        let total = began.elapsed();
        info!(
            service = %self.version.service, version = self.version.key.number, container = %self.name,
            total_ms = total.as_millis(), "instance is ready"
        );
        let started = Started {
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
        };
        Ok((started, pending))
    }

    /// Starts it with a network of its own and waits until it answers.
    async fn on_the_bridge(
        &self,
        port: u16,
        place: Place,
        attempt: &Attempt,
        phases: &mut Phases,
    ) -> Result<Launched<'_>, Halt> {
        let asked = Instant::now();
        if let Err(error) = self.engine.runtime.start(&self.name).await {
            return Err(self.engine_failure(error).into());
        }
        phases.start = Some(asked.elapsed());
        drop(place);
        self.tell(Progress::Started);

        let asked = Instant::now();
        let address = SocketAddr::new(self.address().await?, port);
        self.wanted(self.probe(address, &attempt.died)).await??;
        phases.ready = Some(asked.elapsed());
        Ok(Launched {
            address,
            pending: None,
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

    fn spec(&self, port: u16, network: String) -> ContainerSpec {
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
            sandbox: None,
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
    async fn probe(
        &self,
        address: SocketAddr,
        died: &CancellationToken,
    ) -> Result<(), StartFailure> {
        let readiness = &self.version.spec.readiness;
        let deadline = Instant::now() + self.patience;
        let answered = probe::until_ready(address, readiness, deadline);
        tokio::pin!(answered);
        loop {
            tokio::select! {
                biased;
                outcome = &mut answered => return outcome.map_err(|found| self.not_ready(&found)),
                () = died.cancelled() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            match self.engine.runtime.inspect(&self.name).await {
                Ok(found) if found.state == ContainerState::Exited => {
                    return Err(self.exited(found.exit).await);
                }
                Err(error @ Error::NotFound(_)) => return Err(self.engine_failure(error)),
                _ if died.is_cancelled() => {
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

    fn not_ready(&self, found: &str) -> StartFailure {
        failure::new(
            FailureReason::NotReady,
            format!(
                "did not become ready within {:?}: {found}; it must listen on 0.0.0.0 at the port \
                 given as PORT, or raise cold_start_timeout",
                self.patience
            ),
        )
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
