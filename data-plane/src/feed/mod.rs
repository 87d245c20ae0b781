//! The client of the route feed: keeps this node's route table at the control plane's newest, and
//! reports what the node runs.
//!
//! ```text
//! BOOT -> disk cache -> CONNECT -> SYNC into staging -> verify count and digest -> swap -> ACK -> LIVE
//!                          ^                 |  a table that cannot be verified: NACK         |
//!                          +--- back-off ----+---------- silence, age, GoAway, error ---------+
//! ```
//!
//! The table that serves is replaced by a whole, verified one or not at all, and nothing that
//! befalls the control plane takes it away: it serves on, is on disk, and is there after a restart.
//!
//! [`staging`] and [`session`] decide and are pure; [`client`], [`report`] and [`cache`] do.
//! Protobuf stops at [`decode`], [`wire`], [`report`] and [`retained`].

mod backoff;
mod cache;
mod client;
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
pub use retained::Error as RetainedError;

use crate::route::Table;
use arc_swap::{ArcSwap, Guard};
use cache::{Keeper, Loaded};
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

/// Where the feed stands.
#[derive(Clone, Debug, Default)]
pub struct FeedStatus {
    /// A control plane answers.
    pub connected: bool,
    /// In this run a control plane brought the table, or said that the one from disk is its newest.
    pub synced: bool,
    /// There is a table, be it from disk.
    pub has_table: bool,
    /// When a control plane was last heard.
    pub last_contact: Option<Instant>,
    /// The newest revision that the control plane is known to have.
    pub head: i64,
}

/// Why the feed cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address was given.
    #[error("no control plane is given")]
    NoControlPlane,
    /// An address cannot be used.
    #[error("the control plane's address {uri} cannot be used: {source}")]
    Address {
        /// As given.
        uri: http::Uri,
        /// Why.
        source: tonic::transport::Error,
    },
    /// It has no scheme or no host.
    #[error("the control plane's address {0} is not of the form http://HOST:PORT")]
    AddressForm(http::Uri),
    /// The cache folder cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The table on disk cannot be read, or set aside.
    #[error("the route table in the cache folder {folder} cannot be read: {source}")]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What the feed's tasks share.
#[derive(Debug)]
struct Shared {
    node: wire::Node,
    timing: Timing,
    table: ArcSwap<Table>,
    /// How many times the table was replaced.
    changed: watch::Sender<u64>,
    status: watch::Sender<FeedStatus>,
}

impl Shared {
    fn install(&self, table: Arc<Table>) {
        self.table.store(table);
        self.changed.send_modify(|swaps| *swaps += 1);
        self.status.send_modify(|status| {
            status.synced = true;
            status.has_table = true;
        });
    }
}

/// A running feed. Clones share it; it ends with [`Feed::shutdown`] or with the last clone.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    /// Held until shutdown, then the folder is free for the next process.
    identity: Arc<Mutex<Option<Arc<Identity>>>>,
    /// The connection of the stream, while it answers.
    link: watch::Receiver<Option<Channel>>,
    _ends_with_the_last: Arc<DropGuard>,
}

/// How a control plane is connected to.
type Dial = Arc<
    dyn Fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> + Send + Sync,
>;

/// What is beyond the feed: the network, and chance.
pub struct Surroundings {
    dial: Dial,
    rng: SmallRng,
}

impl Surroundings {
    /// TCP, and the operating system's randomness.
    fn real() -> Self {
        Self {
            dial: Arc::new(|endpoint| Box::pin(async move { endpoint.connect().await })),
            rng: SmallRng::from_rng(&mut rand::rng()),
        }
    }

    /// Any network, and a generator that can be seeded: for simulations.
    #[cfg(feature = "test-util")]
    pub fn simulated(
        dial: impl Fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>>
        + Send
        + Sync
        + 'static,
        rng: SmallRng,
    ) -> Self {
        Self {
            dial: Arc::new(dial),
            rng,
        }
    }
}

/// Claims the cache folder, loads the table from it, and follows the feed from now on.
///
/// Returns once what is on disk is loaded; it does not wait for a control plane.
///
/// # Errors
/// If an address or the cache folder cannot be used. A damaged table on disk is set aside.
pub async fn start(options: FeedOptions, source: Arc<dyn ReportSource>) -> Result<Feed, Error> {
    start_in(Surroundings::real(), options, source).await
}

/// [`start`] in these surroundings.
///
/// # Errors
/// As [`start`].
pub async fn start_in(
    surroundings: Surroundings,
    options: FeedOptions,
    source: Arc<dyn ReportSource>,
) -> Result<Feed, Error> {
    let Surroundings { dial, mut rng } = surroundings;
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
    let shared = Arc::new(Shared {
        node: wire::Node {
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
    let (sender, link) = watch::channel(None);
    tasks.spawn(report::run(
        shared.clone(),
        source,
        link.clone(),
        SmallRng::from_rng(&mut rng),
        cancel.clone(),
    ));
    let client = client::Client::new(shared.clone(), endpoints, dial, sender, rng);
    tasks.spawn(client.run(cancel.clone()));
    tasks.spawn(Keeper::new(cache_dir, identity.clone(), shared.clone()).run(cancel.clone()));
    tasks.close();
    Ok(Feed {
        link,
        shared,
        tasks,
        identity: Arc::new(Mutex::new(Some(identity))),
        _ends_with_the_last: Arc::new(cancel.clone().drop_guard()),
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
        // A peer that is gone without a word is found before the silence is long enough.
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
                "serving the route table from disk until a control plane answers"
            );
            table
        }
        Loaded::SetAside { path, error } => {
            tracing::warn!(
                feed.cache.path = %path.display(),
                %error,
                "the route table on disk cannot be used and was set aside; syncing anew"
            );
            Table::default()
        }
    }
}

impl Feed {
    /// The table that serves, for the length of one look.
    #[inline]
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.shared.table.load()
    }

    /// The table that serves, to keep.
    pub fn load_full(&self) -> Arc<Table> {
        self.shared.table.load_full()
    }

    /// Changes each time the table was replaced.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Where the feed stands.
    pub fn status(&self) -> watch::Receiver<FeedStatus> {
        self.shared.status.subscribe()
    }

    /// The random id kept in the cache folder.
    pub fn node_id(&self) -> &str {
        &self.shared.node.id
    }

    /// The node's name.
    pub fn node_name(&self) -> &str {
        &self.shared.node.name
    }

    /// New at every start.
    pub fn boot_id(&self) -> &str {
        &self.shared.node.boot_id
    }

    /// Sends a last report if a control plane answers, writes the table to disk, ends the tasks and
    /// gives the cache folder free.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tasks.wait().await;
        drop(self.identity.lock().take());
    }
}
