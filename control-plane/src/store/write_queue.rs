//! Many writes, one commit.
//!
//! A commit costs a flush to disk, far more than the statements of a write. So writes that wait for their turn join the
//! transaction of the one before them, each in a savepoint of its own, and the last one commits for all:
//!
//! ```text
//!   write 1 ──commit─────────▶ answer      (alone: nobody waited)
//!   write 2 ········▶ ──┐
//!   write 3 ········▶   ├─ one transaction ──commit──▶ answers 2, 3, 4
//!   write 4 ········▶ ──┘
//! ```
//!
//! Laws: no write is answered, be it with a refusal, before the commit of everything it saw; one that fails leaves the
//! others as they are; where the transaction itself is lost, all of its writes are refused and none of them is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sea_orm::DbErr;
use tokio::sync::{Mutex, watch};

use crate::domain::Timestamp;

use super::entity::feed_state;
use super::explain::is_to_be_repeated;
use super::session::Session;
use super::types::Written;
use super::write::{Done, Outcome, WriteTx, lock_state};
use super::{Error, Inner, Store, connection, hint};

/// Writes in one commit: the first waits for the statements of the rest, some 20 ms.
const MEMBERS_MOST: usize = 128;
/// Tries to begin a transaction that the server wants repeated.
const TRIES: u32 = 5;
/// A process that has written for this long without a pause …
const TURN: Duration = Duration::from_millis(100);
/// … leaves the file to another process for this long, for SQLite's lock has no queue.
const PAUSE: Duration = Duration::from_millis(2);

/// The queue of writers.
#[derive(Debug, Default)]
pub(super) struct Writers {
    turn: Mutex<Turn>,
    waiting: AtomicUsize,
}

impl Writers {
    /// Whether nobody waits for a turn.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }
}

/// Held by the writer whose turn it is.
#[derive(Debug, Default)]
struct Turn {
    /// The transaction that the writer before left open.
    batch: Option<Batch>,
    /// Since when there was always a writer.
    busy_since: Option<Instant>,
}

#[derive(Debug)]
struct Batch {
    db: Session,
    state: feed_state::Model,
    members: usize,
    /// Whether there is anything to commit.
    dirty: bool,
    /// Whether a revision was made.
    stepped: bool,
    /// Whether statements wait for COMMIT, so that nobody is to join.
    open: bool,
    outcome: watch::Sender<Option<Result<(), Arc<Error>>>>,
}

/// What a write came to, before its savepoint ends; an error comes with the savepoint.
type Ended<T> = Result<Done<T>, (Error, Session)>;

impl Store {
    /// Runs one write in its frame, in a task of its own: on the thread of the connection if that has one.
    pub(super) async fn write<T, F>(
        &self,
        now: Timestamp,
        validate_only: bool,
        change: F,
    ) -> Result<Written<T>, Error>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut WriteTx) -> BoxFuture<'a, Result<Outcome<T>, Error>>
            + Send
            + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let change = move |mut tx: WriteTx| {
            Box::pin(async move {
                tx.now = now;
                match change(&mut tx).await {
                    Ok(outcome) => tx.finish(outcome, validate_only).await,
                    Err(error) => Err((error, tx.db)),
                }
            }) as BoxFuture<'static, _>
        };
        // It counts from here: the write before it, which may run before this task does, is not to commit without it.
        inner.writers.waiting.fetch_add(1, Ordering::AcqRel);
        let task = match inner.connections.local.clone() {
            Some(local) => local.runtime().spawn(write(inner, change)),
            None => tokio::spawn(write(inner, change)),
        };
        task.await.map_err(|error| {
            if error.is_panic() {
                Error::Database(format!("a write did not end well: {error}"))
            } else {
                Error::Unavailable("the program is shutting down".to_owned())
            }
        })?
    }
}

/// Waits for its turn, writes, and waits for the commit.
async fn write<T, F>(inner: Arc<Inner>, change: F) -> Result<Written<T>, Error>
where
    T: Send + 'static,
    F: FnOnce(WriteTx) -> BoxFuture<'static, Ended<T>> + Send,
{
    let writers = &inner.writers;
    let mut turn = writers.turn.lock().await;
    writers.waiting.fetch_sub(1, Ordering::AcqRel);
    let mut batch = match turn.batch.take() {
        Some(batch) => batch,
        None => Batch::begin(&inner).await?,
    };
    let mut outcome = batch.outcome.subscribe();
    let answer = match batch.run(&inner, change).await {
        Ok(answer) => answer,
        Err(lost) => return Err(batch.lose(lost).await),
    };
    let last = writers.is_idle();
    if last || batch.open || batch.members >= MEMBERS_MOST {
        batch.commit(&inner).await;
        turn.pause(last, inner.connections.is_file()).await;
    } else {
        turn.batch = Some(batch);
    }
    drop(turn);
    match outcome.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(Err(error))) => Err(repeated(error)),
        Ok(_) => answer,
        Err(_closed) => Err(Error::Unavailable(
            "a write that shared its transaction did not end well".to_owned(),
        )),
    }
}

/// The error of a transaction, to each of its writes.
fn repeated(error: &Error) -> Error {
    match error {
        Error::Unavailable(text) => Error::Unavailable(text.clone()),
        other => Error::Database(other.to_string()),
    }
}

impl Turn {
    /// After a commit.
    async fn pause(&mut self, idle: bool, shared: bool) {
        if idle {
            self.busy_since = None;
            return;
        }
        let since = *self.busy_since.get_or_insert_with(Instant::now);
        if shared && since.elapsed() >= TURN {
            tokio::time::sleep(PAUSE).await;
            self.busy_since = None;
        }
    }
}

impl Batch {
    async fn begin(inner: &Inner) -> Result<Self, Error> {
        let mut tries = 1;
        loop {
            match Self::try_begin(inner).await {
                Err(error) if is_to_be_repeated(&error) && tries < TRIES => tries += 1,
                begun => return Ok(begun?),
            }
        }
    }

    async fn try_begin(inner: &Inner) -> Result<Self, DbErr> {
        let (db, state) =
            connection::begin_write(&inner.connections, |db| Box::pin(lock_state(db))).await?;
        Ok(Self {
            db,
            state,
            members: 0,
            dirty: false,
            stepped: false,
            open: false,
            outcome: watch::Sender::new(None),
        })
    }

    /// Runs a write in a savepoint. The outer error is of the transaction, which is lost.
    async fn run<T, F>(
        &mut self,
        inner: &Arc<Inner>,
        change: F,
    ) -> Result<Result<Written<T>, Error>, Error>
    where
        F: FnOnce(WriteTx) -> BoxFuture<'static, Ended<T>>,
    {
        self.members += 1;
        let savepoint = self.db.savepoint().await?;
        let tx = WriteTx::begin(Arc::clone(inner), savepoint, self.state.clone())?;
        let ended = match change(tx).await {
            Ok(done) => self.flush(&inner.writers, done).await,
            refused => refused,
        };
        match ended {
            Ok(Done { written, keep, db }) => {
                match keep {
                    Some(state) => {
                        db.commit().await?;
                        self.dirty = true;
                        self.stepped |= state.revision != self.state.revision;
                        self.state = state;
                    }
                    None => db.rollback().await?,
                }
                Ok(Ok(written))
            }
            // Where the database has ended the transaction by itself (SQLite does when the disk is full) there is no
            // savepoint to go back to, and that tells.
            Err((error, savepoint)) => match savepoint.rollback().await {
                Ok(()) => Ok(Err(error)),
                Err(_lost) => Err(error),
            },
        }
    }

    /// Runs the deferred statements of a write that is to be kept, unless it is alone: then they go along with COMMIT,
    /// where an error is its own.
    async fn flush<T>(&mut self, writers: &Writers, done: Done<T>) -> Ended<T> {
        if done.keep.is_none() {
            return Ok(done);
        }
        self.open = self.members == 1 && writers.is_idle();
        if !self.open
            && let Err(error) = done.db.flush().await
        {
            return Err((error.into(), done.db));
        }
        Ok(done)
    }

    async fn commit(self, inner: &Inner) {
        let revision = self.state.revision;
        let committed = async {
            if !self.dirty {
                return self.db.rollback().await;
            }
            if self.stepped && inner.connections.shared_url().is_some() {
                hint::send(&self.db).await?;
            }
            self.db.commit().await
        };
        let committed = committed
            .await
            .map_err(|error| Arc::new(Error::from(error)));
        if committed.is_ok() && self.stepped {
            inner.advance(revision);
        }
        self.outcome.send_replace(Some(committed));
    }

    /// Gives up the transaction; returns what to tell the writer that found it lost.
    async fn lose(self, error: Error) -> Error {
        // An error here is one more sign of what is known; the connection is not used again.
        let _ = self.db.rollback().await;
        let told = repeated(&error);
        self.outcome.send_replace(Some(Err(Arc::new(error))));
        told
    }
}
