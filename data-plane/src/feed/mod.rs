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
//! [`staging`], [`session`] and [`control_targets`] are pure decision logic; [`client`],
//! [`control`], [`control_stream`], [`report`] and [`cache`] perform the I/O. Protobuf types stop at
//! [`control_stream`], [`decode`], [`wire`], [`report`] and [`retained`].

mod cache;
mod client;
mod control;
mod control_stream;
mod control_targets;
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

use crate::enrollment::{self, AddressError, Applicant, Enrollment, PlaneAddress};
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
use tonic::{Code, Status};
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
    /// An address is unusable.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The node has no certificate and cannot get one, or its files are damaged.
    #[error(transparent)]
    Enrollment(#[from] enrollment::Error),
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
    /// `None` in a simulated network, and where every control plane is on this host.
    enrollment: Option<Enrollment>,
}

impl FeedState {
    /// A receiver that changes once the node has a new certificate; streams are opened anew then.
    fn renewals(&self) -> Renewals {
        Renewals(self.enrollment.as_ref().map(Enrollment::renewals))
    }

    /// Records that a control plane refused a stream.
    fn stream_refused(&self, status: &Status) {
        if let Some(enrollment) = &self.enrollment
            && status.code() == Code::Unauthenticated
        {
            enrollment.refused();
        }
    }

    fn install(&self, table: Arc<Table>) {
        self.table.store(table);
        self.changed.send_modify(|swaps| *swaps += 1);
        self.status.send_modify(|status| {
            status.synced = true;
            status.has_table = true;
        });
    }
}

/// New certificates of this node.
#[derive(Debug)]
struct Renewals(Option<watch::Receiver<u64>>);

impl Renewals {
    /// Waits for a certificate newer than those that were seen here.
    async fn next(&mut self) {
        if let Some(renewals) = &mut self.0
            && renewals.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Ignores certificates that came before now.
    fn skip(&mut self) {
        if let Some(renewals) = &mut self.0 {
            renewals.mark_unchanged();
        }
    }
}

/// A control plane, with the settings of its connections.
#[derive(Clone, Debug)]
struct Plane {
    address: PlaneAddress,
    endpoint: Endpoint,
}

impl Plane {
    fn new(address: PlaneAddress, timing: &Timing) -> Result<Self, AddressError> {
        let endpoint = address.endpoint()?;
        let endpoint = endpoint
            .connect_timeout(timing.first_message)
            .tcp_nodelay(true)
            // HTTP/2 pings detect a vanished peer before the silence timeout expires.
            .http2_keep_alive_interval(timing.silence / 3)
            .keep_alive_timeout(timing.silence / 3)
            .keep_alive_while_idle(true);
        Ok(Self { address, endpoint })
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

type Connecting = BoxFuture<'static, Result<Channel, tonic::transport::Error>>;
type Connector = Arc<dyn Fn(Plane) -> Connecting + Send + Sync>;

/// The nondeterministic inputs of the feed: the network and randomness.
pub struct Environment {
    /// `None`: TCP, with TLS.
    simulated: Option<Connector>,
    rng: SmallRng,
}

impl Environment {
    /// TCP, and randomness from the operating system.
    fn system() -> Self {
        Self {
            simulated: None,
            rng: SmallRng::from_rng(&mut rand::rng()),
        }
    }

    /// A simulated network, without encryption, and a seeded generator.
    #[cfg(feature = "test-util")]
    pub fn simulated(
        connect: impl Fn(Endpoint) -> Connecting + Send + Sync + 'static,
        rng: SmallRng,
    ) -> Self {
        Self {
            simulated: Some(Arc::new(move |plane: Plane| connect(plane.endpoint))),
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
    let Environment { simulated, mut rng } = environment;
    let FeedOptions {
        control_planes,
        node_name,
        cache_dir,
        join_token,
        timing,
    } = options;
    let planes = control_planes
        .iter()
        .map(|uri| {
            let address = match simulated {
                Some(_) => PlaneAddress::new(uri)?,
                None => PlaneAddress::configured(uri)?,
            };
            Plane::new(address, &timing)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if planes.is_empty() {
        return Err(Error::NoControlPlane);
    }
    let identity = Arc::new(Identity::claim(&cache_dir)?);
    let applicant = Applicant {
        id: identity.id.to_string(),
        name: node_name.clone(),
    };
    let is_encrypted = planes.iter().any(|plane| plane.address.is_encrypted());
    let enrollment = match simulated.is_none() && is_encrypted {
        true => Some(Enrollment::open(&cache_dir, applicant, join_token)?),
        false => None,
    };
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
        enrollment: enrollment.clone(),
    });
    let connect = simulated.unwrap_or_else(|| connector(enrollment.clone()));

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
    if let Some(enrollment) = enrollment {
        let encrypted = planes.iter().map(|plane| plane.address.clone());
        let encrypted = encrypted.filter(PlaneAddress::is_encrypted).collect();
        let bounds = (shared.timing.backoff_floor, shared.timing.backoff_ceiling);
        let rng = SmallRng::from_rng(&mut rng);
        let span = tracing::error_span!("enrollment", node = shared.node.name);
        let keep = enrollment.run(encrypted, bounds, rng, cancel.clone());
        tasks.spawn(keep.instrument(span));
    }
    let control = control::Control {
        shared: shared.clone(),
        source: source.clone(),
        configured: planes.clone(),
        connect: connect.clone(),
        rng: SmallRng::from_rng(&mut rng),
    };
    tasks.spawn(control.run(cancel.clone()));
    let client = client::Client::new(shared.clone(), planes, connect, sender, rng);
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

/// Connects over TCP: in plaintext where there is no enrollment.
fn connector(enrollment: Option<Enrollment>) -> Connector {
    Arc::new(move |Plane { address, endpoint }| {
        let enrollment = enrollment.clone();
        Box::pin(async move {
            match enrollment {
                Some(enrollment) => enrollment.connect(&address, endpoint).await,
                None => endpoint.connect().await,
            }
        })
    })
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
