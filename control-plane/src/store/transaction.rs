//! A transaction that writes, or a savepoint in one: on the connection of a SQLite file ([`local`](super::local)), or on
//! one of a pool, which PostgreSQL and SQLite in memory have.

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, QueryTrait,
    Statement, TransactionTrait,
};

use super::local::LocalTx;

/// Rolled back when dropped.
#[derive(Debug)]
pub(super) enum Session {
    Local(LocalTx),
    Pooled(DatabaseTransaction),
}

impl Session {
    pub(super) async fn savepoint(&self) -> Result<Self, DbErr> {
        Ok(match self {
            Self::Local(local) => Self::Local(local.savepoint().await),
            Self::Pooled(pooled) => Self::Pooled(pooled.begin().await?),
        })
    }

    pub(super) async fn commit(self) -> Result<(), DbErr> {
        match self {
            Self::Local(local) => local.commit().await,
            Self::Pooled(pooled) => pooled.commit().await,
        }
    }

    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        match self {
            Self::Local(local) => local.rollback().await,
            Self::Pooled(pooled) => pooled.rollback().await,
        }
    }

    /// Runs a statement of which nothing but success is awaited: at the latest when it is flushed, and an error may be
    /// the next statement's.
    pub(super) async fn defer(&self, query: impl QueryTrait + Send) -> Result<(), DbErr> {
        let statement = query.build(self.get_database_backend());
        match self {
            Self::Local(local) => local.defer(statement).await,
            Self::Pooled(pooled) => pooled.execute_raw(statement).await.map(|_| ()),
        }
    }

    /// Runs what was deferred; to be awaited before a savepoint is kept.
    pub(super) async fn flush(&self) -> Result<(), DbErr> {
        match self {
            Self::Local(local) => local.flush().await,
            Self::Pooled(_) => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Session {
    fn get_database_backend(&self) -> DbBackend {
        match self {
            Self::Local(_) => DbBackend::Sqlite,
            Self::Pooled(pooled) => pooled.get_database_backend(),
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self {
            Self::Local(local) => local.execute(statement).await,
            Self::Pooled(pooled) => pooled.execute_raw(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match self {
            Self::Local(local) => local.execute_unprepared(sql).await,
            Self::Pooled(pooled) => pooled.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self {
            Self::Local(local) => Ok(local.query(statement).await?.into_iter().next()),
            Self::Pooled(pooled) => pooled.query_one_raw(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Self::Local(local) => local.query(statement).await,
            Self::Pooled(pooled) => pooled.query_all_raw(statement).await,
        }
    }
}
