//! Group commit: writes that arrive together share one transaction.
//!
//! A commit costs a flush to disk, far more than the statements of a write. Each queued write
//! joins the transaction of the write before it, in a savepoint of its own. The last one commits:
//!
//! ```text
//!   write 1 ──commit─────────▶ answer      (the queue is empty)
//!   write 2 ········▶ ──┐
//!   write 3 ········▶   ├─ one transaction ──commit──▶ answers 2, 3, 4
//!   write 4 ········▶ ──┘
//! ```
//!
//! Invariants: a write is answered, even with an error, only after the commit of everything that it
//! read; a failed write does not affect the others of its transaction; if the transaction fails,
//! all of its writes fail and none is kept.
//!
//! Each write runs in its own task, so a cancelled caller neither interrupts it nor prevents
//! subscribers from learning of its commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sea_orm::DbErr;
use tokio::sync::{Mutex, watch};
use tracing::{Instrument as _, Span};

use super::entity::feed_state;
use super::explain::must_retry;
use super::transaction::Transaction;
use super::types::{WriteOptions, Written};
use super::write::{FinishedWrite, News, WriteOutcome, WriteTx, lock_feed_state};
use super::{Error, Inner, Store, connection, hint};

/// Writes per transaction. The first waits for the statements of all others, about 20 ms.
const MAX_MEMBERS: usize = 128;
/// Attempts to begin a transaction while the server reports retryable errors.
const MAX_BEGIN_ATTEMPTS: u32 = 5;
/// After writing without a break for this long, a process yields the file.
const BUSY_LIMIT: Duration = Duration::from_millis(100);
/// Break that lets another process take SQLite's lock, which has no queue.
const YIELD_TIME: Duration = Duration::from_millis(2);

/// The queue of writes.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    /// Locked by the write that runs; waiters are served in order.
    state: Mutex<QueueState>,
    waiting: AtomicUsize,
}

impl WriteQueue {
    fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }
}

#[derive(Debug, Default)]
struct QueueState {
    /// The open transaction for the next write to join.
    batch: Option<Batch>,
    /// Start of the current run of commits with a non-empty queue.
    busy_since: Option<Instant>,
}

/// A transaction and the writes in it.
#[derive(Debug)]
struct Batch {
    db: Transaction,
    state: feed_state::Model,
    members: usize,
    /// Whether there is anything to commit.
    dirty: bool,
    /// Whether a write made a new revision.
    new_revision: bool,
    news: News,
    /// Whether deferred statements wait for COMMIT, so that no other write may join.
    sealed: bool,
    /// Result of the commit; `None` while the transaction is open.
    committed: watch::Sender<Option<Result<(), Arc<Error>>>>,
}

impl Store {
    /// Queues one write and waits for its commit.
    ///
    /// `span` describes the change; its field `revision` is recorded when the write ends.
    pub(super) async fn write<T, F>(
        &self,
        span: Span,
        options: WriteOptions,
        change: F,
    ) -> Result<Written<T>, Error>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut WriteTx) -> BoxFuture<'a, Result<WriteOutcome<T>, Error>>
            + Send
            + 'static,
    {
        let inner = Arc::clone(&self.inner);
        // Counted before the task runs, so that the write before it leaves the transaction open.
        inner.write_queue.waiting.fetch_add(1, Ordering::AcqRel);
        let writer = inner.connections.file_writer.clone();
        let task = async move {
            let write = run_queued(&inner, options, change);
            let written = write.instrument(span.clone()).await?;
            span.record("revision", written.revision);
            tracing::debug!(parent: &span, replayed = written.replayed, "write finished");
            Ok(written)
        };
        let task = match writer {
            Some(writer) => writer.runtime().spawn(task),
            None => tokio::spawn(task),
        };
        task.await.map_err(|error| {
            if error.is_panic() {
                Error::Database(format!("a write panicked: {error}"))
            } else {
                Error::Unavailable("the program is shutting down".to_owned())
            }
        })?
    }
}

async fn run_queued<T, F>(
    inner: &Arc<Inner>,
    options: WriteOptions,
    change: F,
) -> Result<Written<T>, Error>
where
    F: for<'a> FnOnce(&'a mut WriteTx) -> BoxFuture<'a, Result<WriteOutcome<T>, Error>>,
{
    let queue = &inner.write_queue;
    let mut state = queue.state.lock().await;
    queue.waiting.fetch_sub(1, Ordering::AcqRel);
    let mut batch = match state.batch.take() {
        Some(batch) => batch,
        None => Batch::begin(inner).await?,
    };
    let mut committed = batch.committed.subscribe();
    let answer = match batch.run(inner, options, change).await {
        Ok(answer) => answer,
        Err(error) => return Err(batch.abort(error).await),
    };
    let last = queue.is_empty();
    if last || batch.sealed || batch.members >= MAX_MEMBERS {
        batch.commit(inner).await;
        state.yield_file(last, inner.connections.is_file()).await;
    } else {
        state.batch = Some(batch);
    }
    drop(state);
    match committed.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(Err(error))) => Err(copy_error(error)),
        Ok(_) => answer,
        Err(_closed) => Err(Error::Unavailable(
            "another write of the shared transaction did not complete".to_owned(),
        )),
    }
}

/// Copies the error of a transaction for one of its writes.
fn copy_error(error: &Error) -> Error {
    match error {
        Error::Unavailable(text) => Error::Unavailable(text.clone()),
        Error::FileGone { path, event } => Error::FileGone {
            path: path.clone(),
            event,
        },
        other => Error::Database(other.to_string()),
    }
}

impl QueueState {
    /// Lets other processes write, after a commit.
    async fn yield_file(&mut self, idle: bool, is_file: bool) {
        if idle {
            self.busy_since = None;
            return;
        }
        let since = *self.busy_since.get_or_insert_with(Instant::now);
        if is_file && since.elapsed() >= BUSY_LIMIT {
            tokio::time::sleep(YIELD_TIME).await;
            self.busy_since = None;
        }
    }
}

impl Batch {
    async fn begin(inner: &Inner) -> Result<Self, Error> {
        inner.connections.check_file()?;
        let mut attempts = 1;
        loop {
            match Self::try_begin(inner).await {
                Err(error) if must_retry(&error) && attempts < MAX_BEGIN_ATTEMPTS => attempts += 1,
                result => return Ok(result?),
            }
        }
    }

    async fn try_begin(inner: &Inner) -> Result<Self, DbErr> {
        let (db, state) =
            connection::begin_write(&inner.connections, |db| Box::pin(lock_feed_state(db))).await?;
        Ok(Self {
            db,
            state,
            members: 0,
            dirty: false,
            new_revision: false,
            news: News::default(),
            sealed: false,
            committed: watch::Sender::new(None),
        })
    }

    /// Runs a write in a savepoint. An outer error means that the whole transaction has failed.
    async fn run<T, F>(
        &mut self,
        inner: &Arc<Inner>,
        options: WriteOptions,
        change: F,
    ) -> Result<Result<Written<T>, Error>, Error>
    where
        F: for<'a> FnOnce(&'a mut WriteTx) -> BoxFuture<'a, Result<WriteOutcome<T>, Error>>,
    {
        self.members += 1;
        let savepoint = self.db.savepoint().await?;
        let WriteOptions {
            now,
            validate_only,
            by,
            ..
        } = options;
        let mut tx = WriteTx::begin(Arc::clone(inner), savepoint, self.state.clone(), now, by)?;
        let finished = match change(&mut tx).await {
            Ok(outcome) => tx.finish(outcome, validate_only).await,
            Err(error) => Err((error, tx.db)),
        };
        let flushed = match finished {
            Ok(write) => self.flush(&inner.write_queue, write).await,
            failed => failed,
        };
        match flushed {
            Ok(FinishedWrite {
                written,
                keep,
                news,
                db,
            }) => {
                match keep {
                    Some(state) => {
                        db.commit().await?;
                        self.dirty = true;
                        self.new_revision |= state.revision != self.state.revision;
                        self.news = self.news.and(news);
                        self.state = state;
                    }
                    None => db.rollback().await?,
                }
                Ok(Ok(written))
            }
            // SQLite ends the transaction itself, on a full disk for example. The rollback to the
            // savepoint then fails, and so does the whole transaction.
            Err((error, savepoint)) => match savepoint.rollback().await {
                Ok(()) => Ok(Err(error)),
                Err(_) => Err(error),
            },
        }
    }

    /// Runs the deferred statements of a write that is kept. A write alone in its transaction
    /// leaves them to COMMIT, whose error is then its own.
    async fn flush<T>(
        &mut self,
        queue: &WriteQueue,
        write: FinishedWrite<T>,
    ) -> Result<FinishedWrite<T>, (Error, Transaction)> {
        if write.keep.is_none() {
            return Ok(write);
        }
        self.sealed = self.members == 1 && queue.is_empty();
        if !self.sealed
            && let Err(error) = write.db.flush().await
        {
            return Err((error.into(), write.db));
        }
        Ok(write)
    }

    async fn commit(self, inner: &Inner) {
        let revision = self.state.revision;
        let committed = async {
            if !self.dirty {
                return self.db.rollback().await;
            }
            let hinted = self.new_revision || self.news.credentials;
            if hinted && inner.connections.shared_url().is_some() {
                hint::send(&self.db).await?;
            }
            self.db.commit().await
        };
        let committed = committed
            .await
            .map_err(Error::from)
            // Committed to a file that was deleted meanwhile is not on disk for long.
            .and_then(|()| inner.connections.check_file())
            .map_err(Arc::new);
        if committed.is_ok() {
            if self.new_revision {
                inner.advance(revision);
            }
            inner.publish(self.news);
        }
        self.committed.send_replace(Some(committed));
    }

    /// Fails all writes of the transaction; returns the error for the one that found the failure.
    async fn abort(self, error: Error) -> Error {
        // The connection is not used again, so the result of this rollback does not matter.
        let _ = self.db.rollback().await;
        let copy = copy_error(&error);
        self.committed.send_replace(Some(Err(Arc::new(error))));
        copy
    }
}
