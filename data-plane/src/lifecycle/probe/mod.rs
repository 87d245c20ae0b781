//! Readiness and health probes: when a started container answers, and whether a ready one still
//! does.
//!
//! The first attempt is immediate and the intervals grow ([`cadence`]): most servers listen within
//! milliseconds, and a slow one needs no thousand attempts a second. Probes use the container's own
//! address: behind a published port the engine's proxy accepts before the program listens. Each
//! attempt has a connection of its own and a time limit, and reads a bounded head or message. A
//! redirect is a response and is not followed.
//!
//! [`Readiness::Tcp`] shows that the kernel accepts connections, which it also does for a process
//! that hangs or is paused. [`Readiness::Http`] and [`Readiness::Grpc`] show that the program
//! answers, and [`Readiness::Healthcheck`] that the image's own check succeeds.
//!
//! The node runs the command of a HEALTHCHECK itself: the engine runs it at an interval of 30 s by
//! default, so that it first succeeds after the time limit of a start. One run at a time; a run
//! that exceeds its time limit goes on, because the engine cannot end it, and the next attempt
//! waits for it. The engine's own runs stay, and their failures cause a probe of a ready instance.

mod cadence;
mod grpc;
mod http;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::route::{ProbeTimings, Readiness, Version};
use crate::runtime::{ContainerState, Error, Executed, Healthcheck, Runtime};
use cadence::Cadence;

/// Failed attempts in a row before a ready instance is unresponsive: it may be busy for a moment.
const HEALTH_ATTEMPTS: u32 = 3;
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// Between attempts during the engine's start call. The call takes about 100 ms and a refused
/// connection less than 0.1 ms.
const STARTING_INTERVAL: Duration = Duration::from_millis(2);

/// The reason why a container did not become ready, as text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unready {
    /// Not in time.
    Late {
        /// The result of the last attempt.
        found: String,
        /// The way to make a later attempt succeed.
        remedy: Remedy,
    },
    /// The container will never become ready, for this reason.
    Never(String),
}

/// A remedy for a probe that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// More time.
    Wait,
    /// A program that listens: the connection was refused.
    Listen,
    /// Another Host header: the response is a client error.
    Host,
}

/// A failed attempt, as text for people.
enum Failed {
    /// A later attempt may succeed.
    NotYet(String, Remedy),
    /// No later attempt can succeed.
    Never(String),
}

pub(crate) struct Probe {
    runtime: Arc<dyn Runtime>,
    name: String,
    address: SocketAddr,
    readiness: Readiness,
    /// The Host header of HTTP probes.
    host: String,
    timings: ProbeTimings,
    check: OnceCell<Healthcheck>,
    /// The run of the HEALTHCHECK that has not ended.
    run: tokio::sync::Mutex<Option<JoinHandle<Result<Executed, Error>>>>,
    /// The result of the last attempt; `None` before the first.
    last: Mutex<Option<(String, Remedy)>>,
}

impl Probe {
    /// The probe of a container that has just started, as the version specifies it.
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        name: String,
        address: SocketAddr,
        version: &Version,
    ) -> Self {
        let spec = &version.spec;
        let host = match &spec.readiness {
            Readiness::Http { host, .. } if !host.is_empty() => host.clone(),
            _ if version.host.is_empty() => address.to_string(),
            _ => version.host.to_string(),
        };
        Self {
            host,
            check: OnceCell::new(),
            run: tokio::sync::Mutex::default(),
            runtime,
            name,
            address,
            readiness: spec.readiness.clone(),
            timings: spec.probe,
            last: Mutex::new(None),
        }
    }

    /// Without the initial delay, for a container that has been running.
    pub(crate) fn at_once(mut self) -> Self {
        self.timings.initial_delay = Duration::ZERO;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The result of the last attempt, as text for people; `None` before the first.
    pub(crate) fn last(&self) -> Option<String> {
        self.last.lock().as_ref().map(|(found, _)| found.clone())
    }

    /// Probes until the container answers, or `deadline` passes.
    ///
    /// # Errors
    /// [`Unready`], with the result of the last attempt.
    pub(crate) async fn until_ready(&self, deadline: Instant) -> Result<(), Unready> {
        let delay = self.timings.initial_delay;
        if Instant::now() + delay >= deadline && !delay.is_zero() {
            tokio::time::sleep_until(deadline.into()).await;
            return Err(Unready::Late {
                found: format!("no probe was sent, because initial_delay is {delay:?}"),
                remedy: Remedy::Wait,
            });
        }
        tokio::time::sleep(delay).await;
        let mut cadence = Cadence::up_to(self.timings.period);
        loop {
            let began = Instant::now();
            let left = deadline.saturating_duration_since(began);
            let (found, remedy) = match self.attempt(left).await {
                Ok(()) => return Ok(()),
                Err(Failed::Never(why)) => return Err(Unready::Never(why)),
                Err(Failed::NotYet(found, remedy)) => (found, remedy),
            };
            let mut pause = cadence.pause();
            if self.readiness == Readiness::Healthcheck {
                // A run costs as much CPU time as a small start.
                pause = pause.max(began.elapsed());
            }
            if Instant::now() + pause >= deadline {
                return Err(Unready::Late { found, remedy });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Probes during the engine's start call until the container answers, without a deadline. The
    /// interval is constant, because the program has not begun yet. Never ends for a HEALTHCHECK or
    /// an initial delay, which require a started container.
    pub(crate) async fn while_starting(&self) {
        let early =
            self.readiness != Readiness::Healthcheck && self.timings.initial_delay.is_zero();
        if !early {
            return std::future::pending().await;
        }
        while self.attempt(self.timings.timeout).await.is_err() {
            tokio::time::sleep(STARTING_INTERVAL).await;
        }
    }

    /// Checks the health of a ready instance. One successful attempt is enough.
    ///
    /// # Errors
    /// The result of the last attempt, as text for people.
    pub(crate) async fn still_answers(&self) -> Result<(), String> {
        for left in (0..HEALTH_ATTEMPTS).rev() {
            match self.attempt(Duration::MAX).await {
                Ok(()) => return Ok(()),
                Err(Failed::NotYet(found, _) | Failed::Never(found)) if left == 0 => {
                    return Err(found);
                }
                Err(_) => tokio::time::sleep(HEALTH_INTERVAL).await,
            }
        }
        Ok(())
    }

    /// One attempt, limited by the probe's timeout and by `left`, but at least 10 ms long: a
    /// deadline that has just passed says nothing about the container.
    async fn attempt(&self, left: Duration) -> Result<(), Failed> {
        const MIN_TIMEOUT: Duration = Duration::from_millis(10);
        let result = match self.timeout().await {
            Ok(timeout) => {
                let limit = timeout.min(left.max(MIN_TIMEOUT));
                let probed = tokio::time::timeout(limit, self.probe()).await;
                // Cut short by the deadline, this attempt says less than an earlier one.
                let earlier = || self.last.lock().clone().filter(|_| limit < timeout);
                probed.unwrap_or_else(|_| {
                    let (found, remedy) = earlier().unwrap_or_else(|| {
                        let found = format!("{}: no answer within {limit:?}", self.action());
                        (found, Remedy::Wait)
                    });
                    Err(Failed::NotYet(found, remedy))
                })
            }
            Err(failed) => Err(failed),
        };
        *self.last.lock() = Some(match &result {
            Ok(()) => (format!("{}: ready", self.action()), Remedy::Wait),
            Err(Failed::NotYet(found, remedy)) => (found.clone(), *remedy),
            Err(Failed::Never(found)) => (found.clone(), Remedy::Wait),
        });
        result
    }

    /// The action of one attempt, as text for people.
    fn action(&self) -> String {
        let port = self.address.port();
        match &self.readiness {
            Readiness::Tcp => format!("connecting to port {port}"),
            Readiness::Http { path, .. } => {
                format!("GET {path} on port {port} with Host {}", self.host)
            }
            Readiness::Grpc { service } if service.is_empty() => {
                format!("gRPC health on port {port}")
            }
            Readiness::Grpc { service } => format!("gRPC health of {service} on port {port}"),
            Readiness::Healthcheck => "the image's HEALTHCHECK".to_owned(),
        }
    }

    async fn probe(&self) -> Result<(), Failed> {
        let not_yet =
            |found: String, remedy| Failed::NotYet(format!("{}: {found}", self.action()), remedy);
        match &self.readiness {
            Readiness::Tcp => self.connect().await.map(drop),
            Readiness::Http { path, status, .. } => {
                let got = http::status(self.connect().await?, &self.host, path).await;
                let got = got.map_err(|error| not_yet(error.to_string(), Remedy::Wait))?;
                if status.contains(&got) {
                    return Ok(());
                }
                let (low, high) = (status.start(), status.end());
                let remedy = match got {
                    400..=499 => Remedy::Host,
                    _ => Remedy::Wait,
                };
                let found = format!("answered {got}, expected {low} to {high}");
                Err(not_yet(found, remedy))
            }
            Readiness::Grpc { service } => {
                let checked = grpc::check(self.connect().await?, self.address, service).await;
                checked.map_err(|error| not_yet(error.to_string(), Remedy::Wait))
            }
            Readiness::Healthcheck => self.healthcheck().await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, Failed> {
        let connected = TcpStream::connect(self.address).await;
        connected.map_err(|error| {
            let port = self.address.port();
            let remedy = match error.kind() {
                ErrorKind::ConnectionRefused => Remedy::Listen,
                _ => Remedy::Wait,
            };
            Failed::NotYet(format!("connecting to port {port}: {error}"), remedy)
        })
    }

    /// Runs the command of the HEALTHCHECK, or waits for the end of the run in progress.
    async fn healthcheck(&self) -> Result<(), Failed> {
        let check = self.check().await?;
        let mut run = self.run.lock().await;
        let running = run.get_or_insert_with(|| {
            let (runtime, name) = (self.runtime.clone(), self.name.clone());
            let command = check.command.clone();
            tokio::spawn(async move { runtime.exec(&name, &command).await })
        });
        let ended = running.await;
        *run = None;
        let ended = ended.map_err(|error| not_healthy(format!("was interrupted: {error}")))?;
        let ended = ended.map_err(|error| not_healthy(format!("cannot be run: {error}")))?;
        if ended.code == 0 {
            return Ok(());
        }
        let output = ended.output.join("; ");
        let output = if output.is_empty() {
            "no output".to_owned()
        } else {
            output
        };
        Err(not_healthy(format!(
            "exited with code {}: {output}",
            ended.code
        )))
    }

    /// The HEALTHCHECK of the container.
    async fn check(&self) -> Result<&Healthcheck, Failed> {
        let read = || async {
            let found = self.runtime.inspect(&self.name).await;
            let found = found.map_err(|error| not_healthy(format!("cannot be read: {error}")))?;
            match (found.state, found.healthcheck) {
                (_, Some(check)) => Ok(check),
                (ContainerState::Running, None) => Err(Failed::Never(
                    "the image has no HEALTHCHECK: give it one, or choose another readiness probe"
                        .to_owned(),
                )),
                (_, None) => Err(not_healthy("runs only in a running container".to_owned())),
            }
        };
        self.check.get_or_try_init(read).await
    }

    /// The time limit of one attempt. The default of the API is for connections; a HEALTHCHECK has
    /// its own.
    async fn timeout(&self) -> Result<Duration, Failed> {
        let given = self.timings.timeout;
        if self.readiness == Readiness::Healthcheck && given == ProbeTimings::default().timeout {
            return Ok(self.check().await?.timeout);
        }
        Ok(given)
    }
}

fn not_healthy(what: String) -> Failed {
    Failed::NotYet(format!("the image's HEALTHCHECK {what}"), Remedy::Wait)
}

#[cfg(test)]
mod tests;
