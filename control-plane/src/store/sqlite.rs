//! A SQLite file: its URL, its lock, its settings.
//!
//! ```text
//!   cless.db       the database (cless.db-wal and cless.db-shm belong to SQLite)
//!   cless.db-lock  empty; locked while a process has the database open
//!   cless.db-serve empty; locked while a control plane serves from it
//! ```
//!
//! Only one control plane serves from a file, because the planes of a cluster share the state of
//! nodes through PostgreSQL. Processes that have the database open hold the first lock shared; migrations and restores hold it exclusively. SQLite's
//! own locks are held only for moments. The operating system releases the lock when the process
//! ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Connection as _, Sqlite, pool::PoolOptions};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, Statement};

/// Wait for SQLite's lock while another process holds it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for the writer, which retries ([`begin_write`](super::connection::begin_write)). SQLite
/// polls ten times a second and would miss the gaps between the writes of a busy process.
const WRITER_BUSY_TIMEOUT: Duration = Duration::from_millis(10);
/// Wait for a pooled connection: longer than any deadline of a caller.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
/// The first SQLite version without a WAL-reset bug that may corrupt the database.
const MIN_VERSION: (u32, u32, u32) = (3, 51, 3);
/// Wait for another process to finish its migrations.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// Wait for the predecessor of a restarted control plane to end.
const SERVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A parsed SQLite URL.
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

    /// Finds the causes that SQLite reports only as "unable to open database file", and creates a
    /// new file as private, because it will hold environment variables. An existing file is not
    /// opened here: closing a second descriptor would release this process's locks.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self::File { path, create } = self else {
            return Ok(());
        };
        let folder = parent_dir(path);
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
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_remedy(&error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

pub(super) fn parent_dir(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Creates a file that only this user can read and write.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The remedy for a file that cannot be created or written.
pub(super) fn io_remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("{error}: free space on the disk that holds it")
        }
        _ => format!("{error}: give this user the right to read and write it and its folder"),
    }
}

/// Appends `suffix` to the file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The lock of the processes that have a file open.
const LOCK_SUFFIX: &str = "-lock";
/// The lock of the control plane that serves from a file.
const SERVE_SUFFIX: &str = "-serve";

/// A lock beside a database file, released on drop.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
    exclusive: bool,
}

impl FileLock {
    fn open(database: &Path, suffix: &str) -> Result<File, String> {
        let path = with_suffix(database, suffix);
        let mut options = File::options();
        options.read(true).write(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
            .open(&path)
            .map_err(|error| format!("cannot create {}: {}", path.display(), io_remedy(&error)))
    }

    /// Takes the lock exclusively if it is free, else shared once no process holds it exclusively.
    pub(super) async fn acquire(database: &Path) -> Result<Self, String> {
        let file = Self::open(database, LOCK_SUFFIX)?;
        let begun = std::time::Instant::now();
        loop {
            let exclusive = locked(file.try_lock())?;
            if exclusive || locked(file.try_lock_shared())? {
                return Ok(Self { file, exclusive });
            }
            if begun.elapsed() >= LOCK_TIMEOUT {
                return Err(
                    "another process has locked it for a minute (a migration or a restore): wait for it to end"
                        .to_owned(),
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes the lock exclusively; `None` if another process holds it.
    pub(super) fn try_exclusive(database: &Path) -> Result<Option<Self>, String> {
        let file = Self::open(database, LOCK_SUFFIX)?;
        let exclusive = locked(file.try_lock())?;
        Ok(exclusive.then_some(Self { file, exclusive }))
    }

    /// Takes the lock of the control plane that serves from the file.
    pub(super) async fn serve(database: &Path) -> Result<Self, String> {
        let file = Self::open(database, SERVE_SUFFIX)?;
        let begun = tokio::time::Instant::now();
        while !locked(file.try_lock())? {
            if begun.elapsed() >= SERVE_TIMEOUT {
                return Err(
                    "another control plane serves from this file: stop it first; several control planes need PostgreSQL"
                        .to_owned(),
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            file,
            exclusive: true,
        })
    }

    /// Whether no other process has the database open.
    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Shares an exclusive lock. No other process can take it exclusively in between, because none
    /// waits for that.
    pub(super) fn downgrade(&mut self) -> io::Result<()> {
        if self.exclusive {
            self.file.lock_shared()?;
            self.exclusive = false;
        }
        Ok(())
    }
}

fn locked(attempt: Result<(), TryLockError>) -> Result<bool, String> {
    match attempt {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(io_remedy(&error)),
    }
}

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenMode {
    Serve,
    /// Copies or checks a file without changing it.
    Inspect,
}

/// Sets up pooled connections.
pub(super) fn configure(options: &mut ConnectOptions, mode: OpenMode) {
    options
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .map_sqlx_sqlite_opts(move |options: SqliteConnectOptions| {
            let options = options.busy_timeout(BUSY_TIMEOUT);
            if mode == OpenMode::Inspect {
                return options;
            }
            durable(options)
        })
        .map_sqlx_sqlite_pool_opts(move |pool: PoolOptions<Sqlite>| {
            pool.after_release(|connection, _| {
                // On a full disk SQLite ends the transaction, but sqlx still counts it: the next
                // one would be a savepoint without the writers' lock.
                let keep = !connection.is_in_transaction();
                Box::pin(std::future::ready(Ok(keep)))
            })
        });
}

/// The options of the connection that writes to a file.
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

/// Refuses a SQLite library that may corrupt the database.
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
    async fn a_lock_is_exclusive_until_downgraded() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("cless.db");
        let mut first = FileLock::acquire(&database).await.unwrap();
        assert!(first.is_exclusive());
        assert!(FileLock::try_exclusive(&database).unwrap().is_none());
        first.downgrade().unwrap();
        let second = FileLock::acquire(&database).await.unwrap();
        assert!(!second.is_exclusive());
        assert!(FileLock::try_exclusive(&database).unwrap().is_none());
        drop((first, second));
        assert!(FileLock::try_exclusive(&database).unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_control_plane_serves_from_a_file_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("cless.db");
        let first = FileLock::serve(&database).await.unwrap();
        let refused = FileLock::serve(&database).await.unwrap_err();
        assert!(refused.contains("stop it first"), "{refused}");
        let (second, ()) = tokio::join!(FileLock::serve(&database), async {
            tokio::time::sleep(SERVE_TIMEOUT / 2).await;
            drop(first);
        });
        assert!(second.is_ok(), "a restarted one waits for its predecessor");
    }
}
