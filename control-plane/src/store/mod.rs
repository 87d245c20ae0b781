//! The database of a cluster; the only code that knows SQL.
//!
//! | module | purpose |
//! |---|---|
//! | `open`, `connection` | opens SQLite or PostgreSQL; connections and transactions |
//! | `sqlite` | a database file: URL, lock, settings |
//! | `file_guard` | notices that the file is deleted or replaced |
//! | `file_writer` | the connection that writes to a file, and its thread |
//! | `transaction` | a write transaction, of either kind |
//! | `migrate`, `snapshot`, `backup` | schema migrations; consistent copies; backup and restore |
//! | `write` | steps common to all writes: change, revision, change log |
//! | `write_queue` | group commit |
//! | `hint`, `node_status`, `planes` | what control planes on one PostgreSQL share |
//! | `explain` | database errors and their remedies |
//! | `table`, `digest` | the stored routes and their digest |
//! | `feed` | queries of the feed: head, table, changes since |
//! | `services`, `versions`, `verifications`, `traffic` | the resources |
//! | `tokens`, `credentials`, `audit` | tokens, the credentials of all callers, the audit log |
//! | `hosts`, `idempotency` | unique hosts, repeated requests |
//! | `images` | the images that versions need |
//! | `trust`, `enrollments` | the cluster's authority; join tokens and enrolled nodes |
//! | `entity`, `row` | tables; conversion of rows to domain types |
//!
//! Invariants: every committed write that the feed carries makes one revision, without gaps, in
//! commit order; stored routes and digest equal a rebuild from scratch; an acknowledged write is on
//! disk, any other is there completely or not at all; `validate_only` changes nothing.
//!
//! Callers pass the time; uids and epochs are generated here.

mod audit;
mod audited_change;
mod backup;
mod connection;
mod credentials;
mod digest;
mod enrollments;
mod entity;
mod error;
mod explain;
mod feed;
mod file_guard;
mod file_writer;
mod hint;
mod hosts;
mod idempotency;
mod images;
mod migrate;
mod node_status;
mod open;
mod planes;
mod row;
mod services;
mod snapshot;
mod sqlite;
mod table;
mod tokens;
mod traffic;
mod transaction;
mod trust;
mod types;
mod verifications;
mod versions;
mod write;
mod write_queue;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use sea_orm::DatabaseConnection;
use tokio::sync::watch;

use crate::domain::{Domain, Timestamp};

pub use audit::{AuditEntry, AuditQuery, Refusal};
pub use backup::{Restored, backup, restore};
pub use credentials::{CredentialRows, EnrolledNode};
pub use enrollments::{NewJoinToken, Renewal, TokenProof};
pub use error::{Error, Precondition};
pub use feed::FeedSource;
pub(crate) use hint::follow as follow_hints;
pub use images::RetainedImage;
pub(crate) use node_status::PeerNodeStatus;
pub use tokens::{NewToken, Token};
pub(crate) use trust::StoredAuthority;
pub use types::{
    Changes, Head, NewService, Page, Resolution, RouteChange, RouteCodec, RouteOp, Since,
    StoreOptions, StoredRoute, WriteOptions, Written,
};

pub(crate) use connection::file_of as database_file;

use connection::Connections;

/// A handle on the database; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Connections,
    domain: Domain,
    codec: RouteCodec,
    head: watch::Sender<i64>,
    /// Counts the commits that changed credentials.
    credentials: watch::Sender<u64>,
    /// Counts the commits that wrote to the audit log.
    audit: watch::Sender<u64>,
    write_queue: write_queue::WriteQueue,
}

impl Inner {
    /// Publishes a revision to subscribers, unless they know a newer one.
    fn advance(&self, revision: i64) {
        self.head.send_if_modified(|head| {
            let newer = revision > *head;
            if newer {
                *head = revision;
            }
            newer
        });
    }
}

impl Inner {
    /// Tells subscribers what a commit has changed beside the route table.
    fn publish(&self, news: write::News) {
        if news.credentials {
            self.credentials.send_modify(|commits| *commits += 1);
        }
        if news.audit {
            self.audit.send_modify(|commits| *commits += 1);
        }
    }
}

impl Store {
    /// Opens the database, creates it if the URL says so, and migrates its schema.
    ///
    /// Starts a new epoch if the stored routes differ from those that this program would store
    /// (after an upgrade, or for another domain).
    ///
    /// # Errors
    /// [`Error::Open`] with the remedy, [`Error::DatabaseNewer`], [`Error::HostTaken`] if hosts
    /// collide in a new domain.
    pub async fn open(options: StoreOptions) -> Result<Self, Error> {
        let store = Self {
            inner: Arc::new(Inner {
                connections: open::open(&options.url, options.serving).await?,
                domain: options.domain,
                codec: options.codec,
                head: watch::Sender::new(0),
                credentials: watch::Sender::default(),
                audit: watch::Sender::default(),
                write_queue: write_queue::WriteQueue::default(),
            }),
        };
        feed::initialize(&store, Timestamp::from(SystemTime::now())).await?;
        store.warn_of_foreign_hosts().await?;
        Ok(store)
    }

    /// Closes all connections after the statements that run.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.connections.reader.close_by_ref().await?;
        if let Some(writer) = &self.inner.connections.file_writer {
            writer.close().await?;
        }
        self.inner.connections.writer.close_by_ref().await?;
        // Clones of the handle may live on, in connections that are being cut.
        self.inner.connections.serve_lock.lock().take();
        Ok(())
    }

    /// Checks that the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.reader().ping().await?;
        Ok(())
    }

    /// Checks that the files of a SQLite database are those that were opened.
    ///
    /// # Errors
    /// [`Error::FileGone`].
    pub fn check_file(&self) -> Result<(), Error> {
        self.inner.connections.check_file()
    }

    fn reader(&self) -> &DatabaseConnection {
        &self.inner.connections.reader
    }

    /// The domain of default and tag hosts.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.inner.domain
    }
}
