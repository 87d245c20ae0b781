//! The steps that are common to all writes.
//!
//! ```text
//! BEGIN IMMEDIATE ─▶ feed_state (FOR UPDATE) ─▶ writes ─▶ COMMIT ─▶ head ─▶ answers
//!                                               │
//!       SAVEPOINT ─▶ change ─▶ route ─▶ revision + 1, change log, audit log ─▶ RELEASE or ROLLBACK TO
//! ```
//!
//! A write knows its revision from the start, because no other write runs meanwhile: SQLite locks
//! the file, PostgreSQL the row of `feed_state`. So commit order is revision order, and a rollback
//! leaves no gap; a database sequence ensures neither. `validate_only` runs the whole write and
//! rolls it back, so validation and write cannot disagree. [`write_queue`](super::write_queue)
//! schedules writes and commits them.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::domain::{Origin, Timestamp, Uid};

use super::audited_change::AuditedChange;
use super::digest::TableDigest;
use super::entity::{feed_state, request_ids, route_changes};
use super::transaction::Transaction;
use super::types::{RouteOp, Written};
use super::{Error, Inner, row};

/// The newest changes are kept, however old.
pub(super) const MIN_CHANGES_KEPT: i64 = 10_000;
/// Younger changes are kept, however many.
const MIN_CHANGE_AGE: Duration = Duration::from_secs(60 * 60);
/// Time for which a request id is remembered.
pub(super) const REQUEST_ID_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Revisions between two compactions: each stays short, and other writes pay nothing.
const COMPACT_EVERY: i64 = 256;

/// The id of the only row of `feed_state`.
pub(super) const FEED_STATE_ID: i32 = 1;

/// The span of a write; [`Store::write`](super::Store::write) records the revision.
macro_rules! write_span {
    ($change:literal $(, $($field:tt)+)?) => {
        tracing::debug_span!(
            "write", change = $change, $($($field)+,)? revision = tracing::field::Empty
        )
    };
}
pub(super) use write_span;

/// The effect of a write.
pub(super) enum WriteOutcome<T> {
    /// A change: makes a new revision and an entry of the audit log.
    Changed(T, AuditedChange),
    /// A change that the feed does not carry: makes an entry of the audit log, but no revision.
    Unpublished(T, AuditedChange),
    /// Rows beside the resources, such as a request id or a last use: makes neither.
    Bookkeeping(T),
    /// Nothing changed.
    Unchanged(T),
    /// A repeated request, already done at this revision.
    Replayed(T, i64),
}

/// A running write.
pub(super) struct WriteTx {
    pub(super) db: Transaction,
    pub(super) inner: Arc<Inner>,
    pub(super) now: Timestamp,
    pub(super) digest: TableDigest,
    pub(super) by: Origin,
    /// What subscribers learn after the commit.
    pub(super) news: News,
    change: (Option<Uid>, RouteOp),
    state: feed_state::Model,
}

/// What a kept write has changed beside the route table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The tokens or the enrolled nodes.
    pub(super) credentials: bool,
    /// The audit log.
    pub(super) audit: bool,
}

impl News {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            credentials: self.credentials | other.credentials,
            audit: self.audit | other.audit,
        }
    }
}

/// A write whose savepoint is still open.
pub(super) struct FinishedWrite<T> {
    pub(super) written: Written<T>,
    /// The new row of `feed_state`; `None` rolls the write back.
    pub(super) keep: Option<feed_state::Model>,
    pub(super) news: News,
    pub(super) db: Transaction,
}

/// Reads the row of `feed_state` and locks it until the transaction ends.
pub(super) async fn lock_feed_state(db: &Transaction) -> Result<feed_state::Model, DbErr> {
    feed_state::Entity::find_by_id(FEED_STATE_ID)
        .lock_exclusive()
        .one(db)
        .await?
        .ok_or_else(|| DbErr::Custom("feed_state has no row".to_owned()))
}

impl WriteTx {
    /// Begins a write in the savepoint `db`; `state` is the row that the transaction holds locked.
    pub(super) fn begin(
        inner: Arc<Inner>,
        db: Transaction,
        state: feed_state::Model,
        now: Timestamp,
        by: Origin,
    ) -> Result<Self, Error> {
        Ok(Self {
            digest: TableDigest::from_bytes(row::bytes32(
                "feed_state.digest",
                state.digest.clone(),
            )?),
            db,
            inner,
            now,
            by,
            news: News::default(),
            change: (None, RouteOp::None),
            state,
        })
    }

    /// Completes the write. An error comes with the savepoint, which the caller rolls back.
    pub(super) async fn finish<T>(
        mut self,
        outcome: WriteOutcome<T>,
        validate_only: bool,
    ) -> Result<FinishedWrite<T>, (Error, Transaction)> {
        let current = self.state.revision;
        let (resource, revision, replayed, keep) = match outcome {
            WriteOutcome::Changed(resource, change) => {
                if let Err(error) = self.append_change().await {
                    return Err((error, self.db));
                }
                if let Err(error) = self.audit(change).await {
                    return Err((error, self.db));
                }
                (resource, self.state.revision, false, !validate_only)
            }
            WriteOutcome::Unpublished(resource, change) => {
                if let Err(error) = self.audit(change).await {
                    return Err((error, self.db));
                }
                (resource, current, false, !validate_only)
            }
            WriteOutcome::Bookkeeping(resource) => (resource, current, false, !validate_only),
            WriteOutcome::Unchanged(resource) => (resource, current, false, false),
            WriteOutcome::Replayed(resource, revision) => (resource, revision, true, false),
        };
        Ok(FinishedWrite {
            written: Written {
                resource,
                revision,
                replayed,
            },
            keep: keep.then_some(self.state),
            news: self.news,
            db: self.db,
        })
    }

    /// The epoch before this write.
    pub(super) fn epoch(&self) -> &str {
        &self.state.epoch
    }

    /// The revision that this write makes.
    pub(super) fn revision(&self) -> i64 {
        self.state.revision + 1
    }

    /// Records the effect on the route table, for the change log.
    pub(super) fn record_change(&mut self, service_uid: &Uid, op: RouteOp) {
        self.change = (Some(service_uid.clone()), op);
    }

    /// Increments the revision and appends to the change log.
    async fn append_change(&mut self) -> Result<(), Error> {
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
        // An unconditional update is safe: the row was read under the lock.
        let step = feed_state::Entity::update_many()
            .col_expr(feed_state::Column::Revision, Expr::value(revision))
            .col_expr(feed_state::Column::Digest, Expr::value(digest.clone()))
            .filter(feed_state::Column::Id.eq(FEED_STATE_ID));
        self.db.defer(step).await?;
        if revision % COMPACT_EVERY == 0 {
            self.compact(MIN_CHANGES_KEPT).await?;
        }
        self.state.revision = revision;
        self.state.digest = digest;
        Ok(())
    }

    /// Deletes changes that are older than an hour and not among the last `keep`, and request ids
    /// older than a day.
    ///
    /// The change at the compacted revision stays: its digest verifies a delta that starts there.
    pub(super) async fn compact(&mut self, keep: i64) -> Result<(), Error> {
        use route_changes::Column as Change;
        request_ids::Entity::delete_many()
            .filter(request_ids::Column::Time.lt(self.now.minus(REQUEST_ID_TTL).micros()))
            .exec(&self.db)
            .await?;
        let most = self.revision() - keep;
        if most <= self.state.compacted_revision {
            return Ok(());
        }
        // Revisions are in order of time, so the first young change limits the deletion.
        let young: Option<i64> = route_changes::Entity::find()
            .select_only()
            .column(Change::Revision)
            .filter(Change::Revision.gt(self.state.compacted_revision))
            .filter(Change::Revision.lte(most))
            .filter(Change::Time.gt(self.now.minus(MIN_CHANGE_AGE).micros()))
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

    /// Restarts the history in a new epoch, with this revision as the only known one.
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
