//! The frame of every write.
//!
//! ```text
//! BEGIN IMMEDIATE ─▶ feed_state (FOR UPDATE) ─▶ the writes ─▶ COMMIT ─▶ head ─▶ answers
//!                                               │
//!            SAVEPOINT ─▶ the change ─▶ its route ─▶ revision + 1, log ─▶ RELEASE, or back to it
//! ```
//!
//! The revision is known from the start and becomes true at COMMIT: nobody else writes meanwhile, on SQLite because of
//! its lock, on PostgreSQL because of the locked row. So commit order is revision order, and a rollback leaves no gap.
//! Writes that wait for a turn share a commit ([`batch`](super::batch)); none is answered before it.
//!
//! A write runs in a task of its own. A caller that goes away (a cancelled RPC) neither tears it apart nor keeps
//! subscribers from hearing of a commit that has happened.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::domain::{Timestamp, Uid};

use super::digest::TableDigest;
use super::entity::{feed_state, request_ids, route_changes};
use super::session::Session;
use super::types::{RouteOp, Written};
use super::{Error, Inner, row};

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
    pub(super) db: Session,
    pub(super) inner: Arc<Inner>,
    pub(super) now: Timestamp,
    pub(super) digest: TableDigest,
    change: (Option<Uid>, RouteOp),
    state: feed_state::Model,
}

/// A write as it stands before its savepoint ends.
pub(super) struct Done<T> {
    /// What to answer.
    pub(super) written: Written<T>,
    /// The row of `feed_state` after it, if it is to be kept.
    pub(super) keep: Option<feed_state::Model>,
    pub(super) db: Session,
}

/// The one row of `feed_state`, locked until the transaction ends.
pub(super) async fn lock_state(db: &Session) -> Result<feed_state::Model, DbErr> {
    feed_state::Entity::find_by_id(FEED_STATE_ID)
        .lock_exclusive()
        .one(db)
        .await?
        .ok_or_else(|| DbErr::Custom("the row of feed_state is gone".to_owned()))
}

impl WriteTx {
    /// A write in a savepoint; `state` is the row that its transaction has locked, as of now.
    pub(super) fn begin(
        inner: Arc<Inner>,
        db: Session,
        state: feed_state::Model,
    ) -> Result<Self, Error> {
        Ok(Self {
            digest: TableDigest::from_bytes(row::bytes32(
                "feed_state.digest",
                state.digest.clone(),
            )?),
            db,
            inner,
            now: Timestamp::default(),
            change: (None, RouteOp::None),
            state,
        })
    }

    /// Completes the write by what it came to. An error comes with the savepoint, which is to be rolled back.
    pub(super) async fn finish<T>(
        mut self,
        outcome: Outcome<T>,
        validate_only: bool,
    ) -> Result<Done<T>, (Error, Session)> {
        let current = self.state.revision;
        let (resource, revision, replayed, keep) = match outcome {
            Outcome::Changed(resource) => {
                if let Err(error) = self.log().await {
                    return Err((error, self.db));
                }
                (resource, self.state.revision, false, !validate_only)
            }
            Outcome::Quiet(resource) => (resource, current, false, !validate_only),
            Outcome::Same(resource) => (resource, current, false, false),
            Outcome::Replayed(resource, revision) => (resource, revision, true, false),
        };
        Ok(Done {
            written: Written {
                resource,
                revision,
                replayed,
            },
            keep: keep.then_some(self.state),
            db: self.db,
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

    /// Steps the revision and logs the change.
    async fn log(&mut self) -> Result<(), Error> {
        let revision = self.revision();
        let digest = self.digest.to_bytes().to_vec();
        let (service_uid, op) = &self.change;
        let change = route_changes::Entity::insert(route_changes::ActiveModel {
            revision: Set(revision),
            service_uid: Set(service_uid.as_ref().map(|uid| uid.as_str().to_owned())),
            op: Set(op.as_str().to_owned()),
            digest: Set(digest.clone()),
            time: Set(self.now.micros()),
        });
        self.db.defer(change).await?;
        // Nobody else has changed the row: it was read under the lock.
        let step = feed_state::Entity::update_many()
            .col_expr(feed_state::Column::Revision, Expr::value(revision))
            .col_expr(feed_state::Column::Digest, Expr::value(digest.clone()))
            .filter(feed_state::Column::Id.eq(FEED_STATE_ID));
        self.db.defer(step).await?;
        if revision % CLEAN_EVERY == 0 {
            self.clean(KEEP_CHANGES).await?;
        }
        self.state.revision = revision;
        self.state.digest = digest;
        Ok(())
    }

    /// Forgets changes beyond the last `keep` that are older than an hour, and request ids older than a day.
    ///
    /// The change at the compacted revision itself is kept: its digest vouches for a delta that starts there.
    pub(super) async fn clean(&mut self, keep: i64) -> Result<(), Error> {
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
        self.state.compacted_revision = compacted;
        Ok(())
    }

    /// Starts the history over: a new epoch, in which only this revision is known.
    pub(super) async fn restart_history(&mut self, epoch: String) -> Result<(), Error> {
        route_changes::Entity::delete_many().exec(&self.db).await?;
        feed_state::Entity::update_many()
            .col_expr(feed_state::Column::Epoch, Expr::value(epoch.clone()))
            .col_expr(
                feed_state::Column::CompactedRevision,
                Expr::value(self.revision()),
            )
            .filter(feed_state::Column::Id.eq(FEED_STATE_ID))
            .exec(&self.db)
            .await?;
        self.state.compacted_revision = self.revision();
        self.state.epoch = epoch;
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
