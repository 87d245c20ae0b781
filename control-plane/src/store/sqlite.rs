//! SQLite as a file: where it is, who else uses it, and how it is set up.
//!
//! ```text
//!   cless.db       the database (cless.db-wal and cless.db-shm are SQLite's own)
//!   cless.db-lock  empty; locked for as long as a process has the database open
//! ```
//!
//! Processes that serve share the lock; one that changes the schema or puts another file in the database's place has it
//! alone. SQLite's own locks do not tell: they are held for moments. The lock is the system's, so it ends with the
//! process, however that ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Connection as _, Sqlite, pool::PoolOptions};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, Statement};

/// For the lock of a database that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for the writer, which asks again itself ([`begin_write`](super::connection::begin_write)): SQLite would
/// look ten times a second, and miss the moments between the writes of a busy process.
const WRITER_BUSY_TIMEOUT: Duration = Duration::from_millis(10);
/// For a turn in the queue of writers: longer than any deadline of a caller, so that the caller's own decides.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
/// The first SQLite without a bug in resetting its WAL that may corrupt the database.
const MIN_VERSION: (u32, u32, u32) = (3, 51, 3);
/// For another process to end its migrations.
const MIGRATED_WITHIN: Duration = Duration::from_secs(60);

/// Where a SQLite URL points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SqliteUrl {
    Memory,
    File { path: PathBuf, create: bool },
}

impl SqliteUrl {
    pub(super) fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("sqlite:")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        if path == ":memory:" || query.split('&').any(|pair| pair == "mode=memory") {
            return Some(Self::Memory);
        }
        Some(Self::File {
            path: PathBuf::from(path),
            create: query.split('&').any(|pair| pair == "mode=rwc"),
        })
    }

    /// Finds what SQLite would only call "unable to open database file", and makes a new file private: environment
    /// variables of versions are in it. A file that exists is left for SQLite to open: to close a second descriptor of
    /// it would take away the locks of this process.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self::File { path, create } = self else {
            return Ok(());
        };
        let folder = folder_of(path);
        if !folder.is_dir() {
            return Err(format!(
                "the folder {} does not exist: create it, or give another path",
                folder.display()
            ));
        }
        if path.is_dir() {
            return Err("it is a folder: give the path of a file".to_owned());
        }
        if path.exists() {
            return Ok(());
        }
        if !create {
            return Err(
                "the file does not exist: correct the path, or add `?mode=rwc` to create it"
                    .to_owned(),
            );
        }
        match create_private(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(cannot(&error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A new file that only this user reads.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// What to do about a file that cannot be made or written.
pub(super) fn cannot(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("{error}: free space on the disk that holds it")
        }
        _ => format!("{error}: give this user the right to read and write it and its folder"),
    }
}

/// `PATH` with something appended to its last part.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The lock beside a database file; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct InUse {
    file: File,
    alone: bool,
}

impl InUse {
    fn open(database: &Path) -> Result<File, String> {
        let path = beside(database, "-lock");
        let mut options = File::options();
        options.read(true).write(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
            .open(&path)
            .map_err(|error| format!("cannot create {}: {}", path.display(), cannot(&error)))
    }

    /// Alone if nobody else has the database open; else shared, once nobody has it alone.
    pub(super) async fn take(database: &Path) -> Result<Self, String> {
        let file = Self::open(database)?;
        let begun = std::time::Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file, alone: true }),
                Err(TryLockError::Error(error)) => return Err(cannot(&error)),
                Err(TryLockError::WouldBlock) => {}
            }
            match file.try_lock_shared() {
                Ok(()) => return Ok(Self { file, alone: false }),
                Err(TryLockError::Error(error)) => return Err(cannot(&error)),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= MIGRATED_WITHIN => {
                    return Err(
                        "another process has kept it to itself for a minute (a migration, a restore): wait for it to end"
                            .to_owned(),
                    );
                }
                Err(TryLockError::WouldBlock) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Alone, or not at all.
    pub(super) fn take_alone(database: &Path) -> Result<Option<Self>, String> {
        let file = Self::open(database)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, alone: true })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(cannot(&error)),
        }
    }

    /// Whether no other process has the database open.
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Lets others in. Nobody who waits to be alone comes between: those do not wait.
    pub(super) fn share(&mut self) -> io::Result<()> {
        if self.alone {
            self.file.lock_shared()?;
            self.alone = false;
        }
        Ok(())
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Plane,
    /// To copy or to check a file, which it leaves as it is.
    Tool,
}

/// How each connection is set up.
pub(super) fn configure(options: &mut ConnectOptions, role: Role) {
    options
        .acquire_timeout(QUEUE_TIMEOUT)
        .test_before_acquire(false)
        .map_sqlx_sqlite_opts(move |options: SqliteConnectOptions| {
            let options = options.busy_timeout(BUSY_TIMEOUT);
            if role == Role::Tool {
                return options;
            }
            durable(options)
        })
        .map_sqlx_sqlite_pool_opts(move |pool: PoolOptions<Sqlite>| {
            pool.after_release(|connection, _| {
                // At an error like a full disk SQLite ends the transaction by itself, and sqlx counts it on: the next
                // one on this connection would be a savepoint, without the lock that a writer needs.
                let keep = !connection.is_in_transaction();
                Box::pin(std::future::ready(Ok(keep)))
            })
        });
}

/// How the connection that writes to a file is set up.
pub(super) fn writer_options(path: &Path) -> SqliteConnectOptions {
    durable(SqliteConnectOptions::new())
        .filename(path)
        .busy_timeout(WRITER_BUSY_TIMEOUT)
        .disable_statement_logging()
}

fn durable(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
}

/// Refuses a library that may corrupt the database.
pub(super) async fn check_library(connection: &DatabaseConnection) -> Result<(), sea_orm::DbErr> {
    let row = connection
        .query_one_raw(Statement::from_string(
            DbBackend::Sqlite,
            "SELECT sqlite_version() AS version",
        ))
        .await?;
    let version: String = row
        .and_then(|row| row.try_get("", "version").ok())
        .unwrap_or_default();
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    if (part(), part(), part()) < MIN_VERSION {
        let (a, b, c) = MIN_VERSION;
        return Err(sea_orm::DbErr::Custom(format!(
            "this program was built with SQLite {version}, which may corrupt a database: build it with {a}.{b}.{c} or later"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_is_alone_until_it_shares() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("cless.db");
        let mut first = InUse::take(&database).await.unwrap();
        assert!(first.is_alone());
        assert!(InUse::take_alone(&database).unwrap().is_none());
        first.share().unwrap();
        let second = InUse::take(&database).await.unwrap();
        assert!(!second.is_alone());
        assert!(InUse::take_alone(&database).unwrap().is_none());
        drop((first, second));
        assert!(InUse::take_alone(&database).unwrap().is_some());
    }
}
