//! The stored route table: the route of each service, encoded for the feed.
//!
//! Each write that can change a route rebuilds it from the rows in the same transaction, and
//! replaces it if its bytes differ. Readers of the table compute nothing.
//!
//! Invariant: after any sequence of writes, rows and digest equal a rebuild from scratch.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder,
    QuerySelect,
};

use crate::domain::{Route, Uid, Version};

use super::digest::{TableDigest, sha256};
use super::entity::{routes, services, versions};
use super::row::{self, ServiceRow};
use super::types::RouteOp;
use super::write::WriteTx;
use super::{Error, Inner};

/// Maximum size of an encoded route in bytes, well below the 64 KiB of a feed chunk.
pub(super) const ROUTE_MAX: usize = 48 * 1024;

/// Services per query, which bounds memory and statement parameters.
const BATCH: u64 = 200;

/// A route to store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BuiltRoute {
    pub(super) service_uid: String,
    pub(super) service: String,
    pub(super) body: Vec<u8>,
    pub(super) sha256: [u8; 32],
}

fn build(inner: &Inner, row: &ServiceRow, versions: Vec<Version>) -> Result<BuiltRoute, Error> {
    let route = Route::build(
        &row.service,
        &row.split,
        row.slots.as_ref(),
        versions,
        &inner.domain,
    )
    .map_err(|reason| {
        Error::Database(format!(
            "the route of services/{} cannot be built: {reason}",
            row.service.id
        ))
    })?;
    let body = (inner.codec)(&route);
    if body.len() > ROUTE_MAX {
        return Err(Error::RouteTooLarge {
            service: row.service.id.clone(),
            size: body.len(),
            limit: ROUTE_MAX,
        });
    }
    Ok(BuiltRoute {
        service_uid: row.model.uid.clone(),
        service: row.model.name.clone(),
        sha256: sha256(&body),
        body,
    })
}

impl WriteTx {
    /// The versions of a service in its traffic split, and those being verified.
    pub(super) async fn reachable(&self, row: &ServiceRow) -> Result<Vec<Version>, Error> {
        let named = row
            .split
            .targets()
            .iter()
            .map(|target| target.version.get());
        versions::Entity::find()
            .filter(versions::Column::ServiceUid.eq(row.model.uid.as_str()))
            .filter(
                Condition::any()
                    .add(versions::Column::Number.is_in(named))
                    .add(versions::Column::VerifyDeadline.is_not_null()),
            )
            .all(&self.db)
            .await?
            .into_iter()
            .map(|version| row.version(version))
            .collect()
    }

    /// Rebuilds the stored route of a service.
    pub(super) async fn refresh_route(&mut self, row: &ServiceRow) -> Result<(), Error> {
        let versions = self.reachable(row).await?;
        self.store_route(row, versions).await
    }

    /// Stores the route of a service with the given versions; ignores unreachable ones.
    pub(super) async fn store_route(
        &mut self,
        row: &ServiceRow,
        versions: Vec<Version>,
    ) -> Result<(), Error> {
        let built = build(&self.inner, row, versions)?;
        let before = self.route_digest(&row.service.uid).await?;
        if before == Some(built.sha256) {
            self.record_change(&row.service.uid, RouteOp::None);
            return Ok(());
        }
        if let Some(before) = before {
            self.digest = self.digest.minus(&before);
        }
        self.digest = self.digest.plus(&built.sha256);
        self.upsert_route(built).await?;
        self.record_change(&row.service.uid, RouteOp::Upsert);
        Ok(())
    }

    /// Deletes the route of a service.
    pub(super) async fn remove_route(&mut self, service_uid: &Uid) -> Result<(), Error> {
        if let Some(before) = self.route_digest(service_uid).await? {
            self.digest = self.digest.minus(&before);
            routes::Entity::delete_by_id(service_uid.as_str())
                .exec(&self.db)
                .await?;
        }
        self.record_change(service_uid, RouteOp::Remove);
        Ok(())
    }

    async fn upsert_route(&self, built: BuiltRoute) -> Result<(), Error> {
        let mut replace = OnConflict::column(routes::Column::ServiceUid);
        replace.update_columns([
            routes::Column::Revision,
            routes::Column::Body,
            routes::Column::Digest,
        ]);
        routes::Entity::insert(routes::ActiveModel {
            service_uid: Set(built.service_uid),
            service: Set(built.service),
            revision: Set(self.revision()),
            digest: Set(built.sha256.to_vec()),
            body: Set(built.body),
        })
        .on_conflict(replace)
        .exec_without_returning(&self.db)
        .await?;
        Ok(())
    }

    async fn route_digest(&self, service_uid: &Uid) -> Result<Option<[u8; 32]>, Error> {
        let digest: Option<Vec<u8>> = routes::Entity::find_by_id(service_uid.as_str())
            .select_only()
            .column(routes::Column::Digest)
            .into_tuple()
            .one(&self.db)
            .await?;
        digest
            .map(|digest| row::bytes32("routes.digest", digest))
            .transpose()
    }

    /// Rebuilds all routes and the digest, and stores the differences.
    pub(super) async fn rebuild_table(&mut self) -> Result<(), Error> {
        let built = rebuild(&self.db, &self.inner).await?;
        let stored = stored_digests(&self.db).await?;
        self.digest = TableDigest::default();
        let mut kept = BTreeSet::new();
        for route in built {
            self.digest = self.digest.plus(&route.sha256);
            kept.insert(route.service_uid.clone());
            if stored.get(&route.service_uid) != Some(&route.sha256) {
                self.upsert_route(route).await?;
            }
        }
        for gone in stored.keys().filter(|uid| !kept.contains(*uid)) {
            routes::Entity::delete_by_id(gone.as_str())
                .exec(&self.db)
                .await?;
        }
        Ok(())
    }
}

async fn stored_digests(db: &impl ConnectionTrait) -> Result<BTreeMap<String, [u8; 32]>, Error> {
    let rows: Vec<(String, Vec<u8>)> = routes::Entity::find()
        .select_only()
        .columns([routes::Column::ServiceUid, routes::Column::Digest])
        .into_tuple()
        .all(db)
        .await?;
    rows.into_iter()
        .map(|(uid, digest)| Ok((uid, row::bytes32("routes.digest", digest)?)))
        .collect()
}

/// Whether routes and digest equal a rebuild. They differ after an upgrade that encodes routes
/// differently, or for another domain.
pub(super) async fn is_current(
    db: &impl ConnectionTrait,
    inner: &Inner,
    digest: TableDigest,
) -> Result<bool, Error> {
    let built = rebuild(db, inner).await?;
    let expected = built
        .iter()
        .fold(TableDigest::default(), |sum, route| sum.plus(&route.sha256));
    let built: BTreeMap<String, [u8; 32]> = built
        .into_iter()
        .map(|route| (route.service_uid, route.sha256))
        .collect();
    Ok(expected == digest && built == stored_digests(db).await?)
}

/// Builds all routes from services and versions.
pub(super) async fn rebuild(
    db: &impl ConnectionTrait,
    inner: &Inner,
) -> Result<Vec<BuiltRoute>, Error> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let batch: Vec<ServiceRow> = services::Entity::find()
            .filter(services::Column::Uid.gt(after.as_str()))
            .order_by_asc(services::Column::Uid)
            .limit(BATCH)
            .all(db)
            .await?
            .into_iter()
            .map(|model| ServiceRow::new(model, &inner.domain))
            .collect::<Result<_, _>>()?;
        let Some(last) = batch.last() else {
            return Ok(all);
        };
        after.clone_from(&last.model.uid);
        let mut by_service = reachable_by_service(db, &batch).await?;
        for row in &batch {
            let versions = by_service
                .remove(&row.model.uid)
                .unwrap_or_default()
                .into_iter()
                .map(|version| row.version(version))
                .collect::<Result<_, _>>()?;
            all.push(build(inner, row, versions)?);
        }
    }
}

async fn reachable_by_service(
    db: &impl ConnectionTrait,
    batch: &[ServiceRow],
) -> Result<BTreeMap<String, Vec<versions::Model>>, Error> {
    let mut by_service: BTreeMap<String, Vec<versions::Model>> = BTreeMap::new();
    let named: Vec<(String, i32)> = batch
        .iter()
        .flat_map(|row| {
            let targets = row.split.targets().iter();
            targets.map(|target| (row.model.uid.clone(), target.version.get()))
        })
        .collect();
    let key = || {
        Expr::tuple([
            Expr::col(versions::Column::ServiceUid),
            Expr::col(versions::Column::Number),
        ])
    };
    // A service may have many tags; chunks bound the parameters.
    for named in named.chunks(4 * usize::try_from(BATCH).unwrap_or(usize::MAX / 4)) {
        let found = versions::Entity::find()
            .filter(key().in_tuples(named.iter().cloned()))
            .all(db)
            .await?;
        for version in found {
            by_service
                .entry(version.service_uid.clone())
                .or_default()
                .push(version);
        }
    }
    let verifying = versions::Entity::find()
        .filter(versions::Column::ServiceUid.is_in(batch.iter().map(|row| row.model.uid.as_str())))
        .filter(versions::Column::VerifyDeadline.is_not_null())
        .all(db)
        .await?;
    for version in verifying {
        let known = by_service.entry(version.service_uid.clone()).or_default();
        if !known.iter().any(|other| other.number == version.number) {
            known.push(version);
        }
    }
    Ok(by_service)
}
