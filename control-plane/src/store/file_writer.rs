//! The connection that writes to a SQLite file, and the thread that drives it.
//!
//! sqlx gives a connection a thread, and each statement a way there and back. Three things make these ways few and short.
//! The futures of writes run on one thread that does nothing else, so that an answer wakes it and no scheduler; and that
//! thread stays awake for a moment ([`awake`]), for most answers take less time than to sleep and be woken. What
//! gives no answer (`BEGIN`, `SAVEPOINT`, an insert) goes along with the next statement that does, and all that a write
//! leaves open at its end, if nobody shares its transaction, with `COMMIT`:
//!
//! ```text
//!   BEGIN IMMEDIATE; SELECT feed_state ─▶ SAVEPOINT; UPDATE services RETURNING
//!     ─▶ INSERT …; INSERT …; UPDATE feed_state; RELEASE; COMMIT
//! ```
//!
//! Law: what fails is refused by the write that it belongs to. No insert waits beyond the end of its savepoint, before
//! which `write` flushes unless it is alone, so only `BEGIN`, `SAVEPOINT` and `RELEASE` go along with what another write
//! says; where one of those fails, the transaction is lost for all.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sea_orm::sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteQueryResult, SqliteRow};
use sea_orm::sqlx::{self, Arguments as _, AssertSqlSafe, Connection as _, Either, Executor as _};
use sea_orm::{DbErr, ExecResult, QueryResult, RuntimeErr, Statement, Value};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Mutex, oneshot};

use super::sqlite;

/// How long who awaits an answer stays awake: a statement takes 5 to 30 us, and to put a thread to sleep and wake it
/// about 40. A flush takes longer, and is slept through. On two cores 60 us make a fifth more writes of 8 writers than none,
/// and a third more of 64; 150 us make no more.
const AWAKE: Duration = Duration::from_micros(60);

/// The writer of a file.
#[derive(Debug)]
pub(super) struct Local {
    shared: Arc<Shared>,
    /// The thread ends with it.
    _stop: oneshot::Sender<Infallible>,
}

#[derive(Debug)]
struct Shared {
    link: Mutex<Link>,
    runtime: Handle,
    /// [`AWAKE`], or nothing on one core: there who waits keeps from work who is waited for.
    awake: Duration,
    /// A transaction was dropped, and is to be rolled back before the next.
    abandoned: AtomicBool,
    /// A savepoint was dropped: its transaction cannot be committed.
    lost: AtomicBool,
}

#[derive(Debug)]
struct Link {
    /// None once it is closed.
    connection: Option<SqliteConnection>,
    waiting: Waiting,
}

/// What goes along with the next statement.
#[derive(Debug, Default)]
struct Waiting {
    sql: String,
    arguments: SqliteArguments,
    /// Whether it is more than `BEGIN`, `SAVEPOINT` and `RELEASE`.
    writes: bool,
}

impl Local {
    /// Opens a file that exists, and starts its thread.
    pub(super) async fn open(path: &Path) -> Result<Self, DbErr> {
        let connection = SqliteConnection::connect_with(&sqlite::writer_options(path))
            .await
            .map_err(failed)?;
        let cannot = |error| DbErr::Custom(format!("the writer's thread cannot start: {error}"));
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(cannot)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                // Nothing is ever sent.
                let _: Result<Infallible, _> = runtime.block_on(stopped);
            })
            .map_err(cannot)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            shared: Arc::new(Shared {
                link: Mutex::new(Link {
                    connection: Some(connection),
                    waiting: Waiting::default(),
                }),
                runtime: handle,
                awake: if cores > 1 { AWAKE } else { Duration::ZERO },
                abandoned: AtomicBool::new(false),
                lost: AtomicBool::new(false),
            }),
            _stop: stop,
        })
    }

    /// Where writes are to run.
    pub(super) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Begins a transaction; its first statement takes SQLite's lock, and fails where that is taken.
    pub(super) async fn begin(&self) -> LocalTx {
        let shared = Arc::clone(&self.shared);
        let mut link = shared.link.lock().await;
        link.recover(&shared).await;
        link.waiting = Waiting::default();
        link.waiting.control("BEGIN IMMEDIATE");
        drop(link);
        LocalTx {
            shared,
            scope: Scope::Transaction,
            ended: false,
        }
    }

    pub(super) async fn close(&self) -> Result<(), DbErr> {
        let mut link = self.shared.link.lock().await;
        link.recover(&self.shared).await;
        match link.connection.take() {
            Some(connection) => connection.close().await.map_err(failed),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Transaction,
    Savepoint,
}

/// A transaction, or a savepoint in one; rolled back when dropped.
#[derive(Debug)]
pub(super) struct LocalTx {
    shared: Arc<Shared>,
    scope: Scope,
    ended: bool,
}

impl LocalTx {
    /// Begins a savepoint; there is one at a time.
    pub(super) async fn savepoint(&self) -> Self {
        self.shared
            .link
            .lock()
            .await
            .waiting
            .control("SAVEPOINT one");
        Self {
            shared: Arc::clone(&self.shared),
            scope: Scope::Savepoint,
            ended: false,
        }
    }

    pub(super) async fn commit(mut self) -> Result<(), DbErr> {
        let mut link = self.shared.link.lock().await;
        match self.scope {
            Scope::Transaction => {
                link.control(&self.shared, "COMMIT").await?;
            }
            Scope::Savepoint => link.waiting.control("RELEASE one"),
        }
        drop(link);
        self.ended = true;
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<(), DbErr> {
        let mut link = self.shared.link.lock().await;
        match self.scope {
            Scope::Transaction => {
                link.waiting = Waiting::default();
                link.control(&self.shared, "ROLLBACK").await?;
            }
            Scope::Savepoint => {
                link.control(&self.shared, "ROLLBACK TO one; RELEASE one")
                    .await?;
            }
        }
        drop(link);
        self.ended = true;
        Ok(())
    }

    /// Has a statement go along with the next one.
    pub(super) async fn defer(&self, statement: Statement) -> Result<(), DbErr> {
        let mut link = self.shared.link.lock().await;
        link.waiting.push(statement)?;
        link.waiting.writes = true;
        Ok(())
    }

    /// Runs what waits, if it writes.
    pub(super) async fn flush(&self) -> Result<(), DbErr> {
        let mut link = self.shared.link.lock().await;
        if link.waiting.writes {
            link.run(&self.shared).await?;
        }
        Ok(())
    }

    pub(super) async fn execute(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let mut link = self.shared.link.lock().await;
        link.waiting.push(statement)?;
        Ok(link.run(&self.shared).await?.1.into())
    }

    pub(super) async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut link = self.shared.link.lock().await;
        Ok(link.control(&self.shared, sql).await?.into())
    }

    pub(super) async fn query(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut link = self.shared.link.lock().await;
        link.waiting.push(statement)?;
        let (rows, _) = link.run(&self.shared).await?;
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }
}

impl Drop for LocalTx {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.scope == Scope::Savepoint {
            self.shared.lost.store(true, Ordering::Release);
            return;
        }
        self.shared.abandoned.store(true, Ordering::Release);
        // Now, rather than at the next write: the file may be locked.
        let shared = Arc::clone(&self.shared);
        self.shared
            .runtime
            .spawn(async move { shared.link.lock().await.recover(&shared).await });
    }
}

impl Link {
    /// Rolls back what was dropped.
    async fn recover(&mut self, shared: &Shared) {
        let abandoned = shared.abandoned.swap(false, Ordering::AcqRel);
        shared.lost.store(false, Ordering::Release);
        if abandoned {
            self.waiting = Waiting::default();
            // It fails where SQLite has ended the transaction by itself.
            let _ = self.control(shared, "ROLLBACK").await;
        }
    }

    async fn control(&mut self, shared: &Shared, sql: &str) -> Result<SqliteQueryResult, DbErr> {
        self.waiting.control(sql);
        Ok(self.run(shared).await?.1)
    }

    /// Runs all that waits: the rows, and what the last statement did.
    async fn run(&mut self, shared: &Shared) -> Result<(Vec<SqliteRow>, SqliteQueryResult), DbErr> {
        let Waiting { sql, arguments, .. } = std::mem::take(&mut self.waiting);
        if shared.lost.load(Ordering::Acquire) && sql != "ROLLBACK" {
            return Err(DbErr::Custom("a write did not end well".to_owned()));
        }
        let Some(connection) = &mut self.connection else {
            return Err(failed(sqlx::Error::PoolClosed));
        };
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        let mut answers = connection.fetch_many(query);
        let (mut rows, mut done) = (Vec::new(), SqliteQueryResult::default());
        while let Some(answer) = awake(answers.try_next(), shared.awake)
            .await
            .map_err(failed)?
        {
            match answer {
                Either::Left(result) => done = result,
                Either::Right(row) => rows.push(row),
            }
        }
        Ok((rows, done))
    }
}

/// Awaits an answer, and does not sleep before `time` is over.
async fn awake<T>(mut answer: impl Future<Output = T> + Unpin, time: Duration) -> T {
    let begun = Instant::now();
    std::future::poll_fn(|context| {
        loop {
            match Pin::new(&mut answer).poll(context) {
                Poll::Pending if begun.elapsed() < time => std::hint::spin_loop(),
                polled => return polled,
            }
        }
    })
    .await
}

impl Waiting {
    fn control(&mut self, sql: &str) {
        if !self.sql.is_empty() {
            self.sql.push_str("; ");
        }
        self.sql.push_str(sql);
    }

    fn push(&mut self, statement: Statement) -> Result<(), DbErr> {
        self.control(&statement.sql);
        for value in statement.values.into_iter().flat_map(|values| values.0) {
            match value {
                Value::Int(value) => self.arguments.add(value),
                Value::BigInt(value) => self.arguments.add(value),
                Value::BigUnsigned(value) => match value.map(i64::try_from).transpose() {
                    Ok(value) => self.arguments.add(value),
                    Err(error) => Err(error.into()),
                },
                Value::String(value) => self.arguments.add(value),
                Value::Bytes(value) => self.arguments.add(value),
                other => Err(format!("{other:?} is not a value that a table here holds").into()),
            }
            .map_err(|error| failed(sqlx::Error::Encode(error)))?;
        }
        Ok(())
    }
}

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}
