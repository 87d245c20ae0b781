//! Putting an instance to sleep and waking it, each a task of its own.
//!
//! Nobody is in the instance and nobody may enter while these run. Its connections are closed before
//! the freeze: the kernel goes on accepting for a frozen process, so the other end of a connection
//! would never know, and a process that slept through its own time limits closes them on waking,
//! under the request that is sent on them.
//!
//! An engine that goes away meanwhile costs no instance: what it was not asked for did not happen,
//! and what nobody knows is looked at when it is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::engine::Engine;
use super::failure;
use super::guard::Instance;
use super::owner::{Message, Progress};
use super::pool::Shared;
use super::{sure, trouble};
use crate::runtime::{ContainerState, Error};

/// How long the freeze waits for connections to close. They take a turn of their task each; one that
/// cannot be closed, because the instance reads nothing, is left to the instance.
const DISCONNECT: Duration = Duration::from_secs(1);
/// Between attempts at an engine that comes and goes.
const RETRY: Duration = Duration::from_millis(250);

/// An instance between ready and asleep, one way or the other.
pub(super) struct Doze {
    pub(super) engine: Arc<Engine>,
    pub(super) pool: Arc<Shared>,
    pub(super) instance: Arc<Instance>,
}

impl Doze {
    /// Freezes it and reports that, once what is `before` it at the engine is over.
    pub(super) async fn pause(self, before: Option<JoinHandle<()>>) {
        over(before).await;
        let _ = tokio::time::timeout(DISCONNECT, self.instance.disconnected()).await;
        let asked = Instant::now();
        self.tell(
            match sure::pause(&self.engine, self.instance.name()).await {
                Ok(()) => Progress::Paused(asked.elapsed()),
                Err(Error::Away(_)) => Progress::Awake,
                Err(error) if trouble::is_no_answer(&error) && self.is_away() => self.look().await,
                Err(error) => stuck("frozen", error),
            },
        );
    }

    /// Finds out whether it was frozen, once the engine answers.
    async fn look(&self) -> Progress {
        let asked = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            self.engine.back().await;
            match self.engine.runtime.inspect(self.instance.name()).await {
                Ok(found) if found.state == ContainerState::Paused => {
                    return Progress::Paused(asked.elapsed());
                }
                Ok(found) if found.state == ContainerState::Running => return Progress::Awake,
                Ok(_) => {
                    let gone = Error::NotFound(self.instance.name().to_owned());
                    return stuck("frozen", gone);
                }
                Err(error) if trouble::is_no_answer(&error) => self.engine.missed(),
                Err(error) => return stuck("frozen", error),
            }
        }
    }

    /// Thaws it and reports that. It is not probed again: it listened when it was frozen.
    pub(super) async fn resume(self, before: Option<JoinHandle<()>>) {
        over(before).await;
        let asked = Instant::now();
        let resumed = loop {
            match sure::unpause(&self.engine, self.instance.name()).await {
                Ok(()) => break Progress::Resumed(asked.elapsed()),
                Err(error) if trouble::is_no_answer(&error) && self.is_away() => {
                    tokio::time::sleep(RETRY).await;
                    self.engine.back().await;
                }
                Err(error) => break stuck("thawed", error),
            }
        };
        self.tell(resumed);
    }

    fn is_away(&self) -> bool {
        self.engine.outage.borrow().is_on()
    }

    fn tell(&self, progress: Progress) {
        self.pool
            .tell(Message::Progress(self.instance.serial(), progress));
    }
}

async fn over(before: Option<JoinHandle<()>>) {
    if let Some(before) = before {
        let _ = before.await;
    }
}

fn stuck(how: &str, error: crate::runtime::Error) -> Progress {
    let mut failure = failure::of_engine(error);
    failure.message = format!("the container could not be {how}: {}", failure.message);
    Progress::Stuck(Box::new(failure))
}
