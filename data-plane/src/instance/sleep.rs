//! Putting an instance to sleep and waking it, each a task of its own.
//!
//! Nobody is in the instance and nobody may enter while these run. Its connections are closed before
//! the freeze: the kernel goes on accepting for a frozen process, so the other end of a connection
//! would never know, and a process that slept through its own time limits closes them on waking,
//! under the request that is sent on them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::failure;
use super::guard::Instance;
use super::owner::{Message, Progress};
use super::pool::Shared;
use tokio::task::JoinHandle;

/// How long the freeze waits for connections to close. They take a turn of their task each; one that
/// cannot be closed, because the instance reads nothing, is left to the instance.
const DISCONNECT: Duration = Duration::from_secs(1);

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
        let paused = self.engine.runtime.pause(self.instance.name()).await;
        self.tell(match paused {
            Ok(()) => Progress::Paused,
            Err(error) => stuck("frozen", error),
        });
    }

    /// Thaws it and reports that. It is not probed again: it listened when it was frozen.
    pub(super) async fn resume(self, before: Option<JoinHandle<()>>) {
        over(before).await;
        let asked = Instant::now();
        let resumed = self.engine.runtime.unpause(self.instance.name()).await;
        self.tell(match resumed {
            Ok(()) => Progress::Resumed(asked.elapsed()),
            Err(error) => stuck("thawed", error),
        });
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
