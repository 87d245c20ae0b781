//! Deletes the entries of the audit log that are older than `--audit-retention`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clock::now;
use crate::store::Store;

/// Interval of the deletions; the retention is far longer.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Pause between two batches, so that other writes go first.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs until `shutdown`.
pub(super) async fn run(store: Store, retention: Duration, shutdown: CancellationToken) {
    loop {
        let now = now();
        let pause = match store.delete_audit(now.minus(retention), now).await {
            Ok(0) => INTERVAL,
            Ok(_) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, "old entries of the audit log cannot be deleted");
                INTERVAL
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
