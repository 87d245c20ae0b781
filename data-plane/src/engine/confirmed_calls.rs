//! Calls to the engine that know what came of them.
//!
//! An engine may do what was asked and not say so: it answers 500 after it has created, it is killed
//! before it answers, it hangs. So after a doubtful failure the container is looked at, by the name
//! that was chosen for it before it was made; what is done counts as done, and what is not is asked
//! once more. Thus nothing is started twice, and nothing is left because an answer was lost.
//!
//! What the engine tells by not answering is noted in the node's [`Outage`](super::outage::Outage).

use std::time::{Duration, Instant};

use tracing::info;

use super::engine::Engine;
use super::trouble::{self, Call};
use crate::runtime::{Container, ContainerSpec, Error, label};

/// How often a call is made before its failure is believed.
const ASKS: u32 = 3;
/// Before what the engine failed at is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A call that took longer hangs. It is not made again: who waits has waited enough, and the first may
/// yet be carried out.
const HANGS: Duration = Duration::from_secs(5);

/// Makes a container and returns its id.
pub(super) async fn create(engine: &Engine, spec: &ContainerSpec) -> Result<String, Error> {
    match ensure(engine, &spec.name, Ask::Create(spec)).await? {
        Done::Told(Some(id)) => Ok(id),
        Done::Seen(Some(found)) if is_ours(engine, &found) => Ok(found.id),
        _ => Err(Error::NameTaken(format!(
            "{} exists and is not of this node",
            spec.name
        ))),
    }
}

/// Starts a container.
pub(super) async fn start(engine: &Engine, name: &str) -> Result<(), Error> {
    ensure(engine, name, Ask::Start).await.map(drop)
}

/// Freezes a container.
pub(super) async fn pause(engine: &Engine, name: &str) -> Result<(), Error> {
    ensure(engine, name, Ask::Pause).await.map(drop)
}

/// Thaws a container.
pub(super) async fn unpause(engine: &Engine, name: &str) -> Result<(), Error> {
    ensure(engine, name, Ask::Unpause).await.map(drop)
}

/// Ends a container's process.
pub(super) async fn stop(engine: &Engine, name: &str, grace: Duration) -> Result<(), Error> {
    ensure(engine, name, Ask::Stop(grace)).await.map(drop)
}

/// Takes a container away.
pub(super) async fn remove(engine: &Engine, name: &str) -> Result<(), Error> {
    ensure(engine, name, Ask::Remove).await.map(drop)
}

/// Describes a container. A failure to do so is believed only when it is repeated.
pub(super) async fn look(engine: &Engine, name: &str) -> Result<Container, Error> {
    let mut asks = 1;
    loop {
        let asked = Instant::now();
        match engine.runtime.inspect(name).await {
            Err(Error::Failed(_) | Error::Unavailable(_))
                if asks < ASKS && asked.elapsed() < HANGS =>
            {
                asks += 1;
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Err(error) => {
                if trouble::is_no_answer(&error) {
                    engine.missed();
                }
                return Err(error);
            }
            found => return found,
        }
    }
}

/// A call with what it needs.
#[derive(Clone, Copy)]
enum Ask<'a> {
    Create(&'a ContainerSpec),
    Start,
    Pause,
    Unpause,
    Stop(Duration),
    Remove,
}

impl Ask<'_> {
    fn call(self) -> Call {
        match self {
            Self::Create(_) => Call::Create,
            Self::Start => Call::Start,
            Self::Pause => Call::Pause,
            Self::Unpause => Call::Unpause,
            Self::Stop(_) => Call::Stop,
            Self::Remove => Call::Remove,
        }
    }

    /// Makes the call; an id is what a create gives.
    async fn make(self, engine: &Engine, name: &str) -> Result<Option<String>, Error> {
        let runtime = &engine.runtime;
        match self {
            Self::Create(spec) => return runtime.create(spec).await.map(Some),
            Self::Start => runtime.start(name).await,
            Self::Pause => runtime.pause(name).await,
            Self::Unpause => runtime.unpause(name).await,
            Self::Stop(grace) => runtime.stop(name, grace).await,
            Self::Remove => runtime.remove(name).await,
        }
        .map(|()| None)
    }
}

/// How it is known that a call was carried out.
enum Done {
    /// By its answer, with the id that a create gives.
    Told(Option<String>),
    /// By a look, which found this.
    Seen(Option<Container>),
}

async fn ensure(engine: &Engine, name: &str, ask: Ask<'_>) -> Result<Done, Error> {
    let call = ask.call();
    let mut asks = 0;
    loop {
        let asked = Instant::now();
        let error = match ask.make(engine, name).await {
            Ok(id) => {
                engine.answered();
                return Ok(Done::Told(id));
            }
            Err(error) => error,
        };
        if matches!(error, Error::Away(_)) {
            engine.missed();
        }
        if !trouble::is_doubtful(&error) {
            return Err(error);
        }
        let hangs = asked.elapsed() >= HANGS;
        let seen = match look(engine, name).await {
            Ok(found) => Some(found),
            Err(Error::NotFound(_)) => None,
            Err(_) => return Err(error),
        };
        if trouble::is_done(call, seen.as_ref().map(|found| found.state)) {
            info!(container = name, ?call, %error, "the engine did what it did not confirm");
            return Ok(Done::Seen(seen));
        }
        asks += 1;
        if hangs || asks == ASKS {
            return Err(error);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Made by this process; its name was drawn at random, so this is next to certain.
fn is_ours(engine: &Engine, found: &Container) -> bool {
    let carries = |key: &str, value: &str| found.labels.get(key).is_some_and(|own| own == value);
    carries(label::NODE, &engine.node) && carries(label::BOOT, &engine.boot)
}
