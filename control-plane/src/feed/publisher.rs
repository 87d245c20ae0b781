//! Keeps the published table at the store's head.
//!
//! Wakes on writes of this process and polls every second for writes of others. Writes are
//! coalesced: the first after a pause is published at once, the next ones 50 ms later together. The
//! digest of every new table is computed from its routes and compared with the digest recorded by
//! the writing transaction; on a mismatch the whole table is reloaded.

use crate::domain::Uid;
use crate::feed::cursor::Cursor;
use crate::feed::published::PublishedTable;
use crate::feed::table::{DigestMismatch, EncodedRoute, HISTORY_MAX, LogEntry, Table};
use crate::store::{self, Changes, FeedSource, Head, RouteChange, RouteOp, Since, StoredRoute};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Long enough to join a burst of writes, short enough to go unnoticed.
const COALESCE: Duration = Duration::from_millis(50);
/// Delay of another process's write whose notification is lost.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The reason why the table cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The database was replaced by an older state.
    #[error(
        "the database is back at revision {revision}: if it was restored from a backup, run \
         `cless-control-plane new-epoch`"
    )]
    Regressed {
        /// The revision found in the database.
        revision: i64,
    },
    /// The stored routes do not match the stored digest.
    #[error(transparent)]
    Digest(#[from] DigestMismatch),
}

/// A handle to the published table. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    tables: watch::Receiver<Arc<PublishedTable>>,
}

impl Feed {
    /// The newest table.
    pub(crate) fn newest(&self) -> Arc<PublishedTable> {
        Arc::clone(&self.tables.borrow())
    }

    /// Subscribes to later tables; the current one counts as seen.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<PublishedTable>> {
        self.tables.clone()
    }

    /// The cursor of the newest table.
    pub(crate) fn head(&self) -> Cursor {
        use crate::feed::stream::History as _;
        self.newest().table.head().clone()
    }

    /// The revision of the newest table.
    pub(crate) fn revision(&self) -> i64 {
        self.head().revision
    }
}

/// Loads the table and spawns the task that keeps it at the head until `shutdown`.
pub(crate) async fn start(
    store: impl FeedSource,
    shutdown: CancellationToken,
) -> Result<(Feed, JoinHandle<()>), Error> {
    // Before the first load, so that no write is missed.
    let heads = store.subscribe();
    let table = load(&store).await?;
    let (publish, tables) = watch::channel(Arc::new(PublishedTable::new(table)));
    let publisher = Publisher { store, publish };
    let task = tokio::spawn(publisher.run(heads, shutdown));
    Ok((Feed { tables }, task))
}

struct Publisher<S> {
    store: S,
    publish: watch::Sender<Arc<PublishedTable>>,
}

impl<S: FeedSource> Publisher<S> {
    async fn run(self, mut heads: watch::Receiver<i64>, shutdown: CancellationToken) {
        let mut failing = false;
        loop {
            let published = Instant::now();
            match self.refresh().await {
                Ok(()) if failing => {
                    tracing::info!("the route table can be read again");
                    failing = false;
                }
                Ok(()) => {}
                // Logged once per outage; nodes and this process keep the last table.
                Err(error) if !failing => {
                    tracing::error!(%error, "the route table cannot be read; nodes keep the last one");
                    failing = true;
                }
                Err(_same) => {}
            }
            let woken = async {
                let moved = tokio::time::timeout(POLL_INTERVAL, heads.changed()).await;
                if let Ok(Err(_store_closed)) = moved {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep_until(published + COALESCE).await;
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = woken => { heads.borrow_and_update(); }
            }
        }
    }

    async fn refresh(&self) -> Result<(), Error> {
        use crate::feed::stream::History as _;
        let published = Arc::clone(&self.publish.borrow());
        let table = &published.table;
        let next = match self.store.changes_since(table.head().revision).await? {
            Since::Changes(since) if *since.head.epoch == *table.head().epoch => {
                if since.changes.is_empty() {
                    return Ok(());
                }
                match advance(table, since) {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::error!(%error, "reloading the whole route table");
                        load(&self.store).await?
                    }
                }
            }
            // Revisions never decrease within an epoch.
            Since::Ahead(head) if *head.epoch == *table.head().epoch => {
                return Err(Error::Regressed {
                    revision: head.revision,
                });
            }
            // A new epoch, or a revision older than the stored history.
            Since::Changes(_) | Since::Compacted(_) | Since::Ahead(_) => load(&self.store).await?,
        };
        self.publish
            .send_replace(Arc::new(PublishedTable::new(next)));
        Ok(())
    }
}

/// Loads the whole table with its stored history.
async fn load(store: &impl FeedSource) -> Result<Table, Error> {
    let (head, routes) = store.load_table().await?;
    let routes = routes.into_iter().map(encoded);
    let table = Table::new(head.cluster.as_str().into(), cursor(&head), routes)?;
    let most = i64::try_from(HISTORY_MAX).unwrap_or(i64::MAX);
    let start = head.compacted_revision.max(head.revision - most);
    let (Some(digest), Since::Changes(since)) = (
        store.digest_at(start).await?,
        store.changes_since(start).await?,
    ) else {
        return Ok(table);
    };
    if since.head.epoch != head.epoch {
        return Ok(table);
    }
    // The next refresh reads writes since the load.
    let log = since
        .changes
        .into_iter()
        .filter(|change| change.revision <= head.revision);
    Ok(table.with_history((start, digest.into()), log.map(entry)))
}

fn advance(table: &Table, since: Changes) -> Result<Table, DigestMismatch> {
    let log: Vec<LogEntry> = since.changes.into_iter().map(entry).collect();
    let mut removed: BTreeSet<Uid> = log.iter().filter_map(|entry| entry.uid.clone()).collect();
    for route in &since.routes {
        removed.remove(&route.service_uid);
    }
    table.next(
        cursor(&since.head),
        since.routes.into_iter().map(encoded),
        removed,
        log,
    )
}

fn cursor(head: &Head) -> Cursor {
    Cursor::new(head.epoch.as_str(), head.revision, head.digest)
}

fn encoded(route: StoredRoute) -> EncodedRoute {
    EncodedRoute {
        uid: route.service_uid,
        bytes: route.body,
        sha256: route.sha256,
    }
}

fn entry(change: RouteChange) -> LogEntry {
    let uid = match change.op {
        RouteOp::Upsert | RouteOp::Remove => change.service_uid,
        RouteOp::None => None,
    };
    LogEntry {
        revision: change.revision,
        uid,
        digest: change.digest.into(),
    }
}
