//! Schema migrations: forward only, each in a transaction, after a backup.

use std::path::Path;
use std::time::SystemTime;

use cless_migrations::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};

use super::explain::explain_open;
use super::{Error, snapshot};

/// Advisory lock that serialises migrations of control planes that start together: "cless" in
/// ASCII.
const SCHEMA_LOCK: i64 = 0x63_6c_65_73_73;

#[derive(Debug, Clone, Copy)]
pub(super) enum DatabaseKind<'a> {
    /// SQLite in memory.
    Memory,
    /// A SQLite file; `exclusive` if no other process has it open.
    File { path: &'a Path, exclusive: bool },
    /// PostgreSQL.
    Server,
}

/// Refuses a database of a newer program; applies missing migrations.
pub(super) async fn migrate(
    writer: &DatabaseConnection,
    kind: DatabaseKind<'_>,
    redacted_url: &str,
) -> Result<(), Error> {
    let migration = Migration {
        writer,
        kind,
        redacted_url,
    };
    if !matches!(kind, DatabaseKind::Server) {
        return migration.run().await;
    }
    // The pool has one connection, so the session keeps the lock until it ends. Migrating a large
    // table, or waiting for another process to do it, may exceed the usual timeouts.
    migration
        .statement(format!(
            "SET statement_timeout = 0; SET lock_timeout = 0; SELECT pg_advisory_lock({SCHEMA_LOCK})"
        ))
        .await?;
    let done = migration.run().await;
    migration
        .statement(format!(
            "SELECT pg_advisory_unlock({SCHEMA_LOCK}); RESET statement_timeout; RESET lock_timeout"
        ))
        .await?;
    done
}

struct Migration<'a> {
    writer: &'a DatabaseConnection,
    kind: DatabaseKind<'a>,
    redacted_url: &'a str,
}

impl Migration<'_> {
    async fn run(&self) -> Result<(), Error> {
        let refused = |error: DbErr| self.refused(explain_open(&error));
        let unknown = Migrator::unknown_migration(self.writer)
            .await
            .map_err(refused)?;
        if let Some(migration) = unknown {
            return Err(Error::DatabaseNewer {
                url: self.redacted_url.to_owned(),
                migration,
            });
        }
        let status = Migrator::schema_status(self.writer)
            .await
            .map_err(refused)?;
        if status.pending == 0 {
            return Ok(());
        }
        if let DatabaseKind::File {
            exclusive: false, ..
        } = self.kind
        {
            return Err(self.refused(
                "its schema must be migrated, and another process has it open: stop the older control plane first"
                    .to_owned(),
            ));
        }
        if let Some(newest) = status.newest {
            self.back_up(&newest).await?;
        }
        Migrator::up(self.writer, None).await.map_err(refused)
    }

    /// Backs up a database that is not empty.
    async fn back_up(&self, newest: &str) -> Result<(), Error> {
        match self.kind {
            DatabaseKind::Memory => {}
            DatabaseKind::File { path, .. } => {
                let copy = snapshot::before_migration(path, newest, SystemTime::now());
                snapshot::copy(self.writer, &copy).await.map_err(|reason| {
                    self.refused(format!(
                        "cannot back it up before migrating its schema: {reason}"
                    ))
                })?;
                tracing::info!(
                    schema = newest,
                    backup = %copy.display(),
                    "migrating an older schema; a backup was made"
                );
            }
            DatabaseKind::Server => tracing::warn!(
                schema = newest,
                "migrating an older schema without a backup: use pg_dump to back up PostgreSQL"
            ),
        }
        Ok(())
    }

    async fn statement(&self, sql: String) -> Result<(), Error> {
        self.writer
            .execute_unprepared(&sql)
            .await
            .map_err(|error| self.refused(explain_open(&error)))?;
        Ok(())
    }

    fn refused(&self, reason: String) -> Error {
        Error::Open {
            url: self.redacted_url.to_owned(),
            reason,
        }
    }
}
