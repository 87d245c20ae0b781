//! Waiting until the connected nodes have applied a change.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::ApiClient;
use crate::error::Error;
use crate::text;

/// Nodes apply a change within 100 ms. A node that needs longer has a problem of its own.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The nodes that have and have not applied a feed revision.
#[derive(Debug)]
pub(super) struct Propagation {
    /// The number of connected nodes.
    pub(super) nodes: u32,
    /// `nodes/NODE` of each node that has not applied it; empty if all have.
    pub(super) pending: Vec<String>,
    /// Conditions that keep nodes from applying any revision.
    pub(super) warnings: Vec<String>,
}

/// Waits up to [`TIMEOUT`] until every connected node has applied a feed revision.
///
/// # Errors
/// Those of the calls.
pub(super) async fn wait(client: &ApiClient, feed_revision: i64) -> Result<Propagation, Error> {
    let deadline = Instant::now() + TIMEOUT;
    // The change is pushed within a few milliseconds, so the first poll comes early.
    let mut interval = Duration::from_millis(10);
    loop {
        let response = client.check_propagation(feed_revision).await?;
        // A condition needs an operator, so waiting does not help.
        if response.nodes_applied >= response.nodes_total
            || !response.warnings.is_empty()
            || Instant::now() >= deadline
        {
            return Ok(Propagation {
                nodes: response.nodes_total,
                pending: response.pending.iter().map(|n| text::clean(n)).collect(),
                warnings: response.warnings.iter().map(|w| text::clean(w)).collect(),
            });
        }
        tokio::time::sleep(interval).await;
        interval = (interval * 2).min(Duration::from_millis(200));
    }
}
