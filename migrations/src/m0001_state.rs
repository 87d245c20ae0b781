//! The first schema: services, versions, traffic, hosts, the route table and its change log.
//!
//! Times are BIGINT microseconds since 1970, composite values JSON (TEXT), on SQLite and PostgreSQL
//! alike.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Services {
    Table,
    Uid,
    Name,
    Hosts,
    Settings,
    Labels,
    Etag,
    CreateTime,
    UpdateTime,
    Revision,
    NextVersion,
    TrafficRevision,
    TrafficTime,
    TrafficFeedRevision,
    Targets,
    Slots,
}

#[derive(DeriveIden)]
enum Hosts {
    Table,
    Host,
    ServiceUid,
    Kind,
}

#[derive(DeriveIden)]
enum Versions {
    Table,
    Uid,
    ServiceUid,
    Number,
    Spec,
    ImageDigest,
    Etag,
    CreateTime,
    Verification,
    VerifyDeadline,
}

#[derive(DeriveIden)]
enum TrafficRevisions {
    Table,
    ServiceUid,
    Number,
    Targets,
    Actor,
    Reason,
    Time,
    RolledBackFrom,
    FeedRevision,
}

#[derive(DeriveIden)]
enum RequestIds {
    Table,
    RequestId,
    Fingerprint,
    ServiceUid,
    Number,
    Revision,
    Time,
}

#[derive(DeriveIden)]
enum FeedState {
    Table,
    Id,
    Cluster,
    Epoch,
    Revision,
    CompactedRevision,
    Digest,
}

#[derive(DeriveIden)]
enum Routes {
    Table,
    ServiceUid,
    Service,
    Revision,
    Body,
    Digest,
}

#[derive(DeriveIden)]
enum RouteChanges {
    Table,
    Revision,
    ServiceUid,
    Op,
    Digest,
    Time,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    #[expect(
        elided_lifetimes_in_paths,
        reason = "the trait elides it too, and under `async_trait` both must be spelled alike"
    )]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        resources(manager).await?;
        history(manager).await?;
        feed(manager).await
    }
}

fn text<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).text().not_null().take()
}

fn long<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().take()
}

fn int<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).integer().not_null().take()
}

fn blob<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).blob().not_null().take()
}

/// A foreign key that deletes rows together with their service.
fn of_service<T, C>(table: T, column: C) -> ForeignKeyCreateStatement
where
    T: IntoIden + 'static,
    C: IntoIden + 'static,
{
    ForeignKey::create()
        .from(table.into_iden(), column.into_iden())
        .to(Services::Table, Services::Uid)
        .on_delete(ForeignKeyAction::Cascade)
        .take()
}

async fn resources(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table(Services::Table)
                .col(text(Services::Uid).primary_key())
                .col(text(Services::Name).unique_key())
                // Extra hosts in the given order; the table `hosts` keeps them unique.
                .col(text(Services::Hosts))
                .col(text(Services::Settings))
                .col(text(Services::Labels))
                .col(long(Services::Etag))
                .col(long(Services::CreateTime))
                .col(long(Services::UpdateTime))
                .col(long(Services::Revision))
                .col(int(Services::NextVersion))
                // The current traffic, so that reading a service or building its route needs no
                // history.
                .col(int(Services::TrafficRevision))
                .col(long(Services::TrafficTime))
                .col(long(Services::TrafficFeedRevision))
                .col(text(Services::Targets))
                .col(ColumnDef::new(Services::Slots).text())
                .to_owned(),
        )
        .await?;
    manager
        .create_table(
            Table::create()
                .table(Hosts::Table)
                // Unique over default, extra and tag hosts of all services.
                .col(text(Hosts::Host).primary_key())
                .col(text(Hosts::ServiceUid))
                .col(text(Hosts::Kind))
                .foreign_key(&mut of_service(Hosts::Table, Hosts::ServiceUid))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("hosts_service_uid")
                .table(Hosts::Table)
                .col(Hosts::ServiceUid)
                .to_owned(),
        )
        .await?;
    manager
        .create_table(
            Table::create()
                .table(Versions::Table)
                .col(text(Versions::Uid).primary_key())
                .col(text(Versions::ServiceUid))
                .col(int(Versions::Number))
                .col(text(Versions::Spec))
                .col(ColumnDef::new(Versions::ImageDigest).text())
                .col(long(Versions::Etag))
                .col(long(Versions::CreateTime))
                .col(ColumnDef::new(Versions::Verification).text())
                // NULL unless a verification is pending.
                .col(ColumnDef::new(Versions::VerifyDeadline).big_integer())
                .foreign_key(&mut of_service(Versions::Table, Versions::ServiceUid))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("versions_service_uid_number")
                .table(Versions::Table)
                .col(Versions::ServiceUid)
                .col(Versions::Number)
                .unique()
                .to_owned(),
        )
        .await?;
    // A partial index, which costs new versions nothing.
    manager
        .create_index(
            Index::create()
                .name("versions_verify_deadline")
                .table(Versions::Table)
                .col(Versions::VerifyDeadline)
                .cond_where(Expr::col(Versions::VerifyDeadline).is_not_null())
                .to_owned(),
        )
        .await
}

async fn history(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table(TrafficRevisions::Table)
                .col(text(TrafficRevisions::ServiceUid))
                .col(int(TrafficRevisions::Number))
                .col(text(TrafficRevisions::Targets))
                .col(text(TrafficRevisions::Actor))
                .col(text(TrafficRevisions::Reason))
                .col(long(TrafficRevisions::Time))
                .col(int(TrafficRevisions::RolledBackFrom))
                .col(long(TrafficRevisions::FeedRevision))
                .primary_key(
                    Index::create()
                        .col(TrafficRevisions::ServiceUid)
                        .col(TrafficRevisions::Number),
                )
                .foreign_key(&mut of_service(
                    TrafficRevisions::Table,
                    TrafficRevisions::ServiceUid,
                ))
                .to_owned(),
        )
        .await?;
    manager
        .create_table(
            Table::create()
                .table(RequestIds::Table)
                .col(text(RequestIds::RequestId).primary_key())
                // SHA-256 of the method and the content of the request.
                .col(blob(RequestIds::Fingerprint))
                .col(text(RequestIds::ServiceUid))
                .col(int(RequestIds::Number))
                .col(long(RequestIds::Revision))
                .col(long(RequestIds::Time))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("request_ids_time")
                .table(RequestIds::Table)
                .col(RequestIds::Time)
                .to_owned(),
        )
        .await
}

async fn feed(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table(FeedState::Table)
                .col(int(FeedState::Id).primary_key())
                .col(text(FeedState::Cluster))
                .col(text(FeedState::Epoch))
                .col(long(FeedState::Revision))
                .col(long(FeedState::CompactedRevision))
                .col(blob(FeedState::Digest))
                .to_owned(),
        )
        .await?;
    manager
        .create_table(
            Table::create()
                .table(Routes::Table)
                .col(text(Routes::ServiceUid).primary_key())
                .col(text(Routes::Service))
                .col(long(Routes::Revision))
                .col(blob(Routes::Body))
                .col(blob(Routes::Digest))
                .foreign_key(&mut of_service(Routes::Table, Routes::ServiceUid))
                .to_owned(),
        )
        .await?;
    // A delta contains the routes with a later revision than its start.
    manager
        .create_index(
            Index::create()
                .name("routes_revision")
                .table(Routes::Table)
                .col(Routes::Revision)
                .to_owned(),
        )
        .await?;
    manager
        .create_table(
            Table::create()
                .table(RouteChanges::Table)
                .col(long(RouteChanges::Revision).primary_key())
                .col(ColumnDef::new(RouteChanges::ServiceUid).text())
                .col(text(RouteChanges::Op))
                .col(blob(RouteChanges::Digest))
                .col(long(RouteChanges::Time))
                .to_owned(),
        )
        .await
}
