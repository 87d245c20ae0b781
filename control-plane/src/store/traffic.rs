//! The current traffic split, and its append-only history.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::domain::{
    ChangeNote, ServiceId, Slots, Traffic, TrafficRevision, TrafficSplit, Version, VersionNumber,
    name,
};

use super::entity::{services, traffic_revisions};
use super::error::Precondition;
use super::hosts::HostKind;
use super::idempotency::IdempotencyKey;
use super::row::{self, ServiceRow};
use super::services::{check_etag, find};
use super::types::{Page, WriteOptions, Written};
use super::write::{WriteOutcome, WriteTx, write_span};
use super::{Error, Store, connection};

/// The resource type in errors.
const KIND: &str = "cless.v1.TrafficRevision";

/// The author, the condition and the idempotency key of a traffic change.
struct TrafficChange {
    etag: Option<String>,
    note: ChangeNote,
    key: Option<IdempotencyKey>,
}

impl WriteTx {
    /// The service to change; breaks with the first answer if the request is a repeat.
    async fn begin_change(
        &self,
        service: &ServiceId,
        change: &TrafficChange,
    ) -> Result<ControlFlow<WriteOutcome<Traffic>, ServiceRow>, Error> {
        if let Some(first) = self.first_result(change.key.as_ref()).await? {
            let row = self.service_by_uid(&first.service_uid, service).await?;
            let replayed = WriteOutcome::Replayed(row.traffic(), first.revision);
            return Ok(ControlFlow::Break(replayed));
        }
        let row = self.service(service).await?;
        let (etag, found) = (change.etag.as_deref(), row.traffic().etag);
        check_etag(name::traffic(service), etag, &found)?;
        Ok(ControlFlow::Continue(row))
    }

    async fn update_traffic(
        &mut self,
        service: &ServiceId,
        split: TrafficSplit,
        change: TrafficChange,
    ) -> Result<WriteOutcome<Traffic>, Error> {
        match self.begin_change(service, &change).await? {
            ControlFlow::Continue(row) => self.set_traffic(row, split, 0, change).await,
            ControlFlow::Break(replayed) => Ok(replayed),
        }
    }

    async fn rollback_traffic(
        &mut self,
        service: &ServiceId,
        to: Option<i32>,
        change: TrafficChange,
    ) -> Result<WriteOutcome<Traffic>, Error> {
        let row = match self.begin_change(service, &change).await? {
            ControlFlow::Continue(row) => row,
            ControlFlow::Break(replayed) => return Ok(replayed),
        };
        let number = to.unwrap_or(row.model.traffic_revision - 1);
        if to.is_none() && number < 1 {
            return Err(Error::precondition(
                "NO_EARLIER_TRAFFIC",
                name::traffic(service),
                format!(
                    "services/{service} has had {} traffic revision(s), so there is none to go back to: set traffic instead",
                    row.model.traffic_revision
                ),
            ));
        }
        let copied = traffic_revisions::Entity::find_by_id((row.model.uid.clone(), number))
            .one(&self.db)
            .await?
            .ok_or_else(|| Error::NotFound {
                kind: KIND,
                name: name::traffic_revision(service, number),
            })?;
        let split = row.traffic_revision(copied)?.split;
        self.set_traffic(row, split, number, change).await
    }

    /// Sets the split and appends it to the history.
    async fn set_traffic(
        &mut self,
        mut row: ServiceRow,
        split: TrafficSplit,
        rolled_back_from: i32,
        change: TrafficChange,
    ) -> Result<WriteOutcome<Traffic>, Error> {
        let hosts_before = self.tag_hosts(&row)?;
        row.slots = Slots::next(row.slots.as_ref(), &split);
        row.split = split;
        let versions = self.reachable(&row).await?;
        refuse_missing(&row, &versions)?;
        let hosts = self.tag_hosts(&row)?;
        if hosts != hosts_before {
            self.replace_hosts(&row.model.uid, HostKind::Tag, &hosts)
                .await?;
        }
        let targets = row::write(&row.split)?;
        let number = row.model.traffic_revision + 1;
        traffic_revisions::Entity::insert(traffic_revisions::ActiveModel {
            service_uid: Set(row.model.uid.clone()),
            number: Set(number),
            targets: Set(targets.clone()),
            actor: Set(change.note.actor().to_owned()),
            reason: Set(change.note.reason().to_owned()),
            time: Set(self.now.micros()),
            rolled_back_from: Set(rolled_back_from),
            feed_revision: Set(self.revision()),
        })
        .exec_without_returning(&self.db)
        .await?;
        let slots = row.slots.as_ref().map(row::write).transpose()?;
        let row = self
            .save_service(services::ActiveModel {
                uid: Set(row.model.uid.clone()),
                traffic_revision: Set(number),
                traffic_time: Set(self.now.micros()),
                traffic_feed_revision: Set(self.revision()),
                targets: Set(targets),
                slots: Set(slots),
                ..Default::default()
            })
            .await?;
        self.save_first_result(change.key, &row.model.uid, 0)
            .await?;
        self.store_route(&row, versions).await?;
        Ok(WriteOutcome::Changed(row.traffic()))
    }
}

/// Refuses a split that names missing versions.
fn refuse_missing(row: &ServiceRow, versions: &[Version]) -> Result<(), Error> {
    let known: BTreeSet<VersionNumber> = versions.iter().map(|version| version.number).collect();
    let missing: Vec<Precondition> = row
        .split
        .targets()
        .iter()
        .filter(|target| !known.contains(&target.version))
        .map(|target| {
            let subject = name::version(&row.service.id, target.version);
            Precondition {
                kind: "VERSION_MISSING",
                description: format!("{subject} does not exist: create it, or name another one"),
                subject,
            }
        })
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::FailedPrecondition(missing))
    }
}

impl Store {
    /// Reads the current traffic.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_traffic(&self, service: &ServiceId) -> Result<Traffic, Error> {
        let db = self.reader();
        Ok(find(db, &self.inner.domain, service).await?.traffic())
    }

    /// Replaces all targets; appends a traffic revision even if nothing differs.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], [`Error::FailedPrecondition`]
    /// (`VERSION_MISSING` for each version), [`Error::HostTaken`] (by a tag),
    /// [`Error::RequestIdReused`], [`Error::RouteTooLarge`].
    pub async fn update_traffic(
        &self,
        service: &ServiceId,
        split: TrafficSplit,
        etag: Option<&str>,
        note: ChangeNote,
        options: WriteOptions,
    ) -> Result<Written<Traffic>, Error> {
        let content = (service, &split, etag, &note);
        let change = TrafficChange {
            key: IdempotencyKey::new(options.request_id, "UpdateTraffic", &content)?,
            etag: etag.map(str::to_owned),
            note,
        };
        let span = write_span!("update_traffic", %service);
        let service = service.clone();
        self.write(span, options.now, options.validate_only, move |tx| {
            Box::pin(async move { tx.update_traffic(&service, split, change).await })
        })
        .await
    }

    /// Lists traffic revisions, newest first, at most `limit` of those before `before`.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the service).
    pub async fn list_traffic_revisions(
        &self,
        service: &ServiceId,
        limit: u32,
        before: Option<i32>,
    ) -> Result<Page<TrafficRevision>, Error> {
        let db = connection::begin_read(self.reader()).await?;
        let row = find(&db, &self.inner.domain, service).await?;
        let mut query = traffic_revisions::Entity::find()
            .filter(traffic_revisions::Column::ServiceUid.eq(row.model.uid.as_str()))
            .order_by_desc(traffic_revisions::Column::Number);
        if let Some(before) = before {
            query = query.filter(traffic_revisions::Column::Number.lt(before));
        }
        let found = query.limit(u64::from(limit) + 1).all(&db).await?;
        db.rollback().await?;
        Page::cut(found, limit, |model| row.traffic_revision(model))
    }

    /// Appends a copy of the traffic revision `to`, by default the one before the current one.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the service or the revision), [`Error::EtagMismatch`],
    /// [`Error::FailedPrecondition`] (`NO_EARLIER_TRAFFIC`, or `VERSION_MISSING` for each version),
    /// [`Error::HostTaken`], [`Error::RequestIdReused`], [`Error::RouteTooLarge`].
    pub async fn rollback_traffic(
        &self,
        service: &ServiceId,
        to: Option<i32>,
        etag: Option<&str>,
        note: ChangeNote,
        options: WriteOptions,
    ) -> Result<Written<Traffic>, Error> {
        let content = (service, to, etag, &note);
        let change = TrafficChange {
            key: IdempotencyKey::new(options.request_id, "RollbackTraffic", &content)?,
            etag: etag.map(str::to_owned),
            note,
        };
        let span = write_span!("rollback_traffic", %service);
        let service = service.clone();
        self.write(span, options.now, options.validate_only, move |tx| {
            Box::pin(async move { tx.rollback_traffic(&service, to, change).await })
        })
        .await
    }
}
