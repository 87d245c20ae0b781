//! Keeps the disk cache up with the table, off every other task's way.

use super::store;
use crate::feed::Shared;
use crate::feed::identity::Identity;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Least time from one write to the next.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause is this many times what the last write took, so that a slow disk is not kept busy.
const PAUSE_FACTOR: u32 = 20;
/// A write that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(30);

/// Writes the newest table after each change; changes that come meanwhile make one write.
pub(crate) struct Keeper {
    folder: PathBuf,
    /// The folder is this process's for as long as something may be written to it.
    _identity: Arc<Identity>,
    shared: Arc<Shared>,
    /// The revision of `Shared::changed` that is on disk.
    written: u64,
    failing: bool,
}

impl Keeper {
    /// Over the folder that the present table was loaded from.
    pub(crate) fn new(folder: PathBuf, identity: Arc<Identity>, shared: Arc<Shared>) -> Self {
        let written = *shared.changed.borrow();
        Self {
            folder,
            _identity: identity,
            shared,
            written,
            failing: false,
        }
    }

    /// Runs until cancelled, then writes what is left to write.
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

    /// Writes the newest table; how long not to write again.
    async fn write(&mut self) -> Option<Duration> {
        let newest = *self.shared.changed.borrow();
        let (folder, table) = (self.folder.clone(), self.shared.table.load_full());
        let began = Instant::now();
        let stored = tokio::task::spawn_blocking(move || store(&folder, &table)).await;
        let error = match stored {
            Ok(Ok(())) => {
                self.written = newest;
                if std::mem::take(&mut self.failing) {
                    tracing::info!("feed.cache: the route table is on disk again");
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
