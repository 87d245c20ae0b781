//! Conditions with a deadline, instead of sleeps.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Polls `condition` every 10 ms until it returns a value, for at most `limit`. An error of the
/// condition ends the wait; `what` describes the condition in the error after the deadline.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("not within {limit:?}: {what}");
        }
        sleep(Duration::from_millis(10)).await;
    }
}
