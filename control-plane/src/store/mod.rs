//! The state of a cluster in a database: the only place that knows SQL.
//!
//! | module | what it does |
//! |---|---|
//! | `connection` | opens SQLite or PostgreSQL, begins transactions on them |
//! | `sqlite` | a database that is a file: its lock, its connections |
//! | `local` | the connection that writes to a file, and its thread |
//! | `session` | a transaction, wherever it is |
//! | `migrate`, `backup` | the schema brought up to date; backup and restore |
//! | `write` | the frame of every write: change, revision, log |
//! | `batch` | the queue of writers, and the commit that they share |
//! | `hint`, `node_status` | what control planes on one PostgreSQL tell each other |
//! | `explain` | what a database's error means, and the remedy |
//! | `table`, `digest` | the materialised routes and their digest |
//! | `feed` | what the feed reads: head, table, changes since |
//! | `services`, `versions`, `verify`, `traffic` | the resources |
//! | `hosts`, `requests` | unique hosts, repeated requests |
//! | `images` | the images that versions need |
//! | `entity`, `row` | tables, and rows to domain types |
//!
//! Laws: revisions count every committed write that readers of the feed may see, without gaps, in commit order; the
//! stored routes and their digest equal a rebuild from scratch; a write that was acknowledged is on disk, one that was
//! not is whole or absent; with `validate_only` nothing changes.
//!
//! Time comes in as an argument; only uids and epochs are drawn here.

mod backup;
mod batch;
mod connection;
mod digest;
mod entity;
mod error;
mod explain;
mod feed;
mod hint;
mod hosts;
mod images;
mod local;
mod migrate;
mod node_status;
mod open;
mod requests;
mod row;
mod services;
mod session;
mod snapshot;
mod sqlite;
mod table;
mod traffic;
mod types;
mod verify;
mod versions;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::domain::{Domain, Timestamp};

pub use backup::{Restored, backup, restore};
pub use error::{Error, Precondition};
pub use feed::FeedSource;
pub(crate) use hint::follow as follow_hints;
pub use images::RetainedImage;
pub(crate) use node_status::Said;
pub use types::{
    Changes, Head, NewService, Page, RouteChange, RouteCodec, RouteOp, Since, StoreOptions,
    StoredRoute, WriteOptions, Written,
};

use connection::Connections;

/// A handle on the state; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Connections,
    domain: Domain,
    codec: RouteCodec,
    head: watch::Sender<i64>,
    writers: batch::Writers,
}

impl Inner {
    /// Tells subscribers of a revision; they never hear of an older one after a newer.
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

impl Store {
    /// Opens the database and brings its schema up to date; makes it if the URL says so.
    ///
    /// Routes that are not as this program would write them (after an upgrade, or with another domain) are built anew in
    /// a new epoch.
    ///
    /// # Errors
    /// [`Error::Open`] with what to do, [`Error::DatabaseNewer`], [`Error::HostTaken`] if hosts collide in a new domain.
    pub async fn open(options: StoreOptions) -> Result<Self, Error> {
        let store = Self {
            inner: Arc::new(Inner {
                connections: open::open(&options.url).await?,
                domain: options.domain,
                codec: options.codec,
                head: watch::Sender::new(0),
                writers: batch::Writers::default(),
            }),
        };
        feed::prepare(&store, Timestamp::from(SystemTime::now())).await?;
        Ok(store)
    }

    /// Ends all connections after what is under way.
    ///
    /// # Errors
    /// If the database cannot be closed in order; what was acknowledged is safe all the same.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.connections.reader.close_by_ref().await?;
        if let Some(local) = &self.inner.connections.local {
            local.close().await?;
        }
        self.inner.connections.writer.close_by_ref().await?;
        Ok(())
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.inner.connections.reader.ping().await?;
        Ok(())
    }

    /// What default and tag hosts end with.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.inner.domain
    }
}
