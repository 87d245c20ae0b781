//! Finds the moment at which a started container answers, and whether one that serves still does.
//!
//! The first look is at once and looks grow apart ([`cadence`]): most servers listen within a few
//! milliseconds, and one that takes seconds is not worth a thousand looks a second. The address is the
//! container's own: a published port would prove nothing, because the engine's proxy accepts before the
//! program listens. Each look has a connection of its own, a time limit, and reads no more than a
//! bounded head or message; a redirect is an answer like any other and is not followed.
//!
//! What each kind proves: [`Readiness::Tcp`] that the kernel accepts, which it also does for a process
//! that is stuck or frozen; [`Readiness::Http`] and [`Readiness::Grpc`] that the program answers;
//! [`Readiness::Healthcheck`] what the image's own check proves.

mod cadence;
mod grpc;
mod http;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::route::{ProbeTimings, Readiness, Spec};
use crate::runtime::{ContainerState, Health, Runtime};
use cadence::Cadence;

/// Looks that must fail in a row before an instance that serves counts as gone: one may have met a
/// moment of much work.
const LOOKS: u32 = 3;
/// A start takes the engine a hundred milliseconds; a refused connection takes less than a tenth of one.
const PAUSE_WHILE_STARTING: Duration = Duration::from_millis(2);
/// Between them.
const LOOKS_APART: Duration = Duration::from_millis(100);

/// Why a container did not become ready, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unready {
    /// Not in time; what the last look found.
    Late(String),
    /// It never will, however long one looks.
    Never(String),
}

/// What one look found, if not that it is ready.
enum Found {
    /// Not yet.
    Not(String),
    /// No later look can find anything else.
    Never(String),
}

/// How one container is looked at.
pub(crate) struct Probe {
    runtime: Arc<dyn Runtime>,
    /// The container's name.
    name: String,
    address: SocketAddr,
    readiness: Readiness,
    timings: ProbeTimings,
    last: Mutex<Option<String>>,
}

impl Probe {
    /// As the specification says, of a container that has just been started.
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

    /// The same of a container that has been running.
    pub(crate) fn at_once(mut self) -> Self {
        self.timings.initial_delay = Duration::ZERO;
        self
    }

    /// The container's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What the last look found, in words; `None` before the first.
    pub(crate) fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }

    /// Looks until the container answers, or `deadline` passes.
    ///
    /// # Errors
    /// [`Unready`]: the last look's finding, for a person.
    pub(crate) async fn until_ready(&self, deadline: Instant) -> Result<(), Unready> {
        let delay = self.timings.initial_delay;
        if Instant::now() + delay >= deadline && !delay.is_zero() {
            tokio::time::sleep_until(deadline.into()).await;
            return Err(Unready::Late(format!(
                "no probe was made: the first is due only after initial_delay, {delay:?}"
            )));
        }
        tokio::time::sleep(delay).await;
        let mut cadence = Cadence::up_to(self.timings.period);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = match self.look(left).await {
                Ok(()) => return Ok(()),
                Err(Found::Never(why)) => return Err(Unready::Never(why)),
                Err(Found::Not(found)) => found,
            };
            let pause = cadence.pause();
            if Instant::now() + pause >= deadline {
                return Err(Unready::Late(found));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks until the container answers, however long: for while the engine starts it, where its
    /// address is known before. Looks do not grow apart, because the time of the first answer is still
    /// to come. Never ends for what cannot be looked at before the engine says that it runs.
    pub(crate) async fn while_starting(&self) {
        let early =
            self.readiness != Readiness::Healthcheck && self.timings.initial_delay.is_zero();
        if !early {
            return std::future::pending().await;
        }
        while self.look(self.timings.timeout).await.is_err() {
            tokio::time::sleep(PAUSE_WHILE_STARTING).await;
        }
    }

    /// Looks at an instance that serves and is suspected of not answering: any look that succeeds
    /// acquits it.
    ///
    /// # Errors
    /// What the last of a few looks found.
    pub(crate) async fn still_answers(&self) -> Result<(), String> {
        for left in (0..LOOKS).rev() {
            match self.look(self.timings.timeout).await {
                Ok(()) => return Ok(()),
                Err(Found::Not(found) | Found::Never(found)) if left == 0 => return Err(found),
                Err(_) => tokio::time::sleep(LOOKS_APART).await,
            }
        }
        Ok(())
    }

    /// One look, within the probe's time limit and `left`, but for a moment in any case: a deadline
    /// that has just passed says nothing about the container.
    async fn look(&self, left: Duration) -> Result<(), Found> {
        const MOMENT: Duration = Duration::from_millis(10);
        let limit = self.timings.timeout.min(left.max(MOMENT));
        let found = match tokio::time::timeout(limit, self.ask()).await {
            Ok(found) => found,
            // Cut short by the deadline it found nothing; what an earlier look found says more.
            Err(_) => Err(Found::Not(
                self.last()
                    .filter(|_| limit < self.timings.timeout)
                    .unwrap_or_else(|| format!("{}: no answer within {limit:?}", self.asked())),
            )),
        };
        *self.last.lock() = Some(match &found {
            Ok(()) => format!("{}: ready", self.asked()),
            Err(Found::Not(found) | Found::Never(found)) => found.clone(),
        });
        found
    }

    /// What is done in one look, for a person.
    fn asked(&self) -> String {
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

    async fn ask(&self) -> Result<(), Found> {
        let not = |found: String| Found::Not(format!("{}: {found}", self.asked()));
        match &self.readiness {
            Readiness::Tcp => self.connect().await.map(drop),
            Readiness::Http { path, status } => {
                let got = http::status(self.connect().await?, self.address, path).await;
                let got = got.map_err(|error| not(error.to_string()))?;
                if status.contains(&got) {
                    return Ok(());
                }
                let (low, high) = (status.start(), status.end());
                Err(not(format!("answered {got}, wanted {low} to {high}")))
            }
            Readiness::Grpc { service } => {
                let checked = grpc::check(self.connect().await?, self.address, service).await;
                checked.map_err(|error| not(error.to_string()))
            }
            Readiness::Healthcheck => self.healthcheck().await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, Found> {
        let connected = TcpStream::connect(self.address).await;
        connected.map_err(|error| {
            let port = self.address.port();
            Found::Not(format!("connecting to port {port}: {error}"))
        })
    }

    async fn healthcheck(&self) -> Result<(), Found> {
        let says = |what: String| Found::Not(format!("the image's HEALTHCHECK {what}"));
        let found = self.runtime.inspect(&self.name).await;
        let found = found.map_err(|error| says(format!("cannot be asked for: {error}")))?;
        match (found.state, found.health) {
            (_, Some(Health::Healthy)) => Ok(()),
            (_, Some(Health::Starting)) => Err(says("has not succeeded yet".to_owned())),
            (_, Some(Health::Unhealthy(output))) => Err(says(format!("fails: {output}"))),
            (ContainerState::Running, None) => Err(Found::Never(
                "the image has no HEALTHCHECK: give it one, or choose another readiness probe"
                    .to_owned(),
            )),
            (_, None) => Err(says("runs only in a running container".to_owned())),
        }
    }
}

/// Runs an exchange together with the connection that it needs.
async fn over<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    let (mut exchange, connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        done = &mut exchange => return done,
        _ = connection => {}
    }
    // The answer may have arrived with the end of the connection.
    exchange.await
}

#[cfg(test)]
mod tests;
