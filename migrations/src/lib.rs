//! The schema of the control plane: one file per migration, applied in order when a store is
//! opened.
//!
//! A released migration is never edited, because existing databases have applied it. Each runs in
//! its own transaction, so a failed one leaves the schema unchanged (SQLite does that only on
//! request).

use sea_orm_migration::prelude::{DbErr, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DatabaseConnection;

mod m0001_state;
mod m0002_node_status;
mod m0003_releases;
mod m0004_total_timeout;
mod m0005_trust;

pub use sea_orm_migration::MigratorTrait;

/// The migrations of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The newest applied migration; `None` for an empty database.
    pub newest: Option<String>,
    /// Number of migrations to apply.
    pub pending: usize,
}

/// All migrations, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_state::Migration),
            Box::new(m0002_node_status::Migration),
            Box::new(m0003_releases::Migration),
            Box::new(m0004_total_timeout::Migration),
            Box::new(m0005_trust::Migration),
        ]
    }
}

impl Migrator {
    /// The newest applied migration that this program does not know, because a newer program wrote
    /// it.
    pub async fn unknown_migration(database: &DatabaseConnection) -> Result<Option<String>, DbErr> {
        let table = Self::migration_table_name().to_string();
        if !SchemaManager::new(database).has_table(table).await? {
            return Ok(None);
        }
        let known = Self::migrations();
        Ok(Self::get_migration_models(database)
            .await?
            .into_iter()
            .map(|applied| applied.version)
            .rfind(|applied| !known.iter().any(|change| change.name() == applied)))
    }

    /// The newest applied migration of a database, and the number of pending ones.
    pub async fn schema_status(database: &DatabaseConnection) -> Result<SchemaStatus, DbErr> {
        let applied = Self::get_applied_migrations_read_only(database).await?;
        let pending = Self::get_pending_migrations_read_only(database).await?;
        Ok(SchemaStatus {
            newest: applied.last().map(|change| change.name().to_owned()),
            pending: pending.len(),
        })
    }
}
