//! Status of nodes, shared between control planes on one PostgreSQL; SQLite has only one control
//! plane.
//!
//! After a crash every node reports again within seconds, so the table is `UNLOGGED` and writing to
//! it costs no WAL.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum NodeStatus {
    Table,
    Node,
    Replica,
    Connected,
    Seen,
    Stamp,
    State,
    Report,
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
        let table = Table::create()
            .table(NodeStatus::Table)
            // The node's random id.
            .col(
                ColumnDef::new(NodeStatus::Node)
                    .text()
                    .not_null()
                    .primary_key(),
            )
            // The control plane process that the node last connected to.
            .col(ColumnDef::new(NodeStatus::Replica).text().not_null())
            .col(ColumnDef::new(NodeStatus::Connected).boolean().not_null())
            // Time of the last renewal by that process, by the database's clock.
            .col(ColumnDef::new(NodeStatus::Seen).big_integer().not_null())
            // Changes with the two columns below, so that readers fetch only new rows.
            .col(ColumnDef::new(NodeStatus::Stamp).text().not_null())
            .col(ColumnDef::new(NodeStatus::State).text().not_null())
            .col(ColumnDef::new(NodeStatus::Report).blob())
            .to_owned();
        manager.create_table(table).await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            manager
                .get_connection()
                .execute_unprepared("ALTER TABLE node_status SET UNLOGGED")
                .await?;
        }
        Ok(())
    }
}
