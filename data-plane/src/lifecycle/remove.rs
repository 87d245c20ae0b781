//! Takes containers away, however often the engine must be asked.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::engine::Engine;
use super::failure;
use super::owner::{Message, Progress};
use super::pool::Shared;
use super::{sure, trouble};
use crate::runtime::{ContainerState, Exit};

/// Before a container that could not be removed is tried again; doubled each time.
const REMOVE_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

const UNKNOWN_EXIT: Exit = Exit {
    code: -1,
    oom_killed: false,
};

/// How a container is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Asked to end, and after so long ended by force, then removed.
    Stop(Duration),
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
    let mut still_to_ask = match how {
        Farewell::Stop(grace) => Some(grace),
        Farewell::Remove | Farewell::Explain => None,
    };
    let mut retry = REMOVE_RETRY;
    loop {
        if let Some(grace) = still_to_ask {
            let stopped = sure::stop(&engine, &name, grace).await;
            if !stopped.is_err_and(|error| trouble::is_no_answer(&error)) {
                still_to_ask = None;
            }
        }
        match sure::remove(&engine, &name).await {
            Ok(()) => break,
            Err(error) => {
                warn!(container = name, %error, "cannot remove a container, trying again");
                tokio::time::sleep(retry).await;
                engine.back().await;
                retry = (retry * 2).min(LONGEST_RETRY);
            }
        }
    }
    // What is in use by nobody any more goes too, before the node may think that all is gone.
    engine.sandboxes.release(runtime, &name).await;
    pool.tell(Message::Progress(serial, Progress::Removed));
}
