//! The connections to a database, and beginning transactions on them.
//!
//! There is one connection that writes ([`local`](super::local) for a file), so that writers queue in this process, in
//! order, rather than race for the database's lock, and a few that read beside it. In memory there is one connection for both. What is written is on
//! disk before it is acknowledged: `synchronous=FULL`, because in WAL mode NORMAL may lose acknowledged commits on power
//! loss; PostgreSQL's own default is as strict.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sea_orm::{
    AccessMode, ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    IsolationLevel, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

use super::Error;
use super::explain::is_busy;
use super::local::Local;
use super::session::Session;
use super::sqlite::{self, InUse, Role, SqliteUrl};

/// Readers beside the writer: reads are short, and a core more than this would not be free for them.
pub(super) const READERS: u32 = 4;
/// For another process to give SQLite's lock away between two of its writes.
const LOCKED_WITHIN: Duration = Duration::from_secs(30);
/// For a server to accept a connection, and for a turn in the queue before it: an operator waits for the message.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
/// What the server does to a session of ours that goes wrong, in milliseconds: a statement that hangs, a lock that another
/// control plane keeps, and a control plane that stopped in the middle of a write, which all others would wait for.
const SERVER_LIMITS: [(&str, &str); 3] = [
    ("statement_timeout", "30000"),
    ("lock_timeout", "10000"),
    ("idle_in_transaction_session_timeout", "10000"),
];

/// The two sides of a database; clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    /// Writes on a server and in memory; in a file it is there for migrations.
    pub(super) writer: DatabaseConnection,
    pub(super) reader: DatabaseConnection,
    /// Writes to a file.
    pub(super) local: Option<Arc<Local>>,
    /// Of a SQLite file, for as long as it is open.
    pub(super) in_use: Option<Arc<InUse>>,
    pub(super) url: String,
}

impl Connections {
    /// The URL, if other control planes may write to the same database.
    pub(super) fn shared_url(&self) -> Option<&str> {
        (self.writer.get_database_backend() == DbBackend::Postgres).then_some(&*self.url)
    }

    /// Whether the database is a file that another process may open too.
    pub(super) fn is_file(&self) -> bool {
        self.in_use.is_some()
    }
}

/// Whether a URL names a PostgreSQL server.
pub(super) fn is_server(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// The file of a SQLite URL.
pub(super) fn file_of(url: &str) -> Option<PathBuf> {
    match SqliteUrl::parse(url)? {
        SqliteUrl::File { path, .. } => Some(path),
        SqliteUrl::Memory => None,
    }
}

/// A pool of connections.
pub(super) async fn connect(
    url: &str,
    most: u32,
    role: Role,
) -> Result<DatabaseConnection, sea_orm::DbErr> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(most)
        .min_connections(1)
        .idle_timeout(None::<Duration>)
        .max_lifetime(None::<Duration>)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    if is_server(url) {
        // A server that restarted leaves dead connections behind: one that is tried is replaced.
        options
            .acquire_timeout(SERVER_TIMEOUT)
            .test_before_acquire(true)
            .map_sqlx_postgres_opts(|options| {
                options
                    .application_name("cless-control-plane")
                    .options(SERVER_LIMITS)
            });
    } else {
        sqlite::configure(&mut options, role);
    }
    Database::connect(options).await
}

/// What a transaction that may write begins with.
pub(super) type First<T> = for<'a> fn(&'a Session) -> BoxFuture<'a, Result<T, sea_orm::DbErr>>;

/// Begins a transaction that may write, with a first statement of it.
///
/// On SQLite it takes the lock at once: one that begins by reading and then writes is refused as busy without waiting.
/// On PostgreSQL each statement reads what is committed by then; as all writers begin by locking one row, that is what
/// the one before left, and no order of statements can fail to serialise.
pub(super) async fn begin_write<T>(
    connections: &Connections,
    first: First<T>,
) -> Result<(Session, T), sea_orm::DbErr> {
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
            let session = match &connections.local {
                Some(local) => Session::Local(local.begin().await),
                None => Session::Pooled(connections.writer.begin_with_options(options()).await?),
            };
            let found = first(&session).await?;
            Ok((session, found))
        };
        match tried.await {
            // Another process writes: its turns are short.
            Err(error) if is_busy(&error) && begun.elapsed() < LOCKED_WITHIN => {
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
