//! Connections to a database, and transactions on them.
//!
//! One connection writes ([`file_writer`](super::file_writer) for a file), so writes queue in this
//! process in order and do not compete for the database's lock. A few connections read beside it.
//! In memory, one connection does both. SQLite runs with `synchronous=FULL`, because NORMAL in WAL
//! mode may lose acknowledged commits on power loss; PostgreSQL's default is as strict.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use sea_orm::{
    AccessMode, ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    IsolationLevel, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

use super::Error;
use super::explain::is_busy;
use super::file_guard::FileGuard;
use super::file_writer::FileWriter;
use super::sqlite::{self, FileLock, OpenMode, SqliteUrl};
use super::transaction::Transaction;

/// Reads are short; more connections would only compete for cores.
pub(super) const READER_CONNECTIONS: u32 = 4;
/// Wait for another process to release SQLite's lock between two of its writes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait for the server to accept a connection, and for a pooled connection.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Server-side limits in milliseconds, for a statement that hangs, a lock held by another control
/// plane, and a control plane that stopped in the middle of a write and blocks all others.
const SESSION_TIMEOUTS: [(&str, &str); 3] = [
    ("statement_timeout", "30000"),
    ("lock_timeout", "10000"),
    ("idle_in_transaction_session_timeout", "10000"),
];

/// The connections for writing and reading; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    /// Writes to PostgreSQL and to memory; runs migrations of a file.
    pub(super) writer: DatabaseConnection,
    pub(super) reader: DatabaseConnection,
    /// Writes to a file; `None` for PostgreSQL and memory.
    pub(super) file_writer: Option<Arc<FileWriter>>,
    /// Held while a SQLite file is open; `None` for PostgreSQL and memory.
    pub(super) file_lock: Option<Arc<FileLock>>,
    /// Held while a control plane serves from a SQLite file, until it is closed.
    pub(super) serve_lock: Arc<Mutex<Option<FileLock>>>,
    /// Watches a SQLite file; `None` for PostgreSQL and memory.
    pub(super) file_guard: Option<Arc<FileGuard>>,
    pub(super) url: String,
}

impl Connections {
    /// The URL if other control planes may write to the same database (PostgreSQL), else `None`.
    pub(super) fn shared_url(&self) -> Option<&str> {
        (self.writer.get_database_backend() == DbBackend::Postgres).then_some(&*self.url)
    }

    /// Checks that the files of the database are those that were opened.
    pub(super) fn check_file(&self) -> Result<(), Error> {
        self.file_guard
            .as_ref()
            .map_or(Ok(()), |guard| guard.check())
    }

    /// Whether the database is a file, which other processes may open.
    pub(super) fn is_file(&self) -> bool {
        self.file_lock.is_some()
    }
}

/// Whether a URL names a PostgreSQL server.
pub(super) fn is_server(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// The file of a SQLite URL.
pub(crate) fn file_of(url: &str) -> Option<PathBuf> {
    match SqliteUrl::parse(url)? {
        SqliteUrl::File { path, .. } => Some(path),
        SqliteUrl::Memory => None,
    }
}

/// Opens a pool of connections.
pub(super) async fn connect(
    url: &str,
    max_connections: u32,
    mode: OpenMode,
) -> Result<DatabaseConnection, sea_orm::DbErr> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(max_connections)
        .min_connections(1)
        .idle_timeout(None::<Duration>)
        .max_lifetime(None::<Duration>)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    if is_server(url) {
        // A restarted server leaves dead connections in the pool; testing replaces them.
        options
            .acquire_timeout(SERVER_TIMEOUT)
            .test_before_acquire(true)
            .map_sqlx_postgres_opts(|options| {
                options
                    .application_name("cless-control-plane")
                    .options(SESSION_TIMEOUTS)
            });
    } else {
        sqlite::configure(&mut options, mode);
    }
    Database::connect(options).await
}

/// The first statement of a write transaction.
pub(super) type FirstStatement<T> =
    for<'a> fn(&'a Transaction) -> BoxFuture<'a, Result<T, sea_orm::DbErr>>;

/// Begins a write transaction and runs its first statement.
///
/// SQLite takes the lock at once: a transaction that reads before it writes fails as busy without
/// waiting. On PostgreSQL each statement reads the latest commits. All writers first lock the same
/// row, so transactions run one after the other and never fail to serialise.
pub(super) async fn begin_write<T>(
    connections: &Connections,
    first: FirstStatement<T>,
) -> Result<(Transaction, T), sea_orm::DbErr> {
    let options = || match connections.writer.get_database_backend() {
        DbBackend::Sqlite => TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        },
        _ => TransactionOptions {
            isolation_level: Some(IsolationLevel::ReadCommitted),
            access_mode: Some(AccessMode::ReadWrite),
            ..TransactionOptions::default()
        },
    };
    let begun = Instant::now();
    loop {
        let tried = async {
            let session = match &connections.file_writer {
                Some(writer) => Transaction::File(writer.begin().await),
                None => {
                    Transaction::Pooled(connections.writer.begin_with_options(options()).await?)
                }
            };
            let found = first(&session).await?;
            Ok((session, found))
        };
        match tried.await {
            // Another process writes; its transactions are short.
            Err(error) if is_busy(&error) && begun.elapsed() < LOCK_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            begun => return begun,
        }
    }
}

/// Begins a transaction whose reads all see the same state.
pub(super) async fn begin_read(
    connection: &DatabaseConnection,
) -> Result<DatabaseTransaction, Error> {
    let options = match connection.get_database_backend() {
        // A SQLite transaction always reads the state of its first statement.
        DbBackend::Sqlite => TransactionOptions::default(),
        _ => TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        },
    };
    Ok(connection.begin_with_options(options).await?)
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
