//! One running data plane: its parts, wired together and taken down in order.
//!
//! Down goes: readiness, then the listener, then requests in flight (bounded), then their last traces,
//! then containers, then the rules around them, then the feed, which sends a last report.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::engine::oci_runtime;
use crate::feed::{self, Feed, FeedOptions, ReportSource};
use crate::image::Record;
use crate::image::pruner::{Pruner, Retained, Versions};
use crate::isolation::{self, Isolation};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pool::{Node, Pools};
use crate::proxy::{self, Proxy, ProxyDependencies, Sockets};
use crate::report::NodeReport;
use crate::runtime::Runtime;
use crate::runtime::credentials::RegistryConfig;
use crate::runtime::docker::Docker;
use crate::trace::{self, Exporting};

/// A list of containers takes milliseconds; an engine that needs longer must not keep a node from
/// serving what it can.
const TAKE_OVER_WITHIN: Duration = Duration::from_secs(2);

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
    /// The record of pulled images in the cache folder cannot be used.
    #[error("the record of pulled images in the cache folder {folder} cannot be read: {source}")]
    Images {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The cache folder or a control plane's address cannot be used.
    #[error(transparent)]
    Feed(#[from] feed::Error),
    /// The proxy cannot serve.
    #[error(transparent)]
    Proxy(#[from] proxy::server::Error),
    /// The engine does not have the runtime that `--runtime` names.
    #[error(transparent)]
    Runtime(#[from] oci_runtime::RuntimeNotOffered),
    /// Isolation is required and cannot be had.
    #[error(transparent)]
    NotIsolated(#[from] isolation::NotIsolated),
    /// Traces are to be exported and cannot be.
    #[error(transparent)]
    Trace(#[from] trace::Error),
}

/// A data plane that runs. Dropped without [`Running::shutdown`], it ends without draining.
pub struct Running {
    proxy_addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    admin_addr: SocketAddr,
    feed: Feed,
    pools: Pools,
    isolation: Isolation,
    proxy: Proxy,
    traces: Option<Exporting>,
    stopping: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    drain: Duration,
    keep_containers: bool,
}

/// The feed asks for reports before there are pools to make them.
struct Reports {
    pools: OnceLock<(Pools, Isolation)>,
    changed: watch::Sender<u64>,
}

impl ReportSource for Reports {
    fn report(&self) -> NodeReport {
        let Some((pools, isolation)) = self.pools.get() else {
            return NodeReport::default();
        };
        NodeReport {
            isolation: isolation.status(),
            ..pools.report()
        }
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
    let registries = RegistryConfig::new(options.registry_config.clone());
    let docker = Docker::new(options.engine.clone()).with_registries(registries);
    let runtime = Arc::new(docker);
    start_on(options, runtime).await
}

/// Starts a data plane on any engine.
///
/// # Errors
/// As [`start`].
pub async fn start_on(options: Options, runtime: Arc<dyn Runtime>) -> Result<Running, Error> {
    check_runtime(options.runtime.as_deref(), &*runtime).await?;
    let workers = options.proxy.workers;
    let plain = sockets(options.listen, "--listen", workers)?;
    let encrypted = options.proxy.tls_listen;
    let encrypted = encrypted.map(|address| sockets(address, "--tls-listen", workers));
    let encrypted = encrypted.transpose()?;
    let admin_listener = listen(options.admin, "--admin").await?;
    let proxy_addr = plain.address();
    let tls_addr = encrypted.as_ref().map(Sockets::address);
    let admin_addr = admin_listener.local_addr().unwrap_or(options.admin);

    let changed = watch::Sender::new(0);
    let reports = Arc::new(Reports {
        pools: OnceLock::new(),
        changed: changed.clone(),
    });
    let feed_options = FeedOptions::new(
        options.control_planes.clone(),
        options.node.clone(),
        options.cache_dir.clone(),
    );
    let feed = feed::start(feed_options, reports.clone()).await?;
    let metrics = Arc::new(Metrics::default());
    let whose = trace::Node {
        name: &options.node,
        id: feed.node_id(),
    };
    let traces = trace::start(&options.trace, whose, metrics.traces_dropped())?;
    let (tracer, traces) = traces.unzip();
    // After the feed has claimed the folder.
    let images = Record::open(&options.cache_dir).map_err(|source| Error::Images {
        folder: options.cache_dir.clone(),
        source,
    })?;
    let images = Arc::new(images);
    let isolation = isolation::Options {
        node: feed.node_id().to_owned(),
        proxy: std::iter::once(proxy_addr).chain(tls_addr).collect(),
        control_planes: options.control_planes.clone(),
        engine: options
            .engine
            .clone()
            .or_else(|| std::env::var("DOCKER_HOST").ok()),
        required: options.require_isolation,
    };
    let isolation = Isolation::new(isolation, changed.clone());
    isolation.begin().await?;
    let node = Node {
        id: feed.node_id().to_owned(),
        boot: feed.boot_id().to_owned(),
        starts_at_once: options.starts_at_once,
        images: images.clone(),
        runtime: options.runtime,
        isolation: isolation.clone(),
        sandboxes: options.sandboxes,
    };
    let pools = Pools::new(
        node,
        runtime.clone(),
        metrics.clone(),
        feed.load_full(),
        changed,
    );
    let _ = reports.pools.set((pools.clone(), isolation.clone()));

    // Connections wait in the backlog meanwhile.
    pools.adopt_leftovers(TAKE_OVER_WITHIN).await;

    let stopping = CancellationToken::new();
    let backing = ProxyDependencies {
        feed: feed.clone(),
        pools: pools.clone(),
        metrics: metrics.clone(),
        trusted: options.trusted_proxies,
        tracer,
    };
    let proxy = Proxy::start(backing, &options.proxy, plain, encrypted)?;
    let admin = Admin {
        feed: feed.clone(),
        pools: pools.clone(),
        metrics,
        stopping: stopping.clone(),
    };
    let mut tasks = vec![
        tokio::spawn(keep_in_step(feed.clone(), pools.clone())),
        tokio::spawn(keep_linked(feed.clone(), pools.clone())),
        tokio::spawn(pools.clone().follow_engine()),
        tokio::spawn(isolation.clone().follow()),
        tokio::spawn(pools.clone().keep_sandboxes()),
        tokio::spawn(admin::serve(admin_listener, admin)),
    ];
    if let Some(after) = options.prune_images_after {
        let pruner = Pruner {
            runtime,
            record: images,
            versions: Arc::new(AllVersions(feed.clone())),
            after,
        };
        tasks.push(tokio::spawn(pruner.run()));
    }
    info!(
        node = options.node, node_id = feed.node_id(), listen = %proxy_addr, admin = %admin_addr,
        "the data plane serves"
    );
    Ok(Running {
        proxy_addr,
        tls_addr,
        admin_addr,
        feed,
        pools,
        isolation,
        proxy,
        traces,
        stopping,
        tasks,
        drain: Duration::from_secs(options.drain_timeout),
        keep_containers: options.keep_containers,
    })
}

/// An engine that answers must have the runtime that is asked for; of one that is away it is seen when
/// it comes.
async fn check_runtime(asked: Option<&str>, engine: &dyn Runtime) -> Result<(), Error> {
    if asked.is_some()
        && let Ok(Ok(offered)) = tokio::time::timeout(TAKE_OVER_WITHIN, engine.runtimes()).await
    {
        oci_runtime::select(asked, &offered)?;
    }
    Ok(())
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

fn sockets(address: SocketAddr, flag: &'static str, workers: usize) -> Result<Sockets, Error> {
    Sockets::bind(address, workers).map_err(|source| Error::Listen {
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
        pools.apply_table(&feed.load_full(), synced);
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the pools whether a control plane is connected.
async fn keep_linked(feed: Feed, pools: Pools) {
    let mut status = feed.status();
    loop {
        pools.set_control_plane_connected(status.borrow_and_update().connected);
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// What versions there are, as the control plane says.
struct AllVersions(Feed);

#[async_trait::async_trait]
impl Versions for AllVersions {
    async fn retained(&self) -> Result<Vec<Retained>, String> {
        let images = self.0.retained_images().await;
        let images = images.map_err(|error| error.to_string())?;
        Ok(images
            .into_iter()
            .map(|(image, digest)| Retained { image, digest })
            .collect())
    }
}

impl Running {
    /// Where HTTP is served.
    pub fn proxy_addr(&self) -> SocketAddr {
        self.proxy_addr
    }

    /// Where HTTPS is served, if it is.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Where the admin port is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Takes it down in order; see the module.
    pub async fn shutdown(self) {
        info!("stopping: draining requests in flight");
        self.stopping.cancel();
        self.proxy.stop();
        let deadline = Instant::now() + self.drain;
        let drained = tokio::time::timeout_at(deadline, self.proxy.drained()).await;
        if drained.is_err() {
            warn!("requests still run after the time to drain and are cut");
        }
        self.proxy.end().await;
        // No worker is left that could add to them.
        if let Some(traces) = self.traces {
            traces.end().await;
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        self.pools.shut_down(self.keep_containers, patience).await;
        if !self.keep_containers {
            self.isolation.remove().await;
        }
        self.feed.shutdown().await;
        for task in &self.tasks {
            task.abort();
        }
        info!("stopped");
    }
}
