//! Queries of the feed: the head, the table, and the changes since a revision.

use std::sync::Arc;

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use crate::domain::{Timestamp, Uid};

use super::audited_change::AuditedChange;
use super::digest::TableDigest;
use super::entity::{feed_state, route_changes, routes};
use super::types::{Changes, Head, RouteChange, RouteOp, Since, StoredRoute, WriteOptions};
use super::write::{FEED_STATE_ID, WriteOutcome, write_span};
use super::{Error, Inner, Store, connection, row, table};

/// The source of the feed's publisher; implemented by [`Store`].
pub trait FeedSource: Send + Sync + 'static {
    /// Watches the newest known revision; a notification may be late or missing.
    fn subscribe(&self) -> watch::Receiver<i64>;

    /// Reads a consistent snapshot of the table, ordered by uid.
    fn load_table(&self) -> impl Future<Output = Result<(Head, Vec<StoredRoute>), Error>> + Send;

    /// Reads a consistent snapshot of the changes after a revision.
    fn changes_since(&self, revision: i64) -> impl Future<Output = Result<Since, Error>> + Send;

    /// The digest of the table after a revision; `None` if the change log no longer has it.
    fn digest_at(
        &self,
        revision: i64,
    ) -> impl Future<Output = Result<Option<[u8; 32]>, Error>> + Send;
}

impl Store {
    /// Reads the head, and notifies subscribers of it. Polling it follows a database that others
    /// write to.
    pub async fn head(&self) -> Result<Head, Error> {
        let head = read_head(self.reader()).await?;
        self.inner.advance(head.revision);
        Ok(head)
    }

    /// Starts a new epoch, in which every proxy reloads the table. Rebuilds routes and digest.
    ///
    /// # Errors
    /// If the database cannot be written, or a rebuilt route cannot be stored.
    pub async fn new_epoch(&self, now: Timestamp) -> Result<Head, Error> {
        let span = write_span!("new_epoch");
        self.write(span, WriteOptions::system("new_epoch", now), |tx| {
            Box::pin(async move {
                tx.rebuild_hosts().await?;
                tx.rebuild_table().await?;
                let before = json!({ "epoch": tx.epoch() });
                let epoch = Uuid::new_v4().to_string();
                let after = json!({ "epoch": epoch });
                tx.restart_history(epoch).await?;
                let change = AuditedChange::new("cluster".to_owned(), &before, &after);
                Ok(WriteOutcome::Changed((), change))
            })
        })
        .await?;
        self.head().await
    }
}

impl FeedSource for Store {
    fn subscribe(&self) -> watch::Receiver<i64> {
        self.inner.head.subscribe()
    }

    async fn load_table(&self) -> Result<(Head, Vec<StoredRoute>), Error> {
        let db = connection::begin_read(self.reader()).await?;
        let head = read_head(&db).await?;
        let routes = routes::Entity::find()
            .order_by_asc(routes::Column::ServiceUid)
            .all(&db)
            .await?
            .into_iter()
            .map(row::stored_route)
            .collect::<Result<_, _>>()?;
        db.rollback().await?;
        Ok((head, routes))
    }

    async fn changes_since(&self, revision: i64) -> Result<Since, Error> {
        let db = connection::begin_read(self.reader()).await?;
        let head = read_head(&db).await?;
        if revision > head.revision || revision < head.compacted_revision {
            db.rollback().await?;
            return Ok(if revision > head.revision {
                Since::Ahead(head)
            } else {
                Since::Compacted(head)
            });
        }
        let changes = route_changes::Entity::find()
            .filter(route_changes::Column::Revision.gt(revision))
            .order_by_asc(route_changes::Column::Revision)
            .all(&db)
            .await?
            .into_iter()
            .map(read_change)
            .collect::<Result<_, _>>()?;
        // A route has the revision that last changed it, so these are the routes changed since.
        let routes = routes::Entity::find()
            .filter(routes::Column::Revision.gt(revision))
            .order_by_asc(routes::Column::ServiceUid)
            .all(&db)
            .await?
            .into_iter()
            .map(row::stored_route)
            .collect::<Result<_, _>>()?;
        db.rollback().await?;
        Ok(Since::Changes(Changes {
            head,
            changes,
            routes,
        }))
    }

    async fn digest_at(&self, revision: i64) -> Result<Option<[u8; 32]>, Error> {
        let digest: Option<Vec<u8>> = route_changes::Entity::find_by_id(revision)
            .select_only()
            .column(route_changes::Column::Digest)
            .into_tuple()
            .one(self.reader())
            .await?;
        digest
            .map(|digest| row::bytes32("route_changes.digest", digest))
            .transpose()
    }
}

/// Fills a new database; rebuilds an existing one whose routes this program would store
/// differently.
pub(super) async fn initialize(store: &Store, now: Timestamp) -> Result<(), Error> {
    let inner = Arc::clone(&store.inner);
    let known = feed_state::Entity::find_by_id(FEED_STATE_ID)
        .one(&inner.connections.writer)
        .await?;
    if known.is_none() {
        return create_feed_state(&inner, now).await;
    }
    let db = connection::begin_read(&inner.connections.reader).await?;
    let head = read_head(&db).await?;
    let current = table::is_current(&db, &inner, TableDigest::from_bytes(head.digest)).await?;
    db.rollback().await?;
    inner.advance(head.revision);
    if !current {
        tracing::warn!(
            revision = head.revision,
            "stored routes are outdated (an upgrade, or another domain): rebuilding them in a new epoch"
        );
        store.new_epoch(now).await?;
    }
    Ok(())
}

/// Inserts the first head and its change, unless another process has (PostgreSQL waits for its end).
async fn create_feed_state(inner: &Inner, now: Timestamp) -> Result<(), Error> {
    use sea_orm::ActiveValue::Set;
    let digest = TableDigest::default().to_bytes().to_vec();
    let (db, known) = connection::begin_write(&inner.connections, |db| {
        Box::pin(feed_state::Entity::find_by_id(FEED_STATE_ID).one(db))
    })
    .await?;
    if known.is_none() {
        feed_state::Entity::insert(feed_state::ActiveModel {
            id: Set(FEED_STATE_ID),
            cluster: Set(Uuid::new_v4().to_string()),
            epoch: Set(Uuid::new_v4().to_string()),
            revision: Set(0),
            compacted_revision: Set(0),
            digest: Set(digest.clone()),
        })
        .on_conflict_do_nothing()
        .exec_without_returning(&db)
        .await?;
        route_changes::Entity::insert(route_changes::ActiveModel {
            revision: Set(0),
            service_uid: Set(None),
            op: Set(RouteOp::None.as_str().to_owned()),
            digest: Set(digest),
            time: Set(now.micros()),
        })
        .on_conflict_do_nothing()
        .exec_without_returning(&db)
        .await?;
    }
    db.commit().await?;
    Ok(())
}

async fn read_head(db: &impl ConnectionTrait) -> Result<Head, Error> {
    let state = feed_state::Entity::find_by_id(FEED_STATE_ID)
        .one(db)
        .await?
        .ok_or_else(|| Error::Database("feed_state has no row".to_owned()))?;
    Ok(Head {
        cluster: state.cluster,
        epoch: state.epoch,
        revision: state.revision,
        compacted_revision: state.compacted_revision,
        digest: row::bytes32("feed_state.digest", state.digest)?,
    })
}

fn read_change(row: route_changes::Model) -> Result<RouteChange, Error> {
    Ok(RouteChange {
        revision: row.revision,
        service_uid: row
            .service_uid
            .map(Uid::parse)
            .transpose()
            .map_err(|reason| Error::Database(format!("route_changes.service_uid: {reason}")))?,
        op: RouteOp::parse(&row.op)?,
        digest: row::bytes32("route_changes.digest", row.digest)?,
    })
}
