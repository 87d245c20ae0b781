//! Engine calls that confirm their outcome by inspecting the container when the response is lost.
//!
//! An engine may execute a call without confirming it: it responds 500 after a create, is killed
//! before its response, or hangs. So after an error with an unknown outcome the container is inspected, by
//! the name that was chosen before its creation. A call that took effect succeeds; any other is
//! repeated. So no container starts twice, and a lost response leaves none orphaned.
//!
//! Missing responses are recorded in the node's [availability](super::availability).

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tracing::info;

use super::context::EngineContext;
use super::error_class::{self, Call};
use crate::runtime::{Container, ContainerSpec, Error, label};

const ATTEMPTS: u32 = 3;
const RETRY: Duration = Duration::from_millis(100);
/// A call that took longer hangs and is not repeated: its caller has waited enough, and the engine
/// may still carry it out.
const HANGS: Duration = Duration::from_secs(5);

/// Creates a container and returns its id.
pub(crate) async fn create(engine: &EngineContext, spec: &ContainerSpec) -> Result<String, Error> {
    let call = || engine.runtime.create(spec);
    match ensure(engine, &spec.name, Call::Create, call).await? {
        Outcome::Confirmed(id) => Ok(id),
        Outcome::Observed(Some(found)) if is_ours(engine, &found) => Ok(found.id),
        Outcome::Observed(_) => Err(Error::NameTaken(format!(
            "{} exists and is not of this node",
            spec.name
        ))),
    }
}

pub(crate) async fn start(engine: &EngineContext, name: &str) -> Result<(), Error> {
    let call = || engine.runtime.start(name);
    ensure(engine, name, Call::Start, call).await.map(drop)
}

pub(crate) async fn pause(engine: &EngineContext, name: &str) -> Result<(), Error> {
    let call = || engine.runtime.pause(name);
    ensure(engine, name, Call::Pause, call).await.map(drop)
}

pub(crate) async fn unpause(engine: &EngineContext, name: &str) -> Result<(), Error> {
    let call = || engine.runtime.unpause(name);
    ensure(engine, name, Call::Unpause, call).await.map(drop)
}

/// Stops a container; kills it after `grace`.
pub(crate) async fn stop(engine: &EngineContext, name: &str, grace: Duration) -> Result<(), Error> {
    let call = || engine.runtime.stop(name, grace);
    ensure(engine, name, Call::Stop, call).await.map(drop)
}

pub(crate) async fn remove(engine: &EngineContext, name: &str) -> Result<(), Error> {
    let call = || engine.runtime.remove(name);
    ensure(engine, name, Call::Remove, call).await.map(drop)
}

/// Inspects a container. An error is returned only if it repeats.
pub(crate) async fn inspect(engine: &EngineContext, name: &str) -> Result<Container, Error> {
    let mut attempts = 1;
    loop {
        let began = Instant::now();
        match engine.runtime.inspect(name).await {
            Err(Error::Failed(_) | Error::NoResponse(_))
                if attempts < ATTEMPTS && began.elapsed() < HANGS =>
            {
                attempts += 1;
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => {
                if error_class::is_unreachable(&error) {
                    engine.record_failure();
                }
                return Err(error);
            }
            found => return found,
        }
    }
}

/// The evidence that a call took effect.
enum Outcome<T> {
    /// By its response.
    Confirmed(T),
    /// By an inspection, which found this container, or none.
    Observed(Option<Container>),
}

async fn ensure<'a, T>(
    engine: &EngineContext,
    name: &str,
    call: Call,
    attempt: impl Fn() -> BoxFuture<'a, Result<T, Error>>,
) -> Result<Outcome<T>, Error> {
    let mut attempts = 0;
    loop {
        let began = Instant::now();
        let error = match attempt().await {
            Ok(response) => {
                engine.record_answer();
                return Ok(Outcome::Confirmed(response));
            }
            Err(error) => error,
        };
        if matches!(error, Error::NotSent(_)) {
            engine.record_failure();
        }
        if !error_class::outcome_unknown(&error) {
            return Err(error);
        }
        let hung = began.elapsed() >= HANGS;
        let observed = match inspect(engine, name).await {
            Ok(found) => Some(found),
            Err(Error::NotFound(_)) => None,
            Err(_) => return Err(error),
        };
        if error_class::is_done(call, observed.as_ref().map(|found| found.state)) {
            info!(container = name, ?call, %error, "an engine call took effect despite its error");
            return Ok(Outcome::Observed(observed));
        }
        attempts += 1;
        if hung || attempts == ATTEMPTS {
            return Err(error);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether this process created the container. Names are random, so no other process did.
fn is_ours(engine: &EngineContext, found: &Container) -> bool {
    let has = |key: &str, value: &str| found.labels.get(key).is_some_and(|own| own == value);
    has(label::NODE, &engine.node) && has(label::BOOT, &engine.boot)
}
