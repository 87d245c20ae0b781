//! The connection that writes to a SQLite file, and the thread that its writes run on.
//!
//! sqlx runs each connection on a thread of its own, so a statement is a round trip between two
//! threads. Three measures make the round trips few and cheap:
//!
//! - Writes run on one dedicated thread. An answer wakes that thread and passes no scheduler.
//! - The thread spins before it parks ([`spin_then_park`]): most statements finish sooner than a
//!   thread can be parked and woken.
//! - A statement without a result (`BEGIN`, `SAVEPOINT`, an insert) is deferred and sent with the
//!   next one. A write alone in its transaction sends its last statements with `COMMIT`:
//!
//! ```text
//!   BEGIN IMMEDIATE; SELECT feed_state ─▶ SAVEPOINT; UPDATE services RETURNING
//!     ─▶ INSERT …; INSERT …; UPDATE feed_state; RELEASE; COMMIT
//! ```
//!
//! Invariant: a failed statement fails the write that it belongs to. `write_queue` flushes deferred
//! inserts before it releases a savepoint, unless the write is alone. Only `BEGIN`, `SAVEPOINT` and
//! `RELEASE` can be sent with a statement of another write; if one of them fails, the whole
//! transaction fails.
//!
//! # Measurements
//!
//! The bar is 0.8 of a bare tonic service that runs the same transaction (DESIGN.md section 8,
//! "acknowledged writes"; `make bench-control`, `writes_per_s`). Without deferral 8 writers miss it;
//! without the thread or the spinning they have no margin. Ratios to SQLite alone, on two cores:
//!
//! | variant | 1 writer | 8 writers | 64 writers |
//! |---|---|---|---|
//! | pooled connection, one round trip per statement | 0.19 | 0.48 | 0.75 |
//! | dedicated thread, deferred statements | 0.24 | 0.69 | 1.34 |
//! | also spinning for 60 us, end of a lone write sent with `COMMIT` | 0.27 | 0.92 | 1.51 |
//! | the same without spinning | 0.24 | 0.81 | 1.08 |
//! | the same on tokio's threads | 0.27 | 0.80 | 1.63 |

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

/// Spinning time. A statement takes 5 to 30 us, parking and waking a thread about 40 us. A flush to
/// disk takes longer and is waited for parked. 150 us gain nothing over 60 us.
const SPIN_TIME: Duration = Duration::from_micros(60);

/// Handle of the writer of a file.
#[derive(Debug)]
pub(super) struct FileWriter {
    shared: Arc<WriterState>,
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<Infallible>,
}

#[derive(Debug)]
struct WriterState {
    pipeline: Mutex<Pipeline>,
    runtime: Handle,
    /// Zero on one core, where spinning would keep the other thread from running.
    spin_time: Duration,
    /// A transaction was dropped: it is rolled back before the next one begins.
    rollback_pending: AtomicBool,
    /// A savepoint was dropped: its transaction can no longer be committed.
    transaction_lost: AtomicBool,
}

#[derive(Debug)]
struct Pipeline {
    /// `None` once closed.
    connection: Option<SqliteConnection>,
    pending: PendingStatements,
}

/// Statements to send together.
#[derive(Debug, Default)]
struct PendingStatements {
    sql: String,
    arguments: SqliteArguments,
    /// Whether there are others than `BEGIN`, `SAVEPOINT` and `RELEASE`.
    writes: bool,
}

impl FileWriter {
    /// Opens an existing file and starts the thread.
    pub(super) async fn open(path: &Path) -> Result<Self, DbErr> {
        let connection = SqliteConnection::connect_with(&sqlite::writer_options(path))
            .await
            .map_err(failed)?;
        let cannot =
            |error| DbErr::Custom(format!("cannot start the thread of the writer: {error}"));
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(cannot)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                // Ends when the sender is dropped; nothing is ever sent.
                let _: Result<Infallible, _> = runtime.block_on(stopped);
            })
            .map_err(cannot)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            shared: Arc::new(WriterState {
                pipeline: Mutex::new(Pipeline {
                    connection: Some(connection),
                    pending: PendingStatements::default(),
                }),
                runtime: handle,
                spin_time: if cores > 1 { SPIN_TIME } else { Duration::ZERO },
                rollback_pending: AtomicBool::new(false),
                transaction_lost: AtomicBool::new(false),
            }),
            _stop: stop,
        })
    }

    /// The runtime that writes must run on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Begins a transaction. Its first statement takes SQLite's lock, or fails if another process
    /// holds it.
    pub(super) async fn begin(&self) -> FileTx {
        let shared = Arc::clone(&self.shared);
        let mut pipeline = shared.pipeline.lock().await;
        pipeline.recover(&shared).await;
        pipeline.pending = PendingStatements::default();
        pipeline.pending.push_sql("BEGIN IMMEDIATE");
        drop(pipeline);
        FileTx {
            shared,
            scope: TxScope::Transaction,
            ended: false,
        }
    }

    pub(super) async fn close(&self) -> Result<(), DbErr> {
        let mut pipeline = self.shared.pipeline.lock().await;
        pipeline.recover(&self.shared).await;
        match pipeline.connection.take() {
            Some(connection) => connection.close().await.map_err(failed),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TxScope {
    Transaction,
    Savepoint,
}

/// A transaction, or a savepoint in one. Dropping it rolls it back.
#[derive(Debug)]
pub(super) struct FileTx {
    shared: Arc<WriterState>,
    scope: TxScope,
    ended: bool,
}

impl FileTx {
    /// Begins a savepoint. Savepoints do not nest.
    pub(super) async fn savepoint(&self) -> Self {
        self.shared
            .pipeline
            .lock()
            .await
            .pending
            .push_sql("SAVEPOINT one");
        Self {
            shared: Arc::clone(&self.shared),
            scope: TxScope::Savepoint,
            ended: false,
        }
    }

    pub(super) async fn commit(mut self) -> Result<(), DbErr> {
        let mut pipeline = self.shared.pipeline.lock().await;
        match self.scope {
            TxScope::Transaction => {
                pipeline.run_sql(&self.shared, "COMMIT").await?;
            }
            TxScope::Savepoint => pipeline.pending.push_sql("RELEASE one"),
        }
        drop(pipeline);
        self.ended = true;
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<(), DbErr> {
        let mut pipeline = self.shared.pipeline.lock().await;
        match self.scope {
            TxScope::Transaction => {
                pipeline.pending = PendingStatements::default();
                pipeline.run_sql(&self.shared, "ROLLBACK").await?;
            }
            TxScope::Savepoint => {
                pipeline
                    .run_sql(&self.shared, "ROLLBACK TO one; RELEASE one")
                    .await?;
            }
        }
        drop(pipeline);
        self.ended = true;
        Ok(())
    }

    /// Sends a statement together with the next one.
    pub(super) async fn defer(&self, statement: Statement) -> Result<(), DbErr> {
        let mut pipeline = self.shared.pipeline.lock().await;
        pipeline.pending.push(statement)?;
        pipeline.pending.writes = true;
        Ok(())
    }

    /// Sends deferred inserts and updates, if any.
    pub(super) async fn flush(&self) -> Result<(), DbErr> {
        let mut pipeline = self.shared.pipeline.lock().await;
        if pipeline.pending.writes {
            pipeline.run(&self.shared).await?;
        }
        Ok(())
    }

    pub(super) async fn execute(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let mut pipeline = self.shared.pipeline.lock().await;
        pipeline.pending.push(statement)?;
        Ok(pipeline.run(&self.shared).await?.1.into())
    }

    pub(super) async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut pipeline = self.shared.pipeline.lock().await;
        Ok(pipeline.run_sql(&self.shared, sql).await?.into())
    }

    pub(super) async fn query(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut pipeline = self.shared.pipeline.lock().await;
        pipeline.pending.push(statement)?;
        let (rows, _) = pipeline.run(&self.shared).await?;
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }
}

impl Drop for FileTx {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.scope == TxScope::Savepoint {
            self.shared.transaction_lost.store(true, Ordering::Release);
            return;
        }
        self.shared.rollback_pending.store(true, Ordering::Release);
        // Roll back now, because the transaction may hold the file's lock.
        let shared = Arc::clone(&self.shared);
        self.shared
            .runtime
            .spawn(async move { shared.pipeline.lock().await.recover(&shared).await });
    }
}

impl Pipeline {
    /// Rolls back a dropped transaction.
    async fn recover(&mut self, shared: &WriterState) {
        let rollback_pending = shared.rollback_pending.swap(false, Ordering::AcqRel);
        shared.transaction_lost.store(false, Ordering::Release);
        if rollback_pending {
            self.pending = PendingStatements::default();
            // Fails if SQLite has already ended the transaction itself.
            let _ = self.run_sql(shared, "ROLLBACK").await;
        }
    }

    async fn run_sql(
        &mut self,
        shared: &WriterState,
        sql: &str,
    ) -> Result<SqliteQueryResult, DbErr> {
        self.pending.push_sql(sql);
        Ok(self.run(shared).await?.1)
    }

    /// Sends all pending statements. Returns their rows and the result of the last one.
    async fn run(
        &mut self,
        shared: &WriterState,
    ) -> Result<(Vec<SqliteRow>, SqliteQueryResult), DbErr> {
        let PendingStatements { sql, arguments, .. } = std::mem::take(&mut self.pending);
        if shared.transaction_lost.load(Ordering::Acquire) && sql != "ROLLBACK" {
            return Err(DbErr::Custom(
                "an earlier write of this transaction did not complete".to_owned(),
            ));
        }
        let Some(connection) = &mut self.connection else {
            return Err(failed(sqlx::Error::PoolClosed));
        };
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        let mut answers = connection.fetch_many(query);
        let (mut rows, mut done) = (Vec::new(), SqliteQueryResult::default());
        while let Some(answer) = spin_then_park(answers.try_next(), shared.spin_time)
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

/// Awaits an answer, polling for `time` before parking the thread.
async fn spin_then_park<T>(mut answer: impl Future<Output = T> + Unpin, time: Duration) -> T {
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

impl PendingStatements {
    fn push_sql(&mut self, sql: &str) {
        if !self.sql.is_empty() {
            self.sql.push_str("; ");
        }
        self.sql.push_str(sql);
    }

    fn push(&mut self, statement: Statement) -> Result<(), DbErr> {
        self.push_sql(&statement.sql);
        for value in statement.values.into_iter().flat_map(|values| values.0) {
            match value {
                Value::Bool(value) => self.arguments.add(value),
                Value::Int(value) => self.arguments.add(value),
                Value::BigInt(value) => self.arguments.add(value),
                Value::BigUnsigned(value) => match value.map(i64::try_from).transpose() {
                    Ok(value) => self.arguments.add(value),
                    Err(error) => Err(error.into()),
                },
                Value::String(value) => self.arguments.add(value),
                Value::Bytes(value) => self.arguments.add(value),
                other => Err(format!("{other:?} has a type that no column uses").into()),
            }
            .map_err(|error| failed(sqlx::Error::Encode(error)))?;
        }
        Ok(())
    }
}

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}
