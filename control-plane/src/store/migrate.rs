//! Bringing the schema up to date: forward only, each change in a transaction, a backup first.

use std::path::Path;
use std::time::SystemTime;

use cless_migrations::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};

use super::explain::explain_open;
use super::{Error, snapshot};

/// Names the lock that control planes which start at once take before they look at the schema: "cless" in ASCII.
const SCHEMA_LOCK: i64 = 0x63_6c_65_73_73;

/// What kind of database it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// Of this process alone.
    Memory,
    /// A SQLite file; `alone` if no other process has it open.
    File { path: &'a Path, alone: bool },
    /// PostgreSQL.
    Server,
}

/// Refuses a database of a newer program; applies what an older one lacks. `shown` is the URL without its password.
pub(super) async fn migrate(
    writer: &DatabaseConnection,
    place: Place<'_>,
    shown: &str,
) -> Result<(), Error> {
    let migration = Migration {
        writer,
        place,
        shown,
    };
    if !matches!(place, Place::Server) {
        return migration.run().await;
    }
    // The pool has one connection, so this session has the lock, and loses it if it ends. A change of a large table, and
    // the wait for another process to make it, may take longer than any statement of a request.
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
    place: Place<'a>,
    shown: &'a str,
}

impl Migration<'_> {
    async fn run(&self) -> Result<(), Error> {
        let refused = |error: DbErr| self.refused(explain_open(&error));
        let unknown = Migrator::unknown_change(self.writer)
            .await
            .map_err(refused)?;
        if let Some(migration) = unknown {
            return Err(Error::DatabaseNewer {
                url: self.shown.to_owned(),
                migration,
            });
        }
        let standing = Migrator::standing(self.writer).await.map_err(refused)?;
        if standing.pending == 0 {
            return Ok(());
        }
        if let Place::File { alone: false, .. } = self.place {
            return Err(self.refused(
                "its schema must be changed, and another process has it open: stop the older control plane first"
                    .to_owned(),
            ));
        }
        if let Some(newest) = standing.newest {
            self.back_up(&newest).await?;
        }
        Migrator::up(self.writer, None).await.map_err(refused)
    }

    /// Before the schema of a database that holds something is changed.
    async fn back_up(&self, newest: &str) -> Result<(), Error> {
        match self.place {
            Place::Memory => {}
            Place::File { path, .. } => {
                let copy = snapshot::before_migration(path, newest, SystemTime::now());
                snapshot::copy(self.writer, &copy).await.map_err(|reason| {
                    self.refused(format!(
                        "no backup can be made before its schema is changed: {reason}"
                    ))
                })?;
                tracing::info!(
                    schema = newest,
                    backup = %copy.display(),
                    "the schema is older than this program: a backup was made, now it is brought up to date"
                );
            }
            Place::Server => tracing::warn!(
                schema = newest,
                "the schema is older than this program and is brought up to date; a backup of a PostgreSQL database is \
                 made with pg_dump, not by this program"
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
            url: self.shown.to_owned(),
            reason,
        }
    }
}
