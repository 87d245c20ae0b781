//! Wires the parts of one data plane together and shuts them down in order.
//!
//! Shutdown order: readiness, listeners, requests in flight (bounded), buffered traces, containers,
//! firewall rules, and the feed with its final report.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin, AdminOptions, Protection};
use crate::drain::Drain;
use crate::engine::oci_runtime;
use crate::engine::policy::NodePolicy;
use crate::enrollment::{PlaneAddress, TokenSource};
use crate::feed::{self, Feed, FeedOptions, ReportSource};
use crate::image::pruner::{Pruner, VersionImage, VersionImages, forget_pins};
use crate::image::{Pins, PullRecord, resolve};
use crate::isolation::{self, Isolation};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pool::{self, Node, Pools};
use crate::proxy::{self, Proxy, ProxyDependencies, Sockets};
use crate::report::{FailureReason, NodeReport, Resolution, StartFailure};
use crate::runtime::Runtime;
use crate::runtime::credentials::RegistryConfig;
use crate::runtime::docker::Docker;
use crate::trace::{self, TraceExport};

/// Listing containers takes milliseconds; a slow engine must not keep the node from serving.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(2);

/// Patience for an engine that the start requires.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);

/// Longest time for the answer to a question for an image: a registry gets 8 s of it.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reasons why a data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be bound.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// It cannot be read whether the node is drained.
    #[error("cannot read in the cache folder {folder} whether this node is drained: {source}")]
    Drain {
        /// The cache folder.
        folder: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A record of images is unreadable.
    #[error("the record of images in the cache folder {folder} cannot be read: {source}")]
    Images {
        /// The cache folder.
        folder: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The cache folder or the address of a control plane is unusable.
    #[error(transparent)]
    Feed(#[from] feed::Error),
    /// The proxy cannot start.
    #[error(transparent)]
    Proxy(#[from] proxy::server::Error),
    /// The admin port is reachable from other hosts and not protected, or its files are unusable.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// The container engine does not answer.
    #[error("no container engine answers at {address}: {problem}; {remedy}")]
    NoEngine {
        /// The engine's address.
        address: String,
        /// The error.
        problem: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The engine lacks the runtime that `--runtime` names.
    #[error(transparent)]
    Runtime(#[from] oci_runtime::RuntimeNotOffered),
    /// Isolation is required but unavailable.
    #[error(transparent)]
    NotIsolated(#[from] isolation::NotIsolated),
    /// Trace export cannot start.
    #[error(transparent)]
    Trace(#[from] trace::Error),
}

/// A running data plane. Dropping it without [`Running::shutdown`] ends it without draining.
pub struct Running {
    proxy_addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    admin_addr: SocketAddr,
    feed: Feed,
    pools: Pools,
    isolation: Isolation,
    proxy: Proxy,
    traces: Option<TraceExport>,
    stopping: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    drain: Duration,
    keep_containers: bool,
}

/// Source of reports and answers; reports are empty until the pools exist, because the feed starts
/// before them.
struct NodeReporter {
    runtime: Arc<dyn Runtime>,
    pools: OnceLock<(Pools, Isolation)>,
    drain: Drain,
    /// Control planes that are known beyond the configured ones.
    announced: watch::Sender<Vec<PlaneAddress>>,
    changed: watch::Sender<u64>,
}

#[async_trait::async_trait]
impl ReportSource for NodeReporter {
    fn report(&self) -> NodeReport {
        let Some((pools, isolation)) = self.pools.get() else {
            return NodeReport {
                drained: self.drain.is_drained(),
                ..NodeReport::default()
            };
        };
        NodeReport {
            isolation: isolation.status(),
            ..pools.report()
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    async fn resolve_image(&self, image: &str, local_only: bool) -> Resolution {
        let resolve = resolve::resolve(&*self.runtime, image, local_only);
        let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, resolve).await;
        resolved.unwrap_or_else(|_| {
            let message = "the container engine of this node did not answer in time".to_owned();
            let (reason, now) = (FailureReason::Engine, SystemTime::now());
            Err(Box::new(StartFailure::new(reason, message, now)))
        })
    }

    async fn set_drained(&self, drained: bool) -> Result<(), String> {
        let Some((pools, _)) = self.pools.get() else {
            return Err("this node is starting: try again".to_owned());
        };
        let stored = self
            .drain
            .set(drained, |drained| pools.set_drained(drained));
        match stored.await {
            Ok(()) => {
                info!(
                    drained,
                    "stored a request of the control plane to drain this node or to end that"
                );
                Ok(())
            }
            Err(error) => Err(format!(
                "the node cannot store it in its cache folder: {error}"
            )),
        }
    }

    fn control_planes(&self, addresses: Vec<PlaneAddress>) {
        self.announced.send_replace(addresses);
    }
}

/// Closes the ports of announced control planes to containers.
async fn isolate_control_planes(
    mut announced: watch::Receiver<Vec<PlaneAddress>>,
    isolation: Isolation,
) {
    while announced.changed().await.is_ok() {
        let planes = announced.borrow_and_update().clone();
        let planes = planes
            .iter()
            .filter_map(|plane| plane.to_string().parse().ok());
        let planes: Vec<http::Uri> = planes.collect();
        isolation.announce(&planes).await;
    }
}

/// Starts a data plane on the Docker engine that the options name.
///
/// Returns once the listeners are open. It does not wait for a control plane, and waits only
/// briefly for an unresponsive engine.
///
/// # Errors
/// [`Error`], for example if an address or the cache folder is unusable.
pub async fn start(options: Options) -> Result<Running, Error> {
    let registries = RegistryConfig::new(options.registry_config.clone());
    let docker = Docker::new(options.engine.clone()).with_registries(registries);
    let runtime = Arc::new(docker);
    start_on(options, runtime).await
}

/// Starts a data plane on the given engine.
///
/// # Errors
/// See [`start`].
pub async fn start_on(options: Options, runtime: Arc<dyn Runtime>) -> Result<Running, Error> {
    raise_descriptor_limit();
    check_runtime(options.runtime.as_deref(), &*runtime).await?;
    let workers = options.proxy.workers;
    let plain = sockets(options.listen, "--listen", workers)?;
    let encrypted = options.proxy.tls_listen;
    let encrypted = encrypted.map(|address| sockets(address, "--tls-listen", workers));
    let encrypted = encrypted.transpose()?;
    let protection = Protection::new(&AdminOptions {
        address: options.admin,
        tls_cert: options.admin_tls_cert,
        tls_key: options.admin_tls_key,
        token_file: options.metrics_token_file,
    })?;
    let admin_listener = listen(options.admin, "--admin").await?;
    let proxy_addr = plain.address();
    let tls_addr = encrypted.as_ref().map(Sockets::address);
    let admin_addr = admin_listener.local_addr().unwrap_or(options.admin);

    let changed = watch::Sender::new(0);
    let drain = Drain::open(&options.cache_dir).map_err(|source| Error::Drain {
        folder: options.cache_dir.clone(),
        source,
    })?;
    let drained = drain.is_drained();
    let announced = watch::Sender::new(Vec::new());
    let announcements = announced.subscribe();
    let reports = Arc::new(NodeReporter {
        runtime: runtime.clone(),
        pools: OnceLock::new(),
        drain,
        announced,
        changed: changed.clone(),
    });
    let join_token = match (options.join_token, options.join_token_file) {
        (Some(token), _) => TokenSource::Given(token),
        (None, Some(file)) => TokenSource::File(file),
        (None, None) => TokenSource::None,
    };
    let feed_options = FeedOptions {
        join_token,
        ..FeedOptions::new(
            options.control_planes.clone(),
            options.node.clone(),
            options.cache_dir.clone(),
        )
    };
    let feed = feed::start(feed_options, reports.clone()).await?;
    let metrics = Arc::new(Metrics::default());
    let identity = trace::NodeResource {
        name: &options.node,
        id: feed.node_id(),
    };
    let traces = trace::start(&options.trace, identity, metrics.traces_dropped())?;
    let (tracer, traces) = traces.unzip();
    // The feed has locked the cache folder.
    let images = PullRecord::open(&options.cache_dir).map_err(|source| Error::Images {
        folder: options.cache_dir.clone(),
        source,
    })?;
    let images = Arc::new(images);
    let policy = NodePolicy {
        capabilities: options.allow_capabilities.into_iter().collect(),
        egress: options.allow_egress.into_iter().collect(),
    };
    let table = feed.load_full();
    let kept = pool::kept_permits(&*runtime, feed.node_id(), &table, &policy, ENGINE_TIMEOUT);
    let pins = Pins::open(&options.cache_dir).map_err(|source| Error::Images {
        folder: options.cache_dir.clone(),
        source,
    })?;
    let pins = Arc::new(pins);
    let isolation = isolation::Options {
        node: feed.node_id().to_owned(),
        proxy: std::iter::once(proxy_addr).chain(tls_addr).collect(),
        control_planes: options.control_planes.clone(),
        engine: options
            .engine
            .clone()
            .or_else(|| std::env::var("DOCKER_HOST").ok()),
        required: options.require_isolation,
        permits: kept.await,
    };
    let isolation = Isolation::new(isolation, changed.clone());
    isolation.begin().await?;
    let node = Node {
        id: feed.node_id().to_owned(),
        boot: feed.boot_id().to_owned(),
        starts_at_once: options.starts_at_once,
        max_wakes_per_ip: options.max_wakes_per_ip,
        images: images.clone(),
        pins: pins.clone(),
        runtime: options.runtime,
        isolation: isolation.clone(),
        sandboxes: options.sandboxes,
        policy,
        drained,
    };
    let pools = Pools::new(
        node,
        runtime.clone(),
        metrics.clone(),
        feed.load_full(),
        changed,
    );
    let _ = reports.pools.set((pools.clone(), isolation.clone()));

    // Connections queue in the listen backlog meanwhile.
    pools.adopt_leftovers(ENGINE_TIMEOUT).await;

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
        protection,
    };
    let mut tasks = vec![
        tokio::spawn(reconcile_pools(feed.clone(), pools.clone())),
        tokio::spawn(track_connection(feed.clone(), pools.clone())),
        tokio::spawn(pools.clone().follow_engine()),
        tokio::spawn(isolation.clone().follow()),
        tokio::spawn(isolate_control_planes(announcements, isolation.clone())),
        tokio::spawn(pools.clone().keep_sandboxes()),
        tokio::spawn(admin::serve(admin_listener, admin)),
    ];
    let versions = Arc::new(FeedVersions(feed.clone()));
    tasks.push(tokio::spawn(forget_pins(pins.clone(), versions.clone())));
    if let Some(after) = options.prune_images_after {
        let pruner = Pruner {
            runtime,
            record: images,
            pins,
            versions,
            after,
        };
        tasks.push(tokio::spawn(pruner.run()));
    }
    info!(
        node = options.node, node_id = feed.node_id(), listen = %proxy_addr, admin = %admin_addr,
        "the data plane is serving"
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

/// Checks that a container engine answers: `configured`, else `DOCKER_HOST`, else the standard
/// socket.
///
/// # Errors
/// [`Error::NoEngine`] with the remedy.
pub async fn check_engine(configured: Option<&str>) -> Result<(), Error> {
    let engine = Docker::new(configured.map(str::to_owned));
    let problem = match tokio::time::timeout(ENGINE_PATIENCE, engine.engine()).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", ENGINE_PATIENCE.as_secs()),
    };
    let address = match configured {
        Some(address) => address.to_owned(),
        None => std::env::var("DOCKER_HOST")
            .ok()
            .filter(|address| !address.is_empty())
            .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
    };
    let remedy = engine_remedy(&problem);
    Err(Error::NoEngine {
        address,
        problem,
        remedy,
    })
}

/// The remedy for an engine that does not answer.
fn engine_remedy(problem: &str) -> &'static str {
    if problem.to_lowercase().contains("permission denied") {
        "this user may not use its socket: add the user to the group `docker` and log in again, or run \
         as root"
    } else {
        "start it, for example with `systemctl start docker`, or name another engine with --engine or \
         DOCKER_HOST"
    }
}

/// Raises the limit of open descriptors to the hard one. Each connection has one, and the soft limit
/// is often 1024, for the sake of programs that use `select`.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "cannot raise the limit of open descriptors");
    }
}

/// Checks the configured runtime if the engine responds; otherwise the check happens when it does.
async fn check_runtime(asked: Option<&str>, engine: &dyn Runtime) -> Result<(), Error> {
    if asked.is_some()
        && let Ok(Ok(offered)) = tokio::time::timeout(ENGINE_TIMEOUT, engine.runtimes()).await
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

/// Reconciles the pools with each new table.
async fn reconcile_pools(feed: Feed, pools: Pools) {
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

/// Informs the pools whether a control plane is connected.
async fn track_connection(feed: Feed, pools: Pools) {
    let mut status = feed.status();
    loop {
        pools.set_control_plane_connected(status.borrow_and_update().connected);
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// The images of all versions, as listed by the control plane.
struct FeedVersions(Feed);

#[async_trait::async_trait]
impl VersionImages for FeedVersions {
    async fn retained(&self) -> Result<Vec<VersionImage>, String> {
        let images = self.0.retained_images().await;
        let images = images.map_err(|error| error.to_string())?;
        Ok(images
            .into_iter()
            .map(|one| VersionImage {
                image: one.image,
                digest: one.digest,
                version: one.version,
            })
            .collect())
    }
}

impl Running {
    /// Address of the HTTP listener.
    pub fn proxy_addr(&self) -> SocketAddr {
        self.proxy_addr
    }

    /// Address of the HTTPS listener, if there is one.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Address of the admin listener.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Shuts down in the order given in the module documentation.
    pub async fn shutdown(self) {
        info!("stopping: draining requests in flight");
        self.stopping.cancel();
        self.proxy.stop();
        let deadline = Instant::now() + self.drain;
        let drained = tokio::time::timeout_at(deadline, self.proxy.drained()).await;
        if drained.is_err() {
            warn!("the drain timeout expired; remaining requests are cancelled");
        }
        self.proxy.end().await;
        // All workers have ended, so no further spans arrive.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_away_is_told_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("unix://{}", folder.path().join("none.sock").display());
        let began = Instant::now();
        let error = check_engine(Some(&socket)).await.unwrap_err().to_string();
        assert!(began.elapsed() < Duration::from_secs(1));
        for words in [
            &*socket,
            "no container engine answers",
            "systemctl start docker",
            "--engine",
        ] {
            assert!(error.contains(words), "no {words}: {error}");
        }
    }

    #[test]
    fn a_forbidden_socket_has_another_remedy() {
        assert!(
            engine_remedy("connect: Permission denied (os error 13)").contains("group `docker`")
        );
    }
}
