//! The control plane of cless. Owns the state, serves the gRPC API, streams the route table.
//!
//! ```text
//!   grpc/ ──> store/ ──head moved──> feed/ ──route streams──> data planes
//!     │                                                          │
//!     └──────────────── nodes/ <── reports, acks ────────────────┘
//! ```
//!
//! [`start`] runs a control plane in any tokio runtime: in `cless-control-plane`, `cless dev` and
//! tests.

mod auth;
pub mod domain;
mod feed;
mod grpc;
mod nodes;
mod options;
pub mod program;
#[cfg(feature = "test-util")]
pub mod simulation;
pub mod store;
mod transport;

pub use auth::Error as AuthError;
pub use options::{Advertise, Options};

use auth::rotate::{Step, rotate_authority, rotate_master_key};
use auth::state_dir::StateDir;
use auth::{Auth, Ca};
use cless_proto::tls::Fingerprint;
use domain::{Domain, Timestamp};
use grpc::{Api, GrpcServer, Health};
use nodes::Nodes;
use nodes::planes::Planes;
use nodes::replicas::Replicas;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use store::{Store, StoreOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transport::Transport;

/// Grace period for running calls; process managers kill after 10 s or more.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Interval of the check that the database's file is still there.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The reason why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is reachable from other machines.
    #[error(
        "--listen {0} can be reached from other machines, and --insecure turns off encryption and \
         credentials: listen on 127.0.0.1, or remove --insecure"
    )]
    Exposed(SocketAddr),
    /// Keys or certificates cannot be used.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// `--domain` is invalid.
    #[error("--domain {domain}: {reason}")]
    Domain {
        /// The given value.
        domain: String,
        /// The violated rule.
        reason: domain::Reason,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {addr}: {source}; is another control plane running?")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The route table cannot be loaded.
    #[error("the route table cannot be read: {0}")]
    Feed(String),
}

/// A running control plane.
pub struct Running {
    server: GrpcServer,
    store: Store,
    auth: Auth,
    ca: Option<Arc<Ca>>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// Opens and migrates the database, then serves until [`Running::shutdown`].
///
/// # Errors
/// If the address cannot be bound, or is exposed with `insecure`, or the database, the state files
/// or the certificates are unusable.
pub async fn start(options: Options) -> Result<Running, Error> {
    let started = Instant::now();
    if options.insecure && options.is_exposed() {
        return Err(Error::Exposed(options.listen));
    }
    let domain = read_domain(&options.domain)?;
    let (transport, security) = Transport::prepare(&options)?;
    let (stop, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let server = grpc::listen(options.listen, security, stop)
        .await
        .map_err(|source| Error::Listen {
            addr: options.listen,
            source,
        })?;
    let opened = open(&options.database_url, domain, &shutdown).await;
    let (store, feed, publisher) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            server.close(Duration::ZERO).await;
            return Err(error);
        }
    };
    let protected = transport.protect(&store, &options, server.addr(), &shutdown);
    let (ca, certificates) = match protected.await {
        Ok(protected) => protected,
        Err(error) => {
            shutdown.cancel();
            server.close(Duration::ZERO).await;
            store.close().await?;
            return Err(error);
        }
    };
    let nodes = Nodes::new();
    let replicas = Replicas::new(
        nodes.clone(),
        store.clone(),
        grpc::convert::nodes::decode_report,
    );
    // Before serving, so that an immediate verification covers all nodes.
    if let Err(error) = replicas.refresh().await {
        tracing::warn!(%error, "the nodes of other control planes are not known yet");
    }
    let sharing = tokio::spawn(replicas.clone().run(shutdown.clone()));
    let planes = Planes::new(own_address(&options, server.addr()));
    let addresses = tokio::spawn(planes.clone().run(store.clone(), shutdown.clone()));
    let hints = tokio::spawn(store::follow_hints(store.clone(), shutdown.clone()));
    let reconciler = tokio::spawn(nodes::reconcile::run(
        nodes.clone(),
        store.clone(),
        shutdown.clone(),
    ));
    let (auth, authorizing) =
        match Auth::start(&store, options.insecure, options.audit_retention, &shutdown).await {
            Ok(started) => started,
            Err(error) => {
                shutdown.cancel();
                server.close(Duration::ZERO).await;
                store.close().await?;
                return Err(error.into());
            }
        };
    let revision = feed.revision();
    let api = Api {
        store: store.clone(),
        feed,
        nodes,
        replicas,
        planes,
        ca: ca.clone(),
        auth: auth.clone(),
        shutdown: shutdown.clone(),
    };
    server.open(api).await;
    let watching = tokio::spawn(watch_file(store.clone(), server.health(), shutdown.clone()));
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(listen = %server.addr(), revision, took_ms, "control plane serving");
    Ok(Running {
        server,
        store,
        auth,
        ca,
        shutdown,
        tasks: [publisher, reconciler, sharing, addresses, hints, watching]
            .into_iter()
            .chain(authorizing)
            .chain(certificates)
            .collect(),
    })
}

/// The address that nodes are told; `None`: without TLS, or unknown.
fn own_address(options: &Options, bound: SocketAddr) -> Option<String> {
    let advertised = options.advertised(bound).filter(|_| !options.insecure)?;
    Some(format!("https://{advertised}"))
}

/// Reports NOT_SERVING while the database's file is not the one that was opened.
async fn watch_file(store: Store, health: Health, shutdown: CancellationToken) {
    let mut serving = true;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(FILE_CHECK_INTERVAL) => {}
        }
        let checked = store.check_file();
        if serving == checked.is_ok() {
            continue;
        }
        serving = checked.is_ok();
        match checked {
            Ok(()) => tracing::info!("the database file is back"),
            Err(error) => tracing::error!(%error, "not serving"),
        }
        health.set(serving).await;
    }
}

async fn open(
    url: &str,
    domain: Domain,
    shutdown: &CancellationToken,
) -> Result<(Store, feed::Feed, JoinHandle<()>), Error> {
    let options = StoreOptions {
        serving: true,
        ..store_options(url, domain)
    };
    let store = Store::open(options).await?;
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
        serving: false,
    }
}

fn read_domain(domain: &str) -> Result<Domain, Error> {
    Domain::parse(domain).map_err(|reason| Error::Domain {
        domain: domain.to_owned(),
        reason,
    })
}

/// Marks the state as restored from a backup: mints a new epoch, so that nodes reload the whole
/// route table. Run it once after a restore, while the control plane is stopped. Returns the epoch.
///
/// # Errors
/// If the database is unusable.
pub async fn new_epoch(options: &Options) -> Result<String, Error> {
    let domain = read_domain(&options.domain)?;
    let store = Store::open(store_options(&options.database_url, domain)).await?;
    let head = store.new_epoch(Timestamp::from(SystemTime::now())).await;
    store.close().await?;
    Ok(head?.epoch)
}

/// Creates a token of an administrator that does not expire, and returns it. The control plane may be
/// running.
///
/// # Errors
/// If the database is unusable.
pub async fn new_admin_token(options: &Options) -> Result<String, Error> {
    let domain = read_domain(&options.domain)?;
    let store = Store::open(store_options(&options.database_url, domain)).await?;
    let token = auth::create_admin(&store, false, "made by token new").await;
    store.close().await?;
    Ok(token?.map(|token| token.reveal()).unwrap_or_default())
}

/// Writes a backup of the database to the new file `to`. The database may be in use.
///
/// # Errors
/// If the database is not a SQLite file or unreadable, or the backup cannot be written.
pub async fn backup(options: &Options, to: &Path) -> Result<(), Error> {
    Ok(store::backup(&options.database_url, to).await?)
}

/// Replaces the database by a backup, in a new epoch. An existing database is replaced only with
/// `force`, and kept under the returned name. No control plane may be using it. Returns the epoch.
///
/// # Errors
/// If the database is not a SQLite file or in use, or the backup is unusable.
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

/// Begins a change of the cluster's authority, or ends it with `finish`, which `force` allows before
/// all nodes may know the new one. Control planes may be running, and follow within seconds. Returns
/// the fingerprint of the authority that issues certificates.
///
/// # Errors
/// If the state files or the database are unusable, or the step is not possible now.
pub async fn rotate_ca(options: &Options, finish: bool, force: bool) -> Result<Fingerprint, Error> {
    let (store, dir) = open_trust(options).await?;
    let step = if finish {
        Step::Finish { force }
    } else {
        Step::Begin
    };
    let rotated = rotate_authority(&store, &dir, step, SystemTime::now().into()).await;
    store.close().await?;
    Ok(rotated?)
}

/// Replaces the master key. Control planes may be running; each other one needs a copy of the file
/// before its next start. Returns the id of the new key.
///
/// # Errors
/// If the state files or the database are unusable.
pub async fn rotate_keys(options: &Options) -> Result<String, Error> {
    let (store, dir) = open_trust(options).await?;
    let rotated = rotate_master_key(&store, &dir).await;
    store.close().await?;
    Ok(rotated?)
}

async fn open_trust(options: &Options) -> Result<(Store, StateDir), Error> {
    let domain = read_domain(&options.domain)?;
    let dir = StateDir::open(&options.data_dir()?)?;
    let store = Store::open(store_options(&options.database_url, domain)).await?;
    Ok((store, dir))
}

impl Running {
    /// The bound address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The fingerprint of the cluster's authority, which clients pin; `None` with `insecure`.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.ca.as_ref().map(|ca| ca.fingerprint())
    }

    /// The id of the cluster, part of the name that clients verify; `None` with `insecure`.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.ca.as_ref().map(|ca| ca.cluster())
    }

    /// Creates a token of an administrator that does not expire, and returns it. It is for the
    /// program that runs the control plane.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn new_admin_token(&self) -> Result<String, Error> {
        let token = auth::create_admin(&self.store, false, "made by cless dev").await?;
        // The caller uses it at once.
        self.auth.refresh(&self.store).await;
        Ok(token.map(|token| token.reveal()).unwrap_or_default())
    }

    /// Shuts down: ends streams with GoAway, gives running calls 5 s, closes the database.
    pub async fn shutdown(self) {
        // Streams first, because an open stream keeps the server running.
        self.shutdown.cancel();
        self.server.close(SHUTDOWN_GRACE).await;
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the control plane failed");
            }
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the database could not be closed");
        }
        tracing::info!("control plane stopped");
    }
}
