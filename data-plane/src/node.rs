//! One running data plane: its parts, wired together and taken down in order.
//!
//! Down goes: readiness, then the listener, then requests in flight (bounded), then containers,
//! then the feed, which sends a last report.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::feed::{self, Feed, FeedOptions, ReportSource};
use crate::instance::Pools;
use crate::instance::pools::Node;
use crate::instance::report::NodeReport;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::proxy::listener;
use crate::proxy::service::Proxy;
use crate::runtime::Runtime;
use crate::runtime::docker::Docker;

/// A list of containers takes milliseconds; an engine that needs longer must not keep a node from
/// serving what it can.
const TAKE_OVER_WITHIN: Duration = Duration::from_secs(2);

/// Containers get this long to end in any case: more than the 10 s after which the engine ends them
/// by force.
const LEAST_TO_STOP: Duration = Duration::from_secs(12);

/// Why a data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The flag that gave it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The cache folder or a control plane's address cannot be used.
    #[error(transparent)]
    Feed(#[from] feed::Error),
}

/// A data plane that runs. Dropped without [`Running::shutdown`], it ends without draining.
pub struct Running {
    proxy_addr: SocketAddr,
    admin_addr: SocketAddr,
    feed: Feed,
    pools: Pools,
    proxy: Proxy,
    stopping: CancellationToken,
    stop_listening: CancellationToken,
    connections: TaskTracker,
    tasks: Vec<JoinHandle<()>>,
    drain: Duration,
    keep_containers: bool,
}

/// The feed asks for reports before there are pools to make them.
struct Reports {
    pools: OnceLock<Pools>,
    changed: watch::Sender<u64>,
}

impl ReportSource for Reports {
    fn report(&self) -> NodeReport {
        self.pools.get().map(Pools::report).unwrap_or_default()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Starts a data plane on the Docker engine that the options name.
///
/// Returns once it listens. It does not wait for a control plane, and for an engine that hangs only
/// briefly.
///
/// # Errors
/// [`Error`]: an address or the cache folder cannot be used.
pub async fn start(options: Options) -> Result<Running, Error> {
    let runtime = Arc::new(Docker::new(options.engine.clone()));
    start_on(options, runtime).await
}

/// Starts a data plane on any engine.
///
/// # Errors
/// As [`start`].
pub async fn start_on(options: Options, runtime: Arc<dyn Runtime>) -> Result<Running, Error> {
    let listener = listen(options.listen, "--listen").await?;
    let admin_listener = listen(options.admin, "--admin").await?;
    let proxy_addr = listener.local_addr().unwrap_or(options.listen);
    let admin_addr = admin_listener.local_addr().unwrap_or(options.admin);

    let changed = watch::Sender::new(0);
    let reports = Arc::new(Reports {
        pools: OnceLock::new(),
        changed: changed.clone(),
    });
    let feed_options = FeedOptions::new(
        options.control_planes.clone(),
        options.node.clone(),
        options.cache_dir,
    );
    let feed = feed::start(feed_options, reports.clone()).await?;
    let metrics = Arc::new(Metrics::default());
    let node = Node {
        id: feed.node_id().to_owned(),
        boot: feed.boot_id().to_owned(),
        starts_at_once: options.starts_at_once,
        sandboxes: options.sandboxes,
    };
    let pools = Pools::new(node, runtime, metrics.clone(), feed.load_full(), changed);
    let _ = reports.pools.set(pools.clone());

    // Connections wait in the backlog meanwhile.
    pools.take_over_leftovers(TAKE_OVER_WITHIN).await;

    let stopping = CancellationToken::new();
    let stop_listening = CancellationToken::new();
    let connections = TaskTracker::new();
    let trusted = options.trusted_proxies;
    let proxy = Proxy::new(feed.clone(), pools.clone(), metrics.clone(), trusted);
    let admin = Admin {
        feed: feed.clone(),
        pools: pools.clone(),
        metrics,
        stopping: stopping.clone(),
    };
    let tasks = vec![
        tokio::spawn(keep_in_step(feed.clone(), pools.clone())),
        tokio::spawn(pools.clone().follow_engine()),
        tokio::spawn(pools.clone().keep_sandboxes()),
        tokio::spawn(admin::serve(admin_listener, admin)),
        tokio::spawn(listener::serve(
            listener,
            proxy.clone(),
            stop_listening.clone(),
            connections.clone(),
        )),
    ];
    info!(
        node = options.node, node_id = feed.node_id(), listen = %proxy_addr, admin = %admin_addr,
        "the data plane serves"
    );
    Ok(Running {
        proxy_addr,
        admin_addr,
        feed,
        pools,
        proxy,
        stopping,
        stop_listening,
        connections,
        tasks,
        drain: Duration::from_secs(options.drain_timeout),
        keep_containers: options.keep_containers,
    })
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen {
            address,
            flag,
            source,
        })
}

/// Brings the pools in step with each new table.
async fn keep_in_step(feed: Feed, pools: Pools) {
    let mut changed = feed.changed();
    loop {
        changed.mark_unchanged();
        let synced = feed.status().borrow().synced;
        pools.reconcile(&feed.load_full(), synced);
        if changed.changed().await.is_err() {
            return;
        }
    }
}

impl Running {
    /// Where HTTP is served.
    pub fn proxy_addr(&self) -> SocketAddr {
        self.proxy_addr
    }

    /// Where the admin port is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Takes it down in order; see the module.
    pub async fn shutdown(self) {
        info!("stopping: draining requests in flight");
        self.stopping.cancel();
        self.stop_listening.cancel();
        let tunnels = self.proxy.tunnels();
        tunnels.close();
        let drained = async {
            self.connections.wait().await;
            tunnels.wait().await;
        };
        let deadline = Instant::now() + self.drain;
        if tokio::time::timeout_at(deadline, drained).await.is_err() {
            warn!("requests still run after the time to drain and are cut");
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        let patience = patience.max(LEAST_TO_STOP);
        self.pools.shut_down(self.keep_containers, patience).await;
        self.feed.shutdown().await;
        for task in &self.tasks {
            task.abort();
        }
        info!("stopped");
    }
}
