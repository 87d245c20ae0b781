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

mod cadence;
mod grpc;
mod http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::route::{ProbeTimings, Readiness, Spec};
use crate::runtime::{ContainerState, Health, Runtime};
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
    /// Not in time; the result of the last attempt.
    Late(String),
    /// The container will never become ready, for this reason.
    Never(String),
}

/// A failed attempt, as text for people.
enum Failed {
    /// A later attempt may succeed.
    NotYet(String),
    /// No later attempt can succeed.
    Never(String),
}

pub(crate) struct Probe {
    runtime: Arc<dyn Runtime>,
    name: String,
    address: SocketAddr,
    readiness: Readiness,
    timings: ProbeTimings,
    /// The result of the last attempt; `None` before the first.
    last: Mutex<Option<String>>,
}

impl Probe {
    /// The probe of a container that has just started, as the version specifies it.
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        name: String,
        address: SocketAddr,
        spec: &Spec,
    ) -> Self {
        Self {
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
        self.last.lock().clone()
    }

    /// Probes until the container answers, or `deadline` passes.
    ///
    /// # Errors
    /// [`Unready`], with the result of the last attempt.
    pub(crate) async fn until_ready(&self, deadline: Instant) -> Result<(), Unready> {
        let delay = self.timings.initial_delay;
        if Instant::now() + delay >= deadline && !delay.is_zero() {
            tokio::time::sleep_until(deadline.into()).await;
            return Err(Unready::Late(format!(
                "no probe was sent, because initial_delay is {delay:?}"
            )));
        }
        tokio::time::sleep(delay).await;
        let mut cadence = Cadence::up_to(self.timings.period);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = match self.attempt(left).await {
                Ok(()) => return Ok(()),
                Err(Failed::Never(why)) => return Err(Unready::Never(why)),
                Err(Failed::NotYet(found)) => found,
            };
            let pause = cadence.pause();
            if Instant::now() + pause >= deadline {
                return Err(Unready::Late(found));
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
            match self.attempt(self.timings.timeout).await {
                Ok(()) => return Ok(()),
                Err(Failed::NotYet(found) | Failed::Never(found)) if left == 0 => {
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
        let limit = self.timings.timeout.min(left.max(MIN_TIMEOUT));
        let result = match tokio::time::timeout(limit, self.probe()).await {
            Ok(result) => result,
            // Cut short by the deadline, this attempt says less than an earlier one.
            Err(_) => Err(Failed::NotYet(
                self.last()
                    .filter(|_| limit < self.timings.timeout)
                    .unwrap_or_else(|| format!("{}: no answer within {limit:?}", self.action())),
            )),
        };
        *self.last.lock() = Some(match &result {
            Ok(()) => format!("{}: ready", self.action()),
            Err(Failed::NotYet(found) | Failed::Never(found)) => found.clone(),
        });
        result
    }

    /// The action of one attempt, as text for people.
    fn action(&self) -> String {
        let port = self.address.port();
        match &self.readiness {
            Readiness::Tcp => format!("connecting to port {port}"),
            Readiness::Http { path, .. } => format!("GET {path} on port {port}"),
            Readiness::Grpc { service } if service.is_empty() => {
                format!("gRPC health on port {port}")
            }
            Readiness::Grpc { service } => format!("gRPC health of {service} on port {port}"),
            Readiness::Healthcheck => "the image's HEALTHCHECK".to_owned(),
        }
    }

    async fn probe(&self) -> Result<(), Failed> {
        let not_yet = |found: String| Failed::NotYet(format!("{}: {found}", self.action()));
        match &self.readiness {
            Readiness::Tcp => self.connect().await.map(drop),
            Readiness::Http { path, status } => {
                let got = http::status(self.connect().await?, self.address, path).await;
                let got = got.map_err(|error| not_yet(error.to_string()))?;
                if status.contains(&got) {
                    return Ok(());
                }
                let (low, high) = (status.start(), status.end());
                Err(not_yet(format!("answered {got}, expected {low} to {high}")))
            }
            Readiness::Grpc { service } => {
                let checked = grpc::check(self.connect().await?, self.address, service).await;
                checked.map_err(|error| not_yet(error.to_string()))
            }
            Readiness::Healthcheck => self.healthcheck().await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, Failed> {
        let connected = TcpStream::connect(self.address).await;
        connected.map_err(|error| {
            let port = self.address.port();
            Failed::NotYet(format!("connecting to port {port}: {error}"))
        })
    }

    async fn healthcheck(&self) -> Result<(), Failed> {
        let not_yet = |what: String| Failed::NotYet(format!("the image's HEALTHCHECK {what}"));
        let found = self.runtime.inspect(&self.name).await;
        let found = found.map_err(|error| not_yet(format!("cannot be read: {error}")))?;
        match (found.state, found.health) {
            (_, Some(Health::Healthy)) => Ok(()),
            (_, Some(Health::Starting)) => Err(not_yet("has not succeeded yet".to_owned())),
            (_, Some(Health::Unhealthy(output))) => Err(not_yet(format!("fails: {output}"))),
            (ContainerState::Running, None) => Err(Failed::Never(
                "the image has no HEALTHCHECK: give it one, or choose another readiness probe"
                    .to_owned(),
            )),
            (_, None) => Err(not_yet("runs only in a running container".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
