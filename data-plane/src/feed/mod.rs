//! Client of the route feed. It keeps this node's route table current and reports what the node
//! runs.
//!
//! ```text
//! BOOT -> disk cache -> CONNECT -> stage -> verify count and digest -> swap -> ACK -> LIVE
//!                          ^                  |  unverifiable: NACK                     |
//!                          +---- backoff -----+---- silence, lifetime, GoAway, error ---+
//! ```
//!
//! Invariants: a table is replaced only by a complete, verified table. A control plane failure
//! never removes it: it keeps serving and survives a restart on disk.
//!
//! [`staging`] and [`session`] are pure decision logic; [`client`], [`control`], [`report`] and
//! [`cache`] perform the I/O. Protobuf types stop at [`control`], [`decode`], [`wire`], [`report`]
//! and [`retained`].

mod backoff;
mod cache;
mod client;
mod control;
mod decode;
mod epochs;
#[cfg(test)]
mod fuzz;
mod identity;
mod message;
mod options;
mod report;
mod retained;
mod session;
mod staging;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

pub use identity::Error as IdentityError;
pub use options::{FeedOptions, Timing};
pub use report::ReportSource;
pub use retained::{Error as RetainedError, RetainedImage};

use crate::route::Table;
use arc_swap::{ArcSwap, Guard};
use cache::{CacheWriter, Loaded};
use futures_util::future::BoxFuture;
use identity::Identity;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};
use tracing::Instrument as _;

/// State of the feed.
#[derive(Clone, Debug, Default)]
pub struct FeedStatus {
    /// Whether a stream to a control plane is open and has delivered a message.
    pub connected: bool,
    /// Whether a control plane has delivered or confirmed the table since this process started.
    pub synced: bool,
    /// Whether a table is available, including one loaded from disk.
    pub has_table: bool,
    /// Time of the last message from a control plane; `None` before the first.
    pub last_contact: Option<Instant>,
    /// Newest revision announced by the control plane; until then, the revision loaded from disk.
    pub head: i64,
}

/// Reasons why the feed cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of addresses is empty.
    #[error("no control plane address is given: set --control-plane")]
    NoControlPlane,
    /// An address is not a valid endpoint.
    #[error("the control plane's address {uri} cannot be used: {source}")]
    Address {
        /// The address as given.
        uri: http::Uri,
        /// The cause.
        source: tonic::transport::Error,
    },
    /// An address lacks a scheme or a host.
    #[error("the control plane's address {0} is not of the form http://HOST:PORT")]
    AddressForm(http::Uri),
    /// The cache folder is unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The table on disk can be neither read nor moved aside.
    #[error("the route table in the cache folder {folder} cannot be read: {source}")]
    Cache {
        /// The cache folder.
        folder: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// State shared by the tasks of the feed.
#[derive(Debug)]
struct FeedState {
    node: wire::NodeInfo,
    timing: Timing,
    table: ArcSwap<Table>,
    /// Number of table replacements since the start.
    changed: watch::Sender<u64>,
    status: watch::Sender<FeedStatus>,
}

impl FeedState {
    fn install(&self, table: Arc<Table>) {
        self.table.store(table);
        self.changed.send_modify(|swaps| *swaps += 1);
        self.status.send_modify(|status| {
            status.synced = true;
            status.has_table = true;
        });
    }
}

/// Handle to a running feed. Clones share it. It ends with [`Feed::shutdown`] or when the last
/// clone is dropped.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<FeedState>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    /// Held until shutdown, which releases the folder lock for the next process.
    identity: Arc<Mutex<Option<Arc<Identity>>>>,
    /// Connection of the current stream; `None` while no control plane responds.
    connection: watch::Receiver<Option<Channel>>,
    _cancel_on_drop: Arc<DropGuard>,
}

type Connector = Arc<
    dyn Fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> + Send + Sync,
>;

/// The nondeterministic inputs of the feed: the network and randomness.
pub struct Environment {
    connect: Connector,
    rng: SmallRng,
}

impl Environment {
    /// TCP, and randomness from the operating system.
    fn system() -> Self {
        Self {
            connect: Arc::new(|endpoint| Box::pin(async move { endpoint.connect().await })),
            rng: SmallRng::from_rng(&mut rand::rng()),
        }
    }

    /// A simulated network and a seeded generator.
    #[cfg(feature = "test-util")]
    pub fn simulated(
        connect: impl Fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>>
        + Send
        + Sync
        + 'static,
        rng: SmallRng,
    ) -> Self {
        Self {
            connect: Arc::new(connect),
            rng,
        }
    }
}

/// Locks the cache folder, loads the table from it and starts following the feed.
///
/// Returns when the table on disk is loaded, without waiting for a control plane.
///
/// # Errors
/// If an address or the cache folder is unusable. A damaged table on disk is moved aside instead.
pub async fn start(options: FeedOptions, source: Arc<dyn ReportSource>) -> Result<Feed, Error> {
    start_in(Environment::system(), options, source).await
}

/// [`start`] in the given environment.
///
/// # Errors
/// See [`start`].
pub async fn start_in(
    environment: Environment,
    options: FeedOptions,
    source: Arc<dyn ReportSource>,
) -> Result<Feed, Error> {
    let Environment { connect, mut rng } = environment;
    let FeedOptions {
        control_planes,
        node_name,
        cache_dir,
        timing,
    } = options;
    let endpoints = control_planes
        .into_iter()
        .map(|uri| endpoint(uri, &timing))
        .collect::<Result<Vec<_>, _>>()?;
    if endpoints.is_empty() {
        return Err(Error::NoControlPlane);
    }
    let identity = Arc::new(Identity::claim(&cache_dir)?);
    let folder = cache_dir.clone();
    let table = match tokio::task::spawn_blocking(move || cache::load(&folder)).await {
        Ok(Ok(loaded)) => cached(loaded),
        Ok(Err(source)) => {
            return Err(Error::Cache {
                folder: cache_dir,
                source,
            });
        }
        Err(panic) => {
            return Err(Error::Cache {
                folder: cache_dir,
                source: std::io::Error::other(panic),
            });
        }
    };
    let status = FeedStatus {
        has_table: !table.is_initial(),
        head: table.cursor().revision,
        ..FeedStatus::default()
    };
    let shared = Arc::new(FeedState {
        node: wire::NodeInfo {
            id: identity.id.to_string(),
            name: node_name,
            boot_id: uuid::Builder::from_random_bytes(rng.random())
                .into_uuid()
                .to_string(),
        },
        timing,
        table: ArcSwap::from_pointee(table),
        changed: watch::Sender::new(0),
        status: watch::Sender::new(status),
    });

    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (sender, connection) = watch::channel(None);
    let reports = report::run(
        shared.clone(),
        source.clone(),
        connection.clone(),
        SmallRng::from_rng(&mut rng),
        cancel.clone(),
    );
    let span = tracing::error_span!("report", node = shared.node.name);
    // The stream stays open for the last report: a report counts only while it is.
    let reported = CancellationToken::new();
    let last_report = reported.clone().drop_guard();
    tasks.spawn(
        async move {
            let _last_report = last_report;
            reports.await;
        }
        .instrument(span),
    );
    for endpoint in &endpoints {
        let control = control::Control {
            shared: shared.clone(),
            source: source.clone(),
            endpoint: endpoint.clone(),
            connect: connect.clone(),
            rng: SmallRng::from_rng(&mut rng),
        };
        let span = tracing::error_span!(
            "control",
            node = shared.node.name,
            control_plane = %endpoint.uri(),
        );
        tasks.spawn(control.run(cancel.clone()).instrument(span));
    }
    let client = client::Client::new(shared.clone(), endpoints, connect, sender, rng);
    tasks.spawn(client.run(reported));
    tasks.spawn(CacheWriter::new(cache_dir, identity.clone(), shared.clone()).run(cancel.clone()));
    tasks.close();
    Ok(Feed {
        connection,
        shared,
        tasks,
        identity: Arc::new(Mutex::new(Some(identity))),
        _cancel_on_drop: Arc::new(cancel.clone().drop_guard()),
        cancel,
    })
}

fn endpoint(uri: http::Uri, timing: &Timing) -> Result<Endpoint, Error> {
    if uri.scheme().is_none() || uri.authority().is_none() {
        return Err(Error::AddressForm(uri));
    }
    let endpoint = Endpoint::new(uri.clone()).map_err(|source| Error::Address { uri, source })?;
    Ok(endpoint
        .connect_timeout(timing.first_message)
        .tcp_nodelay(true)
        // HTTP/2 pings detect a vanished peer before the silence timeout expires.
        .http2_keep_alive_interval(timing.silence / 3)
        .keep_alive_timeout(timing.silence / 3)
        .keep_alive_while_idle(true))
}

fn cached(loaded: Loaded) -> Table {
    match loaded {
        Loaded::Nothing => Table::default(),
        Loaded::Table(table) => {
            tracing::info!(
                feed.cluster = %table.cluster(),
                feed.revision = table.cursor().revision,
                feed.routes = table.len(),
                "serving the route table from disk until a control plane responds"
            );
            table
        }
        Loaded::SetAside { path, error } => {
            tracing::warn!(
                feed.cache.path = %path.display(),
                %error,
                "the route table on disk is unusable; it was moved aside and is synced again"
            );
            Table::default()
        }
    }
}

impl Feed {
    /// The current table, borrowed for a short read.
    #[inline]
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.shared.table.load()
    }

    /// The current table, for long-term use.
    pub fn load_full(&self) -> Arc<Table> {
        self.shared.table.load_full()
    }

    /// A receiver that changes with each replacement of the table.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// A receiver of the feed's state.
    pub fn status(&self) -> watch::Receiver<FeedStatus> {
        self.shared.status.subscribe()
    }

    /// The random id stored in the cache folder.
    pub fn node_id(&self) -> &str {
        &self.shared.node.id
    }

    /// The name of the node.
    pub fn node_name(&self) -> &str {
        &self.shared.node.name
    }

    /// An id drawn at each start of the process.
    pub fn boot_id(&self) -> &str {
        &self.shared.node.boot_id
    }

    /// Sends a final report if a control plane is connected, writes the table to disk, ends the
    /// tasks and unlocks the cache folder.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tasks.wait().await;
        drop(self.identity.lock().take());
    }
}
