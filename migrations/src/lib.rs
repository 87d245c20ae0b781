//! The schema of the control plane: one file a change, applied in order when a store is opened.
//!
//! A change that has landed is never edited: databases in the field have applied it. Each runs in a transaction of its
//! own, so that one that fails leaves the schema as it was (SQLite rolls back DDL too, but only where asked to).

use sea_orm_migration::prelude::{DbErr, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DatabaseConnection;

mod m0001_state;
mod m0002_node_status;

pub use sea_orm_migration::MigratorTrait;

/// How far a database has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The newest change it has; none if it is empty.
    pub newest: Option<String>,
    /// Changes that are still to be applied.
    pub pending: usize,
}

/// All changes, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_state::Migration),
            Box::new(m0002_node_status::Migration),
        ]
    }
}

impl Migrator {
    /// The newest change that the database has and this program does not know: a newer program wrote it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn unknown_change(database: &DatabaseConnection) -> Result<Option<String>, DbErr> {
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

    /// Where the schema of a database stands: the newest change that it has, and how many more this program knows.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn standing(database: &DatabaseConnection) -> Result<Standing, DbErr> {
        let applied = Self::get_applied_migrations_read_only(database).await?;
        let pending = Self::get_pending_migrations_read_only(database).await?;
        Ok(Standing {
            newest: applied.last().map(|change| change.name().to_owned()),
            pending: pending.len(),
        })
    }
}
