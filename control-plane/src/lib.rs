//! The control plane of cless: owns the state, serves the gRPC API, streams the route table.
//!
//! ```text
//!   grpc/ ──> store/ ──head moved──> feed/ ──route streams──> data planes
//!     │                                                          │
//!     └──────────────── nodes/ <── reports, acks ────────────────┘
//! ```
//!
//! [`start`] runs one inside any tokio runtime: the program `cless-control-plane`, `cless dev` and
//! tests all begin there.

pub mod domain;
mod feed;
mod grpc;
mod nodes;
mod options;
pub mod program;
#[cfg(feature = "test-util")]
pub mod simulation;
pub mod store;

pub use options::Options;

use domain::{Domain, Timestamp};
use grpc::{Listening, Plane};
use nodes::Nodes;
use nodes::replicas::Replicas;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use store::{Store, StoreOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A process manager waits 10 s or more before it kills.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Everybody who reaches the address would own the nodes.
    #[error(
        "--listen {0} can be reached from other machines, and nothing is encrypted or \
         authenticated yet: listen on 127.0.0.1, or pass --allow-insecure if the network is yours"
    )]
    Exposed(SocketAddr),
    /// `--domain` is no domain.
    #[error("--domain {domain}: {reason}")]
    Domain {
        /// As given.
        domain: String,
        /// Why not.
        reason: domain::Reason,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {addr}: {source}; is another control plane running?")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The route table cannot be read.
    #[error("the route table cannot be read: {0}")]
    Feed(String),
}

/// A control plane that answers.
pub struct Running {
    listening: Listening,
    store: Store,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// Opens the database, bringing it up to date, and serves until [`Running::shutdown`].
///
/// # Errors
/// If the address cannot be bound or is exposed without leave, or the database cannot be used.
pub async fn start(options: Options) -> Result<Running, Error> {
    let begun = Instant::now();
    if options.is_exposed() {
        if !options.allow_insecure {
            return Err(Error::Exposed(options.listen));
        }
        tracing::warn!(
            listen = %options.listen,
            "serving without encryption or authentication on an address others can reach"
        );
    }
    let domain = read_domain(&options.domain)?;
    let (stop, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let listening = grpc::listen(options.listen, stop)
        .await
        .map_err(|source| Error::Listen {
            addr: options.listen,
            source,
        })?;
    let opened = open(&options.database_url, domain, &shutdown).await;
    let (store, feed, publisher) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            listening.close(Duration::ZERO).await;
            return Err(error);
        }
    };
    let nodes = Nodes::new();
    let replicas = Replicas::new(
        nodes.clone(),
        store.clone(),
        grpc::convert::nodes::decode_report,
    );
    // Before it serves: a proof that is asked for at once asks all nodes.
    if let Err(error) = replicas.refresh().await {
        tracing::warn!(%error, "nodes of other control planes are not known yet");
    }
    let sharing = tokio::spawn(replicas.clone().run(shutdown.clone()));
    let hints = tokio::spawn(store::follow_hints(store.clone(), shutdown.clone()));
    let reconciler = tokio::spawn(nodes::reconcile::run(
        nodes.clone(),
        store.clone(),
        shutdown.clone(),
    ));
    let revision = feed.revision();
    let plane = Plane {
        store: store.clone(),
        feed,
        nodes,
        replicas,
        shutdown: shutdown.clone(),
    };
    listening.open(plane).await;
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(listen = %listening.addr(), revision, took_ms, "control plane serving");
    Ok(Running {
        listening,
        store,
        shutdown,
        tasks: vec![publisher, reconciler, sharing, hints],
    })
}

async fn open(
    url: &str,
    domain: Domain,
    shutdown: &CancellationToken,
) -> Result<(Store, feed::Feed, JoinHandle<()>), Error> {
    let store = Store::open(store_options(url, domain)).await?;
    match feed::start(store.clone(), shutdown.clone()).await {
        Ok((feed, publisher)) => Ok((store, feed, publisher)),
        Err(error) => {
            store.close().await?;
            Err(Error::Feed(error.to_string()))
        }
    }
}

fn store_options(url: &str, domain: Domain) -> StoreOptions {
    StoreOptions {
        url: url.to_owned(),
        domain,
        codec: Arc::new(grpc::convert::route::encode),
    }
}

fn read_domain(domain: &str) -> Result<Domain, Error> {
    Domain::parse(domain).map_err(|reason| Error::Domain {
        domain: domain.to_owned(),
        reason,
    })
}

/// Marks the state as restored from a backup, so that no data plane takes it for what it has seen
/// since. Run it once after a restore, while the control plane is stopped. Returns the new epoch.
///
/// # Errors
/// If the database cannot be used.
pub async fn new_epoch(options: &Options) -> Result<String, Error> {
    let domain = read_domain(&options.domain)?;
    let store = Store::open(store_options(&options.database_url, domain)).await?;
    let head = store.new_epoch(Timestamp::from(SystemTime::now())).await;
    store.close().await?;
    Ok(head?.epoch)
}

/// Writes a backup of the database to the file `to`, which must not exist. The database may be in use.
///
/// # Errors
/// If it is no SQLite file, cannot be read, or the backup cannot be written.
pub async fn backup(options: &Options, to: &Path) -> Result<(), Error> {
    Ok(store::backup(&options.database_url, to).await?)
}

/// Puts a backup in the place of the database, in a new epoch; with `force` in the place of one that
/// exists, which is kept under the name that is returned. No control plane may run on it.
///
/// # Errors
/// If it is no SQLite file, the backup cannot be used, or the database is in use.
pub async fn restore(
    options: &Options,
    from: &Path,
    force: bool,
) -> Result<(String, Option<PathBuf>), Error> {
    let domain = read_domain(&options.domain)?;
    let store = store_options(&options.database_url, domain);
    let restored = store::restore(store, from, force, SystemTime::now()).await?;
    Ok((restored.head.epoch, restored.replaced))
}

impl Running {
    /// Where it listens: the system's choice if port 0 was asked for.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listening.addr()
    }

    /// Ends it: open streams are told to go, running calls have 5 s, the database is closed.
    pub async fn shutdown(self) {
        // Streams first: an open one would hold the server up.
        self.shutdown.cancel();
        self.listening.close(STOP_WITHIN).await;
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the control plane failed");
            }
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the database did not close well");
        }
        tracing::info!("control plane stopped");
    }
}
