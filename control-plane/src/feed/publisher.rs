//! Keeps the published table at the store's head.
//!
//! Wakes when this process has written, and each second for what another has. Writes are coalesced:
//! the first after a pause goes out at once, those that follow within 50 ms go out together. Every
//! new table's digest is computed from the routes and compared with the one that the writing
//! transaction recorded; if they differ the table is loaded anew.

use crate::domain::Uid;
use crate::feed::cursor::Cursor;
use crate::feed::published::Published;
use crate::feed::table::{DigestMismatch, EncodedRoute, Entry, HISTORY_MOST, Table};
use crate::store::{self, Changes, FeedSource, Head, RouteChange, RouteOp, Since, StoredRoute};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Long enough to join a burst of writes, short enough not to be noticed.
const COALESCE: Duration = Duration::from_millis(50);
/// How late a write of another process is seen if its hint is lost.
const POLL: Duration = Duration::from_secs(1);

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An older state was put in the database's place.
    #[error(
        "the database went back to revision {revision}: if it was restored from a backup, run \
         `cless-control-plane new-epoch`"
    )]
    WentBack {
        /// Where it stands now.
        revision: i64,
    },
    /// The store's routes and digest disagree.
    #[error(transparent)]
    Digest(#[from] DigestMismatch),
}

/// A handle on the published table; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    tables: watch::Receiver<Arc<Published>>,
}

impl Feed {
    /// The newest table.
    pub(crate) fn newest(&self) -> Arc<Published> {
        Arc::clone(&self.tables.borrow())
    }

    /// Follows the table; what is current counts as seen.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.tables.clone()
    }

    /// The newest point that is published.
    pub(crate) fn head(&self) -> Cursor {
        use crate::feed::stream::History as _;
        self.newest().table.head().clone()
    }

    /// Its revision.
    pub(crate) fn revision(&self) -> i64 {
        self.head().revision
    }
}

/// Loads the table, then keeps it at the head until `shutdown`.
pub(crate) async fn start(
    store: impl FeedSource,
    shutdown: CancellationToken,
) -> Result<(Feed, JoinHandle<()>), Error> {
    // Before the first load, so that no write falls between.
    let heads = store.subscribe();
    let table = load(&store).await?;
    let (publish, tables) = watch::channel(Arc::new(Published::new(table)));
    let publisher = Publisher { store, publish };
    let task = tokio::spawn(publisher.run(heads, shutdown));
    Ok((Feed { tables }, task))
}

struct Publisher<S> {
    store: S,
    publish: watch::Sender<Arc<Published>>,
}

impl<S: FeedSource> Publisher<S> {
    async fn run(self, mut heads: watch::Receiver<i64>, shutdown: CancellationToken) {
        let mut failing = false;
        loop {
            let published = Instant::now();
            match self.refresh().await {
                Ok(()) if failing => {
                    tracing::info!("the route table is read again");
                    failing = false;
                }
                Ok(()) => {}
                // Said once; proxies keep what they have and so do we.
                Err(error) if !failing => {
                    tracing::error!(%error, "the route table cannot be read; the last one stays");
                    failing = true;
                }
                Err(_same) => {}
            }
            let woken = async {
                let moved = tokio::time::timeout(POLL, heads.changed()).await;
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
                        tracing::error!(%error, "reading the whole route table anew");
                        load(&self.store).await?
                    }
                }
            }
            // Proxies never go back within an epoch, and nor do we.
            Since::Ahead(head) if *head.epoch == *table.head().epoch => {
                return Err(Error::WentBack {
                    revision: head.revision,
                });
            }
            // A new epoch, or a point that the store has forgotten.
            Since::Changes(_) | Since::Compacted(_) | Since::Ahead(_) => load(&self.store).await?,
        };
        self.publish.send_replace(Arc::new(Published::new(next)));
        Ok(())
    }
}

/// The whole table, with as much of its history as is kept.
async fn load(store: &impl FeedSource) -> Result<Table, Error> {
    let (head, routes) = store.load_table().await?;
    let routes = routes.into_iter().map(encoded);
    let table = Table::new(head.cluster.as_str().into(), cursor(&head), routes)?;
    let most = i64::try_from(HISTORY_MOST).unwrap_or(i64::MAX);
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
    // Writes since the load come with the next refresh.
    let log = since
        .changes
        .into_iter()
        .filter(|change| change.revision <= head.revision);
    Ok(table.with_history((start, digest.into()), log.map(entry)))
}

fn advance(table: &Table, since: Changes) -> Result<Table, DigestMismatch> {
    let log: Vec<Entry> = since.changes.into_iter().map(entry).collect();
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

fn entry(change: RouteChange) -> Entry {
    let uid = match change.op {
        RouteOp::Upsert | RouteOp::Remove => change.service_uid,
        RouteOp::None => None,
    };
    Entry {
        revision: change.revision,
        uid,
        digest: change.digest.into(),
    }
}
