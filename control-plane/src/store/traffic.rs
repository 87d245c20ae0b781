//! The current traffic split, and its append-only history.
//!
//! [`domain::rollback`](crate::domain::rollback) decides where a rollback goes. It replays the
//! history, which is read in pages before the write begins; the write reads what came since.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::domain::{
    ChangeNote, History, PastRevision, RollbackTo, ServiceId, Slots, Traffic, TrafficRevision,
    TrafficSplit, VerificationState, Version, VersionNumber, name,
};

use super::audited_change::AuditedChange;
use super::entity::{services, traffic_revisions, versions};
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
/// Revisions per query of a replay.
const REPLAY_PAGE: u64 = 1000;

/// The replayed history of the service with this uid.
#[derive(Default)]
struct Replay {
    service_uid: String,
    history: History,
}

impl Replay {
    /// Replays the revisions that were appended since the last call. Starts anew for another service,
    /// which has the name of a deleted one.
    async fn catch_up(
        &mut self,
        db: &impl ConnectionTrait,
        service_uid: &str,
    ) -> Result<(), Error> {
        use traffic_revisions::Column;
        if self.service_uid != service_uid {
            *self = Self {
                service_uid: service_uid.to_owned(),
                history: History::default(),
            };
        }
        loop {
            let page: Vec<(i32, String, i32)> = traffic_revisions::Entity::find()
                .select_only()
                .columns([Column::Number, Column::Targets, Column::RolledBackFrom])
                .filter(Column::ServiceUid.eq(service_uid))
                .filter(Column::Number.gt(self.history.newest()))
                .order_by_asc(Column::Number)
                .limit(REPLAY_PAGE)
                .into_tuple()
                .all(db)
                .await?;
            if page.is_empty() {
                return Ok(());
            }
            for (number, targets, rolled_back_from) in page {
                let split: TrafficSplit = row::read("traffic_revisions.targets", &targets)?;
                if number != self.history.newest() + 1 {
                    return Err(Error::Database(format!(
                        "the traffic history of the service {service_uid} has no revision before {number}"
                    )));
                }
                self.history
                    .push(PastRevision::new(number, &split, rolled_back_from));
            }
        }
    }
}

/// The kind of a traffic change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChangeKind {
    /// A set; whether it may give a share to a version that was neither verified nor in traffic.
    Set { allow_unverified: bool },
    /// A rollback to this revision.
    Rollback { from: i32 },
}

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
        allow_unverified: bool,
        change: TrafficChange,
    ) -> Result<WriteOutcome<Traffic>, Error> {
        match self.begin_change(service, &change).await? {
            ControlFlow::Continue(row) => {
                let kind = ChangeKind::Set { allow_unverified };
                self.set_traffic(row, split, kind, change).await
            }
            ControlFlow::Break(replayed) => Ok(replayed),
        }
    }

    async fn rollback_traffic(
        &mut self,
        service: &ServiceId,
        to: RollbackTo,
        mut replay: Replay,
        change: TrafficChange,
    ) -> Result<WriteOutcome<Traffic>, Error> {
        let row = match self.begin_change(service, &change).await? {
            ControlFlow::Continue(row) => row,
            ControlFlow::Break(replayed) => return Ok(replayed),
        };
        let uid = row.model.uid.clone();
        let (split, from) = match to {
            RollbackTo::Revision(number) => (None, number),
            RollbackTo::Previous => {
                replay.catch_up(&self.db, &uid).await?;
                let previous = replay.history.previous();
                (None, previous.ok_or_else(|| no_earlier_traffic(service))?)
            }
            RollbackTo::Version(number) => {
                let version = self.version(service, number).await?.version;
                if !version.carried_traffic {
                    return Err(never_in_traffic(service, number));
                }
                replay.catch_up(&self.db, &uid).await?;
                let from = replay.history.of_version(number);
                (Some(row.split.all_to(number)), from)
            }
        };
        let split = match split {
            Some(split) => split,
            None => {
                let copied = traffic_revisions::Entity::find_by_id((uid, from))
                    .one(&self.db)
                    .await?
                    .ok_or_else(|| Error::NotFound {
                        kind: KIND,
                        name: name::traffic_revision(service, from),
                    })?;
                row.traffic_revision(copied)?.split
            }
        };
        self.set_traffic(row, split, ChangeKind::Rollback { from }, change)
            .await
    }

    /// Sets the split and appends it to the history, unless it is in force already.
    async fn set_traffic(
        &mut self,
        mut row: ServiceRow,
        split: TrafficSplit,
        kind: ChangeKind,
        change: TrafficChange,
    ) -> Result<WriteOutcome<Traffic>, Error> {
        if split == row.split {
            let keyed = self.save_unchanged_result(change.key, &row.model.uid);
            return Ok(if keyed.await? {
                WriteOutcome::Bookkeeping(row.traffic())
            } else {
                WriteOutcome::Unchanged(row.traffic())
            });
        }
        let before = row.traffic();
        let hosts_before = self.tag_hosts(&row)?;
        row.slots = Slots::next(row.slots.as_ref(), &split);
        row.split = split;
        let versions = self.reachable(&row).await?;
        refuse_missing(&row, &versions)?;
        let set_without_leave = ChangeKind::Set {
            allow_unverified: false,
        };
        if kind == set_without_leave {
            refuse_unproven(&versions)?;
        }
        self.mark_in_traffic(&row, &versions).await?;
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
            rolled_back_from: Set(match kind {
                ChangeKind::Set { .. } => 0,
                ChangeKind::Rollback { from } => from,
            }),
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
        let after = row.traffic();
        let change = AuditedChange::traffic(&before, &after);
        Ok(WriteOutcome::Changed(after, change))
    }

    /// Records that the versions with a percent have carried traffic.
    async fn mark_in_traffic(&self, row: &ServiceRow, versions: &[Version]) -> Result<(), Error> {
        let new: Vec<i32> = versions
            .iter()
            .filter(|version| !version.percent.is_zero() && !version.carried_traffic)
            .map(|version| version.number.get())
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        versions::Entity::update_many()
            .col_expr(versions::Column::CarriedTraffic, Expr::value(true))
            .filter(versions::Column::ServiceUid.eq(row.model.uid.as_str()))
            .filter(versions::Column::Number.is_in(new))
            .exec(&self.db)
            .await?;
        Ok(())
    }
}

fn no_earlier_traffic(service: &ServiceId) -> Error {
    Error::precondition(
        "NO_EARLIER_TRAFFIC",
        name::traffic(service),
        format!(
            "services/{service} has no earlier traffic to go back to: every earlier revision has the percents in force, has none, or was left by a rollback; name a revision or a version, or set traffic"
        ),
    )
}

fn never_in_traffic(service: &ServiceId, number: VersionNumber) -> Error {
    let subject = name::version(service, number);
    let description =
        format!("{subject} has never carried traffic, so no rollback goes to it: set traffic");
    Error::precondition("NO_EARLIER_TRAFFIC", subject, description)
}

/// Refuses a share for versions that were neither verified nor in traffic before.
fn refuse_unproven(versions: &[Version]) -> Result<(), Error> {
    let unproven: Vec<Precondition> = versions
        .iter()
        .filter(|version| !version.percent.is_zero() && !version.is_proven())
        .map(|version| {
            let subject = name::version(&version.service, version.number);
            let state = match &version.verification {
                None => "has never been verified".to_owned(),
                Some(run) => match run.state() {
                    VerificationState::Pending => {
                        "is being verified (its verification is PENDING)".to_owned()
                    }
                    VerificationState::Failed => {
                        format!(
                            "does not start (its verification is FAILED: {})",
                            run.message()
                        )
                    }
                    VerificationState::Unverified | VerificationState::Verified => format!(
                        "is not verified (its verification is UNVERIFIED: {})",
                        run.message()
                    ),
                },
            };
            Precondition {
                kind: "VERSION_UNVERIFIED",
                description: format!(
                    "{subject} {state}: verify it first, or allow unverified versions"
                ),
                subject,
            }
        })
        .collect();
    refuse(unproven)
}

fn refuse(unmet: Vec<Precondition>) -> Result<(), Error> {
    if unmet.is_empty() {
        Ok(())
    } else {
        Err(Error::FailedPrecondition(unmet))
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
    refuse(missing)
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

    /// Replaces all targets; a split that is in force already changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], [`Error::FailedPrecondition`]
    /// (`VERSION_MISSING` for each version; without `allow_unverified` also `VERSION_UNVERIFIED`),
    /// [`Error::HostTaken`] (by a tag), [`Error::RequestIdReused`], [`Error::RouteTooLarge`].
    pub async fn update_traffic(
        &self,
        service: &ServiceId,
        split: TrafficSplit,
        allow_unverified: bool,
        etag: Option<&str>,
        note: ChangeNote,
        options: WriteOptions,
    ) -> Result<Written<Traffic>, Error> {
        let content = (service, &split, allow_unverified, etag, &note);
        let change = TrafficChange {
            key: IdempotencyKey::new(&options, "UpdateTraffic", &content)?,
            etag: etag.map(str::to_owned),
            note,
        };
        let span = write_span!("update_traffic", %service);
        let service = service.clone();
        self.write(span, options, move |tx| {
            Box::pin(async move {
                tx.update_traffic(&service, split, allow_unverified, change)
                    .await
            })
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

    /// Goes back to an earlier split, which becomes a new traffic revision.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the service, the revision or the version), [`Error::EtagMismatch`],
    /// [`Error::FailedPrecondition`] (`NO_EARLIER_TRAFFIC`, or `VERSION_MISSING` for each version),
    /// [`Error::HostTaken`], [`Error::RequestIdReused`], [`Error::RouteTooLarge`].
    pub async fn rollback_traffic(
        &self,
        service: &ServiceId,
        to: RollbackTo,
        etag: Option<&str>,
        note: ChangeNote,
        options: WriteOptions,
    ) -> Result<Written<Traffic>, Error> {
        let content = (service, to, etag, &note);
        let change = TrafficChange {
            key: IdempotencyKey::new(&options, "RollbackTraffic", &content)?,
            etag: etag.map(str::to_owned),
            note,
        };
        let mut replay = Replay::default();
        if !matches!(to, RollbackTo::Revision(_)) {
            let row = find(self.reader(), &self.inner.domain, service).await?;
            replay.catch_up(self.reader(), &row.model.uid).await?;
        }
        let span = write_span!("rollback_traffic", %service);
        let service = service.clone();
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.rollback_traffic(&service, to, replay, change).await })
        })
        .await
    }
}
