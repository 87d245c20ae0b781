//! The addresses of the cluster's control planes, which nodes learn on their control streams.
//!
//! Each plane renews its row in the database and reads those of the others. A plane that has not
//! renewed its row for 30 s counts as gone. SQLite has a single plane, whose address is all that is
//! known.

use crate::store::{self, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Interval at which the addresses are read.
const READ_INTERVAL: Duration = Duration::from_secs(2);
/// Reads per renewal of the own row.
const READS_PER_RENEWAL: u32 = 4;
/// Age at which a row counts as that of a dead process.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Addresses that nodes are told; the rows beyond it are not read.
const PLANES_MAX: usize = 64;

/// Addresses, `https://HOST:PORT`, sorted.
pub(crate) type Addresses = Arc<[String]>;

/// A handle to the addresses. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Planes {
    /// Identifies this process.
    id: Arc<str>,
    /// Own address; `None`: other machines cannot reach this process.
    own: Option<String>,
    addresses: watch::Sender<Addresses>,
}

impl Planes {
    /// Knows only the own address, until [`Self::run`].
    pub(crate) fn new(own: Option<String>) -> Self {
        let known = own.iter().cloned().collect();
        Self {
            id: uuid::Uuid::new_v4().to_string().into(),
            own,
            addresses: watch::Sender::new(known),
        }
    }

    /// The addresses and their changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Addresses> {
        self.addresses.subscribe()
    }

    /// Renews the own row and reads the others', until `shutdown`.
    pub(crate) async fn run(self, store: Store, shutdown: CancellationToken) {
        if !store.is_shared() {
            return;
        }
        let mut failing = false;
        for round in 0_u32.. {
            match self.round(&store, round % READS_PER_RENEWAL == 0).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::error!(%error, "the addresses of control planes cannot be shared; retrying");
                    failing = true;
                }
                Err(_same) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(READ_INTERVAL) => {}
            }
        }
        if let Err(error) = store.remove_plane(&self.id).await {
            tracing::warn!(%error, "nodes could not be told of the shutdown");
        }
    }

    async fn round(&self, store: &Store, renew: bool) -> Result<(), store::Error> {
        if renew && let Some(address) = &self.own {
            store.renew_plane(&self.id, address, DEAD_AFTER).await?;
        }
        let read = store.planes(DEAD_AFTER, PLANES_MAX).await?;
        self.set(read);
        Ok(())
    }

    /// Replaces the known addresses.
    fn set(&self, read: Vec<String>) {
        let mut all: Vec<String> = read.into_iter().chain(self.own.clone()).collect();
        all.sort();
        all.dedup();
        self.addresses.send_if_modified(|known| {
            let changed = **known != *all;
            if changed {
                *known = all.into();
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_address_is_always_known_and_only_changes_are_signalled() {
        let own = "https://b:7070".to_owned();
        let planes = Planes::new(Some(own.clone()));
        let mut known = planes.subscribe();
        assert_eq!(**known.borrow(), *std::slice::from_ref(&own));
        planes.set(Vec::new());
        assert!(!known.has_changed().expect("open"));
        planes.set(vec![own.clone(), "https://a:7070".into()]);
        let all = known.borrow_and_update().clone();
        assert_eq!(*all, ["https://a:7070".to_owned(), own]);
        planes.set(all.to_vec());
        assert!(!known.has_changed().expect("open"));
    }
}
