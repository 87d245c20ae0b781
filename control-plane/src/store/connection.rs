//! Opening a database: all that differs between SQLite and PostgreSQL.
//!
//! SQLite has one connection that writes, so that writers queue here in order rather than race for its lock, and a
//! few that read beside it (WAL). In memory there is one connection for both. What is written is on disk before it is
//! acknowledged: `synchronous=FULL`, because in WAL mode NORMAL may lose acknowledged commits on power loss.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction,
    DbBackend, IsolationLevel, RuntimeErr, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait,
};

use cless_migrations::{Migrator, MigratorTrait};

use super::Error;

/// Readers beside the writer: reads are short, and a core more than this would not be free for them.
const READERS: u32 = 4;
/// For the lock of a database that another process holds: a backup, say.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// For a turn in the queue of writers: longer than any deadline of a caller, so that the caller's own decides.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
/// For a server to accept a connection, and for a turn in the queue before it: an operator waits for the message.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
/// The first SQLite without a bug in resetting its WAL that may corrupt the database.
const SQLITE_MIN: (u32, u32, u32) = (3, 51, 3);

/// The two sides of a database; clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    pub(super) writer: DatabaseConnection,
    pub(super) reader: DatabaseConnection,
}

/// Connects, checks the program and the database for each other, and brings the schema up to date.
pub(super) async fn open(url: &str) -> Result<Connections, Error> {
    let fail = |reason: String| Error::Open {
        url: redacted(url),
        reason,
    };
    let sqlite = SqliteUrl::parse(url);
    if let Some(sqlite) = &sqlite {
        sqlite.check().map_err(fail)?;
    } else if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(fail(
            "it is not `sqlite://PATH?mode=rwc` or `postgres://USER:PASSWORD@HOST/NAME`: give one of these"
                .to_owned(),
        ));
    }
    let writer = connect(url, 1)
        .await
        .map_err(|error| fail(explain_open(&error)))?;
    if sqlite.is_some() {
        check_library(&writer).await.map_err(fail)?;
    }
    let connections = match sqlite {
        Some(SqliteUrl::Memory) => Connections {
            reader: writer.clone(),
            writer,
        },
        _ => {
            let reader = connect(url, READERS)
                .await
                .map_err(|error| fail(explain_open(&error)))?;
            Connections { writer, reader }
        }
    };
    migrate(&connections.writer, url).await?;
    Ok(connections)
}

async fn connect(url: &str, most: u32) -> Result<DatabaseConnection, sea_orm::DbErr> {
    let local = url.starts_with("sqlite:");
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(most)
        .min_connections(1)
        .acquire_timeout(if local { QUEUE_TIMEOUT } else { SERVER_TIMEOUT })
        .test_before_acquire(false)
        .idle_timeout(None::<Duration>)
        .max_lifetime(None::<Duration>)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_opts(sqlite_options);
    Database::connect(options).await
}

fn sqlite_options(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Begins a transaction that may write. On SQLite it takes the lock at once: one that begins by reading and then
/// writes is refused as busy without waiting.
pub(super) async fn begin_write(
    connection: &DatabaseConnection,
) -> Result<DatabaseTransaction, Error> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    Ok(connection.begin_with_options(options).await?)
}

/// Begins a transaction whose reads all see the same state.
pub(super) async fn begin_read(
    connection: &DatabaseConnection,
) -> Result<DatabaseTransaction, Error> {
    let options = match connection.get_database_backend() {
        // A SQLite transaction sees the state of its first read, without being asked.
        DbBackend::Sqlite => TransactionOptions::default(),
        _ => TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        },
    };
    Ok(connection.begin_with_options(options).await?)
}

async fn migrate(writer: &DatabaseConnection, url: &str) -> Result<(), Error> {
    let fail = |error: &sea_orm::DbErr| Error::Open {
        url: redacted(url),
        reason: explain_open(error),
    };
    let unknown = Migrator::unknown_change(writer)
        .await
        .map_err(|error| fail(&error))?;
    if let Some(migration) = unknown {
        return Err(Error::DatabaseNewer {
            url: redacted(url),
            migration,
        });
    }
    Migrator::up(writer, None)
        .await
        .map_err(|error| fail(&error))
}

async fn check_library(connection: &DatabaseConnection) -> Result<(), String> {
    let row = connection
        .query_one_raw(Statement::from_string(
            DbBackend::Sqlite,
            "SELECT sqlite_version() AS version",
        ))
        .await
        .map_err(|error| explain_open(&error))?;
    let version: String = row
        .and_then(|row| row.try_get("", "version").ok())
        .unwrap_or_default();
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    if (part(), part(), part()) < SQLITE_MIN {
        let (a, b, c) = SQLITE_MIN;
        return Err(format!(
            "this program was built with SQLite {version}, which may corrupt a database: build it with {a}.{b}.{c} or later"
        ));
    }
    Ok(())
}

/// Where a SQLite URL points.
enum SqliteUrl {
    Memory,
    File { path: PathBuf, create: bool },
}

impl SqliteUrl {
    fn parse(url: &str) -> Option<Self> {
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
    /// variables of versions are in it.
    fn check(&self) -> Result<(), String> {
        let Self::File { path, create } = self else {
            return Ok(());
        };
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(format!(
                "the folder {} does not exist: create it, or give another path",
                folder.display()
            ));
        }
        if path.is_dir() {
            return Err("it is a folder: give the path of a file".to_owned());
        }
        if !path.exists() && !create {
            return Err(
                "the file does not exist: correct the path, or add `?mode=rwc` to create it"
                    .to_owned(),
            );
        }
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(*create);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map(drop).map_err(|error| {
            format!("{error}: give this user the right to read and write it and its folder")
        })
    }
}

/// The URL without its password.
pub(super) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{}", &rest[authority_end..])
        }
        None => url.to_owned(),
    }
}

fn explain_open(error: &sea_orm::DbErr) -> String {
    match code(error).as_deref() {
        Some("26") => {
            "it is not a SQLite database: give another path, or restore it from a backup".to_owned()
        }
        Some("11") => "it is damaged: restore it from a backup".to_owned(),
        Some("8") => {
            "it is read-only: give this user the right to write it and its folder".to_owned()
        }
        Some("14") => {
            "it cannot be opened: give this user the right to read and write it and its folder"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

fn sqlx_error(error: &sea_orm::DbErr) -> Option<&sea_orm::sqlx::Error> {
    use sea_orm::DbErr;
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

/// SQLite's primary result code, or PostgreSQL's SQLSTATE.
fn code(error: &sea_orm::DbErr) -> Option<String> {
    let sea_orm::sqlx::Error::Database(database) = sqlx_error(error)? else {
        return None;
    };
    let code = database.code()?;
    // SQLite's extended codes hold the primary one in their lowest byte; a SQLSTATE has five characters.
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => Some((number & 0xff).to_string()),
        _ => Some(code.into_owned()),
    }
}

impl From<sea_orm::DbErr> for Error {
    fn from(error: sea_orm::DbErr) -> Self {
        use sea_orm::sqlx::Error as Sqlx;
        // SQLite: 5 busy, 6 locked, 10 input/output, 13 full. PostgreSQL: 40xxx to be repeated, 53xxx out of
        // resources, 57xxx shutting down, 08xxx connection.
        let passing = match code(&error).as_deref() {
            Some("5" | "6" | "10" | "13") => true,
            Some(state) => ["40", "53", "57", "08"]
                .iter()
                .any(|class| state.len() == 5 && state.starts_with(class)),
            None => {
                matches!(error, sea_orm::DbErr::ConnectionAcquire(_))
                    || matches!(
                        sqlx_error(&error),
                        Some(
                            Sqlx::Io(_)
                                | Sqlx::PoolTimedOut
                                | Sqlx::PoolClosed
                                | Sqlx::WorkerCrashed
                        )
                    )
            }
        };
        if passing {
            Self::Unavailable(error.to_string())
        } else {
            Self::Database(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show() {
        for (url, shown) in [
            (
                "postgres://me:secret@db/cless",
                "postgres://me:***@db/cless",
            ),
            (
                "postgres://me:p@ss@db:5432/x",
                "postgres://me:***@db:5432/x",
            ),
            ("sqlite://cless.db?mode=rwc", "sqlite://cless.db?mode=rwc"),
            ("sqlite::memory:", "sqlite::memory:"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
