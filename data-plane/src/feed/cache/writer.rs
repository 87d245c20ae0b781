//! Writes the table to the disk cache in a task of its own.

use super::store;
use crate::feed::FeedState;
use crate::feed::identity::Identity;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Minimum delay between two writes.
const PAUSE: Duration = Duration::from_millis(500);
/// The delay is at least this multiple of the last write's duration, to spare a slow disk.
const PAUSE_FACTOR: u32 = 20;
/// Delay before a failed write is retried, and the maximum delay between writes.
const RETRY: Duration = Duration::from_secs(30);

/// Writes the newest table after each change; changes during the delay are written together.
pub(crate) struct CacheWriter {
    folder: PathBuf,
    /// Keeps the folder locked for as long as a write is possible.
    _identity: Arc<Identity>,
    shared: Arc<FeedState>,
    /// The value of `FeedState::changed` whose table is on disk.
    written: u64,
    failing: bool,
}

impl CacheWriter {
    /// A writer for the folder that the current table was loaded from.
    pub(crate) fn new(folder: PathBuf, identity: Arc<Identity>, shared: Arc<FeedState>) -> Self {
        let written = *shared.changed.borrow();
        Self {
            folder,
            _identity: identity,
            shared,
            written,
            failing: false,
        }
    }

    /// Runs until cancelled, then writes any unwritten table.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            let stale = *changed.borrow_and_update() != self.written;
            let pause = if stale { self.write().await } else { None };
            let wait = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    // The sender lives in `shared`, so this cannot fail.
                    None => drop(changed.changed().await),
                }
            };
            tokio::select! {
            biased;
                            () = cancel.cancelled() => break,
                            () = wait => {}
                        }
        }
        if *self.shared.changed.borrow() != self.written {
            self.write().await;
        }
    }

    /// Writes the newest table. Returns the minimum delay before the next write.
    async fn write(&mut self) -> Option<Duration> {
        let newest = *self.shared.changed.borrow();
        let (folder, table) = (self.folder.clone(), self.shared.table.load_full());
        let began = Instant::now();
        let stored = tokio::task::spawn_blocking(move || store(&folder, &table)).await;
        let error = match stored {
            Ok(Ok(())) => {
                self.written = newest;
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the route table is written to disk again");
                }
                return Some(
                    PAUSE
                        .max(began.elapsed().saturating_mul(PAUSE_FACTOR))
                        .min(RETRY),
                );
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                feed.cache.folder = %self.folder.display(),
                error,
                "the route table cannot be written to disk; a restart would serve an older one"
            );
        }
        Some(RETRY)
    }
}
