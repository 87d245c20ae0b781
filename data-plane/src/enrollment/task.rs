//! Performs the schedule: joins, renews, stores the certificate and presents it.

use super::answer::Credential;
use super::calls::{self, Error as CallError, text};
use super::schedule::{Event, Life, Now, Schedule, Step};
use super::{Enrollment, PlaneAddress, store};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

impl Enrollment {
    /// Keeps the node enrolled until cancelled. Control planes are tried in turn; `bounds` are those
    /// of the delay after a failed connection.
    pub(crate) async fn run(
        self,
        planes: Vec<PlaneAddress>,
        bounds: (Duration, Duration),
        rng: SmallRng,
        cancel: CancellationToken,
    ) {
        if planes.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.keep(planes, bounds, rng) => {}
        }
    }

    async fn keep(
        &self,
        planes: Vec<PlaneAddress>,
        bounds: (Duration, Duration),
        mut rng: SmallRng,
    ) {
        let inner = &self.inner;
        let stored = inner.credential.borrow().as_ref().map(|one| one.life);
        let mut schedule = Schedule::new(stored, inner.token.is_some(), bounds, &mut rng);
        let mut at = rng.random_range(0..planes.len());
        let mut last_error = None;
        if schedule.is_expired(now()) {
            tracing::warn!(
                expired = stored.map(|life| text(life.expires)),
                clock = text(SystemTime::now()),
                "the certificate of this node has expired; it serves from its cache and renews as \
                 soon as a control plane answers"
            );
        }
        loop {
            let step = schedule.next(now());
            let result = match step {
                Step::Wait(time) => {
                    tokio::select! {
                        () = sleep(time) => {}
                        () = inner.refused.notified() => {
                            schedule.record(Event::StreamRefused, now(), &mut rng);
                        }
                    }
                    continue;
                }
                Step::Join => self.join(&planes[at]).await,
                Step::Renew => self.renew(&planes[at]).await,
            };
            let event = match result {
                Ok(life) => {
                    last_error = None;
                    Event::Enrolled(life)
                }
                Err(error) => {
                    log(&mut last_error, step, &planes[at], &error);
                    at = (at + 1) % planes.len();
                    match error {
                        CallError::Unreachable(_) => Event::Unreachable,
                        CallError::Refused(_) | CallError::Answer(_) => Event::Refused,
                    }
                }
            };
            schedule.record(event, now(), &mut rng);
        }
    }

    async fn join(&self, address: &PlaneAddress) -> Result<Life, CallError> {
        let token = self.inner.token.read();
        let token = token.map_err(|error| CallError::Answer(error.to_string()))?;
        let token = token.ok_or_else(|| CallError::Answer(super::Error::NotJoined.to_string()))?;
        let credential = calls::join(&self.inner, address, &token).await?;
        self.adopt(credential, "this node has joined the cluster")
            .await
    }

    async fn renew(&self, address: &PlaneAddress) -> Result<Life, CallError> {
        let current = self.inner.credential.borrow().clone();
        let current = current.ok_or_else(|| CallError::Answer("not joined".to_owned()))?;
        let credential = calls::renew(&self.inner, address, &current).await?;
        self.adopt(credential, "the certificate of this node is renewed")
            .await
    }

    /// Stores and presents a certificate. One that cannot be stored is presented nevertheless: the
    /// one before it renews after a restart.
    async fn adopt(&self, credential: Credential, message: &str) -> Result<Life, CallError> {
        let life = credential.life;
        let (inner, stored) = (self.inner.clone(), credential.clone());
        let write = move || store::write_certificate(&inner.folder, &stored);
        let written = tokio::task::spawn_blocking(write).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        if let Some(error) = error {
            tracing::warn!(
                error,
                "the certificate cannot be stored; a restart renews it again"
            );
        }
        tracing::info!(
            cluster = credential.cluster,
            expires = text(life.expires),
            "{message}"
        );
        self.inner.install(credential);
        Ok(life)
    }
}

fn now() -> Now {
    Now {
        wall: SystemTime::now(),
        monotonic: Instant::now(),
    }
}

/// Logs an error once, until another one replaces it.
fn log(last: &mut Option<String>, step: Step, address: &PlaneAddress, error: &CallError) {
    let action = match step {
        Step::Join => "joining the cluster",
        Step::Renew | Step::Wait(_) => "renewing the certificate",
    };
    let error = error.to_string();
    if last.as_ref() == Some(&error) {
        tracing::debug!(action, control_plane = %address, error, "retrying");
    } else {
        tracing::warn!(
            action, control_plane = %address, error,
            "no certificate; the node serves from its cache and tries again"
        );
        *last = Some(error);
    }
}
