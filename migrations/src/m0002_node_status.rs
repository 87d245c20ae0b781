//! What nodes say, for the other control planes on the same database.
//!
//! Only PostgreSQL has several, and only there are rows written. They are worth nothing after a crash (every node says
//! it all again within seconds), so there the table is `UNLOGGED`: a write costs no WAL.

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
            // The process of the control plane that the node last connected to.
            .col(ColumnDef::new(NodeStatus::Replica).text().not_null())
            .col(ColumnDef::new(NodeStatus::Connected).boolean().not_null())
            // When that process last vouched for the row, by the database's clock.
            .col(ColumnDef::new(NodeStatus::Seen).big_integer().not_null())
            // New at every change of the two columns below, so that readers fetch only what they have not seen.
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
