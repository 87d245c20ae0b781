//! Conditions with a deadline, instead of sleeps.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Asks `condition` until it gives a value, every 10 ms, for at most `limit`. Errors of the condition
/// end the wait; `what` names it in the error of a deadline that passed.
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
