//! A write transaction, or a savepoint in one: on the connection of a file
//! ([`file_writer`](super::file_writer)), or on a pooled connection (PostgreSQL, SQLite in memory).

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, QueryTrait,
    Statement, TransactionTrait,
};

use super::file_writer::FileTx;

/// Dropping it rolls it back.
#[derive(Debug)]
pub(super) enum Transaction {
    File(FileTx),
    Pooled(DatabaseTransaction),
}

impl Transaction {
    pub(super) async fn savepoint(&self) -> Result<Self, DbErr> {
        Ok(match self {
            Self::File(file) => Self::File(file.savepoint().await),
            Self::Pooled(pooled) => Self::Pooled(pooled.begin().await?),
        })
    }

    pub(super) async fn commit(self) -> Result<(), DbErr> {
        match self {
            Self::File(file) => file.commit().await,
            Self::Pooled(pooled) => pooled.commit().await,
        }
    }

    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        match self {
            Self::File(file) => file.rollback().await,
            Self::Pooled(pooled) => pooled.rollback().await,
        }
    }

    /// Runs a statement without waiting for its result. It runs at the latest on
    /// [`flush`](Self::flush); the next statement may return its error.
    pub(super) async fn defer(&self, query: impl QueryTrait + Send) -> Result<(), DbErr> {
        self.defer_statement(query.build(self.get_database_backend()))
            .await
    }

    /// See [`defer`](Self::defer).
    pub(super) async fn defer_statement(&self, statement: Statement) -> Result<(), DbErr> {
        match self {
            Self::File(file) => file.defer(statement).await,
            Self::Pooled(pooled) => pooled.execute_raw(statement).await.map(|_| ()),
        }
    }

    /// Runs deferred statements. Required before a savepoint is committed.
    pub(super) async fn flush(&self) -> Result<(), DbErr> {
        match self {
            Self::File(file) => file.flush().await,
            Self::Pooled(_) => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        match self {
            Self::File(_) => DbBackend::Sqlite,
            Self::Pooled(pooled) => pooled.get_database_backend(),
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self {
            Self::File(file) => file.execute(statement).await,
            Self::Pooled(pooled) => pooled.execute_raw(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match self {
            Self::File(file) => file.execute_unprepared(sql).await,
            Self::Pooled(pooled) => pooled.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self {
            Self::File(file) => Ok(file.query(statement).await?.into_iter().next()),
            Self::Pooled(pooled) => pooled.query_one_raw(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Self::File(file) => file.query(statement).await,
            Self::Pooled(pooled) => pooled.query_all_raw(statement).await,
        }
    }
}
