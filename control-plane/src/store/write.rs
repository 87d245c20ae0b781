//! The frame of every write.
//!
//! ```text
//! BEGIN IMMEDIATE ─▶ feed_state (FOR UPDATE) ─▶ the change ─▶ its route ─▶ revision + 1, log ─▶ COMMIT ─▶ head
//! ```
//!
//! The revision is known from the second step on and becomes true at COMMIT: nobody else writes meanwhile, on SQLite
//! because of its lock, on PostgreSQL because of the locked row. So commit order is revision order, and a rollback
//! leaves no gap.
//!
//! A write runs in a task of its own. A caller that goes away (a cancelled RPC) neither tears it apart nor keeps
//! subscribers from hearing of a commit that has happened.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect,
};

use crate::domain::{Timestamp, Uid};

use super::digest::TableDigest;
use super::entity::{feed_state, request_ids, route_changes};
use super::types::{RouteOp, Written};
use super::{Error, Inner, Store, connection, row};

/// Changes kept at least, however old.
pub(super) const KEEP_CHANGES: i64 = 10_000;
/// Time for which changes are kept at least, however many.
const KEEP_TIME: Duration = Duration::from_secs(60 * 60);
/// Time for which a request id is remembered.
pub(super) const KEEP_REQUEST_IDS: Duration = Duration::from_secs(24 * 60 * 60);
/// Revisions between two clean-ups: few enough to keep each short, many enough to cost the others nothing.
const CLEAN_EVERY: i64 = 256;

/// The one row of `feed_state`.
pub(super) const FEED_STATE_ID: i32 = 1;

/// What a write came to.
pub(super) enum Outcome<T> {
    /// Something changed: a new revision.
    Changed(T),
    /// Something changed that the feed and its readers do not see: no new revision.
    Quiet(T),
    /// Nothing changed.
    Same(T),
    /// The request was done before, at this revision.
    Replayed(T, i64),
}

/// A write under way.
pub(super) struct WriteTx {
    pub(super) db: DatabaseTransaction,
    pub(super) inner: Arc<Inner>,
    pub(super) now: Timestamp,
    pub(super) digest: TableDigest,
    change: (Option<Uid>, RouteOp),
    state: feed_state::Model,
}

impl Store {
    /// Runs one write in its frame.
    pub(super) async fn write<T, F>(
        &self,
        now: Timestamp,
        validate_only: bool,
        change: F,
    ) -> Result<Written<T>, Error>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut WriteTx) -> BoxFuture<'a, Result<Outcome<T>, Error>>
            + Send
            + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let done = tokio::spawn(async move {
            let mut tx = WriteTx::begin(inner, now).await?;
            let outcome = match change(&mut tx).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    tx.db.rollback().await?;
                    return Err(error);
                }
            };
            let current = tx.state.revision;
            let (resource, revision, replayed) = match outcome {
                Outcome::Changed(resource) => (resource, tx.end(validate_only).await?, false),
                Outcome::Quiet(resource) => {
                    if validate_only {
                        tx.db.rollback().await?;
                    } else {
                        tx.db.commit().await?;
                    }
                    (resource, current, false)
                }
                Outcome::Same(resource) => {
                    tx.db.rollback().await?;
                    (resource, current, false)
                }
                Outcome::Replayed(resource, revision) => {
                    tx.db.rollback().await?;
                    (resource, revision, true)
                }
            };
            Ok(Written {
                resource,
                revision,
                replayed,
            })
        });
        done.await.map_err(|error| {
            if error.is_panic() {
                Error::Database(format!("a write did not end well: {error}"))
            } else {
                Error::Unavailable("the program is shutting down".to_owned())
            }
        })?
    }
}

impl WriteTx {
    async fn begin(inner: Arc<Inner>, now: Timestamp) -> Result<Self, Error> {
        let db = connection::begin_write(&inner.connections.writer).await?;
        let state = feed_state::Entity::find_by_id(FEED_STATE_ID)
            .lock_exclusive()
            .one(&db)
            .await?
            .ok_or_else(|| Error::Database("the row of feed_state is gone".to_owned()))?;
        Ok(Self {
            digest: TableDigest::from_bytes(row::bytes32(
                "feed_state.digest",
                state.digest.clone(),
            )?),
            db,
            inner,
            now,
            change: (None, RouteOp::None),
            state,
        })
    }

    /// The revision that this write will be.
    pub(super) fn revision(&self) -> i64 {
        self.state.revision + 1
    }

    /// Notes what this write does to the table.
    pub(super) fn note(&mut self, service_uid: &Uid, op: RouteOp) {
        self.change = (Some(service_uid.clone()), op);
    }

    /// Steps the revision, logs the change and commits; or, for a check only, does all of it and rolls back.
    async fn end(self, validate_only: bool) -> Result<i64, Error> {
        let revision = self.revision();
        let digest = self.digest.to_bytes().to_vec();
        let (service_uid, op) = &self.change;
        let stepped = feed_state::Entity::update_many()
            .col_expr(
                feed_state::Column::Revision,
                Expr::col(feed_state::Column::Revision).add(1),
            )
            .col_expr(feed_state::Column::Digest, Expr::value(digest.clone()))
            .filter(feed_state::Column::Id.eq(FEED_STATE_ID))
            .exec_with_returning(&self.db)
            .await?;
        if stepped.first().map(|state| state.revision) != Some(revision) {
            return Err(Error::Unavailable("another writer came between".to_owned()));
        }
        route_changes::Entity::insert(route_changes::ActiveModel {
            revision: Set(revision),
            service_uid: Set(service_uid.as_ref().map(|uid| uid.as_str().to_owned())),
            op: Set(op.as_str().to_owned()),
            digest: Set(digest),
            time: Set(self.now.micros()),
        })
        .exec_without_returning(&self.db)
        .await?;
        if revision % CLEAN_EVERY == 0 {
            self.clean(KEEP_CHANGES).await?;
        }
        if validate_only {
            self.db.rollback().await?;
            return Ok(revision);
        }
        self.db.commit().await?;
        self.inner.advance(revision);
        Ok(revision)
    }

    /// Forgets changes beyond the last `keep` that are older than an hour, and request ids older than a day.
    ///
    /// The change at the compacted revision itself is kept: its digest vouches for a delta that starts there.
    pub(super) async fn clean(&self, keep: i64) -> Result<(), Error> {
        use route_changes::Column as Change;
        request_ids::Entity::delete_many()
            .filter(request_ids::Column::Time.lt(self.now.minus(KEEP_REQUEST_IDS).micros()))
            .exec(&self.db)
            .await?;
        let most = self.revision() - keep;
        if most <= self.state.compacted_revision {
            return Ok(());
        }
        // The first that is too young to go bounds what goes; revisions are in order of time.
        let young: Option<i64> = route_changes::Entity::find()
            .select_only()
            .column(Change::Revision)
            .filter(Change::Revision.gt(self.state.compacted_revision))
            .filter(Change::Revision.lte(most))
            .filter(Change::Time.gt(self.now.minus(KEEP_TIME).micros()))
            .order_by_asc(Change::Revision)
            .into_tuple()
            .one(&self.db)
            .await?;
        let compacted = young.map_or(most, |young| young - 1);
        if compacted <= self.state.compacted_revision {
            return Ok(());
        }
        route_changes::Entity::delete_many()
            .filter(Change::Revision.lt(compacted))
            .exec(&self.db)
            .await?;
        feed_state::Entity::update_many()
            .col_expr(
                feed_state::Column::CompactedRevision,
                Expr::value(compacted),
            )
            .filter(feed_state::Column::Id.eq(FEED_STATE_ID))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// Starts the history over: a new epoch, in which only this revision is known.
    pub(super) async fn restart_history(&self, epoch: String) -> Result<(), Error> {
        route_changes::Entity::delete_many().exec(&self.db).await?;
        feed_state::Entity::update_many()
            .col_expr(feed_state::Column::Epoch, Expr::value(epoch))
            .col_expr(
                feed_state::Column::CompactedRevision,
                Expr::value(self.revision()),
            )
            .filter(feed_state::Column::Id.eq(FEED_STATE_ID))
            .exec(&self.db)
            .await?;
        Ok(())
    }
}

impl RouteOp {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Remove => "remove",
            Self::None => "none",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "upsert" => Ok(Self::Upsert),
            "remove" => Ok(Self::Remove),
            "none" => Ok(Self::None),
            other => Err(Error::Database(format!(
                "route_changes.op holds `{other}`, which this program does not know"
            ))),
        }
    }
}
