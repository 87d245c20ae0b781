//! Takes containers away, however often the engine must be asked.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::engine::Engine;
use super::failure;
use super::owner::{Message, Progress};
use super::pool::Shared;
use crate::runtime::{ContainerState, Error, Exit};

/// Between attempts to remove a container from an engine that does not answer.
const REMOVE_RETRY: Duration = Duration::from_secs(1);
/// From the wish to end to the end by force, as `docker stop` gives.
const STOP_GRACE: Duration = Duration::from_secs(10);

const UNKNOWN_EXIT: Exit = Exit {
    code: -1,
    oom_killed: false,
};

/// How a container is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Asked to end, then removed.
    Stop,
    /// Removed: it has ended, or never ran.
    Remove,
    /// Removed after its end is explained: it died while it served.
    Explain,
}

/// Takes a container away, however often the engine must be asked, then reports it.
pub(super) async fn take_away(
    engine: Arc<Engine>,
    pool: Arc<Shared>,
    serial: u64,
    name: String,
    how: Farewell,
    started: Option<tokio::task::JoinHandle<()>>,
) {
    // A create that is under way must be over, or the container would appear after its removal.
    if let Some(started) = started {
        let _ = started.await;
    }
    let runtime = &*engine.runtime;
    if how == Farewell::Explain {
        let failure = match runtime.inspect(&name).await {
            Ok(found) if found.state != ContainerState::Exited && found.sandbox.is_some() => {
                failure::network_lost("while it served")
            }
            found => {
                let exit = found.map_or(UNKNOWN_EXIT, |found| found.exit);
                failure::exited(runtime, &name, exit, "while it served").await
            }
        };
        pool.tell(Message::Progress(
            serial,
            Progress::Explained(Box::new(failure)),
        ));
    }
    let mut asked_to_end = how != Farewell::Stop;
    loop {
        if !asked_to_end {
            asked_to_end = !matches!(
                runtime.stop(&name, STOP_GRACE).await,
                Err(Error::Unavailable(_))
            );
        }
        match runtime.remove(&name).await {
            Ok(()) => break,
            Err(error) => {
                warn!(container = name, %error, "cannot remove a container, trying again");
                tokio::time::sleep(REMOVE_RETRY).await;
            }
        }
    }
    // What is in use by nobody any more goes too, before the node may think that all is gone.
    engine.sandboxes.release(runtime, &name).await;
    pool.tell(Message::Progress(serial, Progress::Removed));
}
