//! Follows changes of the authority that another process made.

use super::establish::{CA_FILE, read_master_key, unseal};
use super::state_dir::StateDir;
use super::{Ca, Error};
use crate::store::{Store, StoredAuthority};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Interval of looks at the database.
const INTERVAL: Duration = Duration::from_secs(2);

/// Keeps `ca` equal to what is stored, until `stop`.
pub(crate) async fn run(
    ca: Arc<Ca>,
    mut current: StoredAuthority,
    store: Store,
    dir: StateDir,
    stop: CancellationToken,
) {
    let mut problem = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let result = follow(&ca, &mut current, &store, &dir).await;
        let result = result.err().map(|error| error.to_string());
        // Logged once, however often it is tried.
        if let Some(error) = result.as_ref().filter(|_| result != problem) {
            tracing::error!(error, "a change of the authority cannot be followed");
        }
        problem = result;
    }
}

async fn follow(
    ca: &Ca,
    current: &mut StoredAuthority,
    store: &Store,
    dir: &StateDir,
) -> Result<(), Error> {
    let Some(stored) = store.authority().await? else {
        return Ok(());
    };
    if stored == *current {
        return Ok(());
    }
    let master = read_master_key(dir, &stored)?;
    let key = unseal(ca.cluster(), &stored, &master)?;
    ca.replace(&stored.authorities, &key)?;
    dir.replace(CA_FILE, &ca.to_pem())?;
    tracing::info!(
        fingerprint = %ca.fingerprint(),
        trusted = ca.authorities().len(),
        master_key = stored.master_key_id,
        "the authority of the cluster changed"
    );
    *current = stored;
    Ok(())
}
