//! The audit log: one entry for each change, written in the savepoint of the change, and entries for
//! refused calls.
//!
//! Invariants: a kept write that changes a resource has exactly one entry, any other none; ids grow
//! with the order of commits; entries never change, and the newest is never deleted, so that ids are
//! not reused.

use sea_orm::sea_query::{Expr, ExprTrait as _, Func, Query, SubQueryStatement};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    Select,
};
use tokio::sync::watch;

use crate::domain::{FieldChange, ServiceId, Timestamp};

use super::audited_change::AuditedChange;
use super::entity::audit_entries::{Column, Entity, Model};
use super::types::{Page, WriteOptions};
use super::write::{WriteOutcome, WriteTx, write_span};
use super::{Error, Store, row};

/// Entries that one write deletes, so that other writes wait little.
const DELETE_BATCH: u64 = 1000;

/// Similar refused calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The principal; empty: no valid credential was presented.
    pub principal: String,
    /// Address of the caller.
    pub peer: String,
    /// Path of the call.
    pub method: String,
    /// The gRPC code.
    pub code: i32,
    /// The reason.
    pub message: String,
    /// Number of calls.
    pub count: u32,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Grows with every entry.
    pub id: i64,
    /// Time of the change or the refusal.
    pub time: Timestamp,
    /// The principal; empty: none.
    pub principal: String,
    /// Address of the caller; empty: the control plane itself.
    pub peer: String,
    /// Path of the call, or name of a task.
    pub method: String,
    /// Name of the resource; empty for a refused call.
    pub resource: String,
    /// The fields that differ.
    pub changes: Vec<FieldChange>,
    /// The gRPC code; 0 for a change.
    pub code: i32,
    /// The reason of a refusal.
    pub message: String,
    /// Number of refusals that the entry stands for.
    pub count: u32,
}

impl AuditEntry {
    fn read(model: Model) -> Result<Self, Error> {
        Ok(Self {
            id: model.id,
            time: Timestamp::from_micros(model.time),
            principal: model.principal,
            peer: model.peer,
            method: model.method,
            resource: model.resource,
            changes: row::read("audit_entries.changes", &model.changes)?,
            code: model.code,
            message: model.message,
            count: u32::try_from(model.count).unwrap_or(1),
        })
    }
}

/// Selects entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this service; `None`: of all resources.
    pub service: Option<ServiceId>,
    /// Only of this principal; `None`: of all.
    pub principal: Option<String>,
    /// Only of this time and later; `None`: all.
    pub since: Option<Timestamp>,
}

impl AuditQuery {
    fn select(&self) -> Select<Entity> {
        Entity::find()
            .apply_if(self.service.as_ref(), |query, service| {
                query.filter(Column::Service.eq(service.as_str()))
            })
            .apply_if(self.principal.as_ref(), |query, principal| {
                query.filter(Column::Principal.eq(principal.as_str()))
            })
            .apply_if(self.since, |query, since| {
                query.filter(Column::Time.gte(since.micros()))
            })
    }
}

impl WriteTx {
    /// Appends the entry of this write's change.
    pub(super) async fn audit(&mut self, change: AuditedChange) -> Result<(), Error> {
        let entry = Model {
            id: 0,
            time: self.now.micros(),
            principal: self.by.principal.to_string(),
            peer: self
                .by
                .peer
                .map(|peer| peer.to_string())
                .unwrap_or_default(),
            method: self.by.method.to_string(),
            resource: change.resource,
            service: change.service,
            changes: row::write(&change.changes)?,
            code: 0,
            message: String::new(),
            count: 1,
        };
        self.append_entry(entry).await
    }

    /// Appends an entry, whose id is the next one: writes hold the lock of `feed_state`.
    async fn append_entry(&mut self, entry: Model) -> Result<(), Error> {
        let newest = Query::select()
            .expr(Func::coalesce([
                Func::max(Expr::col(Column::Id)).into(),
                Expr::val(0_i64),
            ]))
            .from(Entity)
            .to_owned();
        let newest = Expr::SubQuery(None, Box::new(SubQueryStatement::SelectStatement(newest)));
        let insert = Query::insert()
            .into_table(Entity)
            .columns([
                Column::Id,
                Column::Time,
                Column::Principal,
                Column::Peer,
                Column::Method,
                Column::Resource,
                Column::Service,
                Column::Changes,
                Column::Code,
                Column::Message,
                Column::Count,
            ])
            .values_panic([
                newest.add(1_i64),
                entry.time.into(),
                entry.principal.into(),
                entry.peer.into(),
                entry.method.into(),
                entry.resource.into(),
                entry.service.into(),
                entry.changes.into(),
                entry.code.into(),
                entry.message.into(),
                entry.count.into(),
            ])
            .to_owned();
        let statement = self.db.get_database_backend().build(&insert);
        self.db.defer_statement(statement).await?;
        self.news.audit = true;
        Ok(())
    }

    async fn record_refusals(&mut self, refusals: Vec<Refusal>) -> Result<WriteOutcome<()>, Error> {
        for refusal in refusals {
            let entry = Model {
                id: 0,
                time: self.now.micros(),
                principal: refusal.principal,
                peer: refusal.peer,
                method: refusal.method,
                resource: String::new(),
                service: String::new(),
                changes: "[]".to_owned(),
                code: refusal.code,
                message: refusal.message,
                count: i32::try_from(refusal.count).unwrap_or(i32::MAX),
            };
            self.append_entry(entry).await?;
        }
        Ok(WriteOutcome::Bookkeeping(()))
    }

    async fn delete_entries(&mut self, before: Timestamp) -> Result<WriteOutcome<u64>, Error> {
        let ids: Vec<i64> = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::Time.lt(before.micros()))
            .order_by_asc(Column::Time)
            .limit(DELETE_BATCH)
            .into_tuple()
            .all(&self.db)
            .await?;
        let Some(newest) = newest_id(&self.db).await? else {
            return Ok(WriteOutcome::Unchanged(0));
        };
        let old = ids.into_iter().filter(|id| *id != newest);
        let deleted = Entity::delete_many()
            .filter(Column::Id.is_in(old))
            .exec(&self.db)
            .await?;
        Ok(WriteOutcome::Bookkeeping(deleted.rows_affected))
    }
}

async fn newest_id(db: &impl ConnectionTrait) -> Result<Option<i64>, Error> {
    Ok(Entity::find()
        .select_only()
        .column(Column::Id)
        .order_by_desc(Column::Id)
        .into_tuple()
        .one(db)
        .await?)
}

impl Store {
    /// Watches commits of this process that write to the audit log. Others are found by polling.
    pub(crate) fn watch_audit(&self) -> watch::Receiver<u64> {
        self.inner.audit.subscribe()
    }

    /// Lists entries, newest first, at most `limit` of those before the id `before`.
    pub async fn list_audit(
        &self,
        query: &AuditQuery,
        limit: u32,
        before: Option<i64>,
    ) -> Result<Page<AuditEntry>, Error> {
        let found = query
            .select()
            .apply_if(before, |query, before| query.filter(Column::Id.lt(before)))
            .order_by_desc(Column::Id)
            .limit(u64::from(limit) + 1)
            .all(self.reader())
            .await?;
        Page::cut(found, limit, AuditEntry::read)
    }

    /// Reads entries, oldest first, at most `limit` of those after the id `after`.
    pub async fn audit_after(
        &self,
        query: &AuditQuery,
        limit: u32,
        after: i64,
    ) -> Result<Vec<AuditEntry>, Error> {
        let found = query
            .select()
            .filter(Column::Id.gt(after))
            .order_by_asc(Column::Id)
            .limit(u64::from(limit))
            .all(self.reader())
            .await?;
        found.into_iter().map(AuditEntry::read).collect()
    }

    /// The id of the newest entry; 0 without entries.
    pub async fn newest_audit(&self) -> Result<i64, Error> {
        Ok(newest_id(self.reader()).await?.unwrap_or(0))
    }

    /// Writes entries about refused calls.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn record_refusals(
        &self,
        refusals: Vec<Refusal>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let span = write_span!("record_refusals");
        let options = WriteOptions::system("record_refusals", now);
        self.write(span, options, move |tx| {
            Box::pin(tx.record_refusals(refusals))
        })
        .await?;
        Ok(())
    }

    /// Deletes a bounded number of entries from before a time, and returns how many; 0: none is left.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn delete_audit(&self, before: Timestamp, now: Timestamp) -> Result<u64, Error> {
        let span = write_span!("delete_audit");
        let options = WriteOptions::system("delete_audit", now);
        let deleted = self
            .write(span, options, move |tx| Box::pin(tx.delete_entries(before)))
            .await?;
        Ok(deleted.resource)
    }
}
