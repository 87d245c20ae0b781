//! A simulated data plane: the real client with a cache folder. Every table that it serves is
//! verified.

use super::coverage::Coverage;
use super::link::Link;
use super::store::{At, SimDatabase};
use cless_data_plane::feed::{
    self, Feed, FeedOptions, IdentityError, ReportSource, Surroundings, Timing,
};
use cless_data_plane::report::NodeReport;
use cless_data_plane::route::Table;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// The listener of a running control plane, and a token that breaks its connections.
pub(super) type Listener = Option<(mpsc::UnboundedSender<DuplexStream>, CancellationToken)>;

/// The network of one node.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) links: Vec<Link>,
    pub(super) listeners: Mutex<Vec<Listener>>,
    /// With a DNS error, every address leads to this control plane.
    pub(super) misdirected_to: Mutex<Option<usize>>,
    /// Breaks the node's connections.
    pub(super) broken: Mutex<CancellationToken>,
}

/// The fate of the table's file while the node is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    Kept,
    Lost,
    Flipped,
    Truncated,
    HalfWritten,
}

/// A data plane, running or not.
pub(super) struct SimNode {
    pub(super) name: String,
    pub(super) network: Arc<Network>,
    pub(super) feed: Option<Feed>,
    folder: PathBuf,
    clusters: Vec<(&'static str, Arc<SimDatabase>)>,
    coverage: Coverage,
    /// Violations found in served tables.
    violations: Arc<Mutex<Vec<String>>>,
    rng: SmallRng,
    watching: Option<AbortHandle>,
}

struct IdleReport(watch::Sender<u64>);

impl ReportSource for IdleReport {
    fn report(&self) -> NodeReport {
        NodeReport::default()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl SimNode {
    pub(super) fn new(
        name: String,
        folder: PathBuf,
        planes: usize,
        clusters: Vec<(&'static str, Arc<SimDatabase>)>,
        coverage: Coverage,
        rng: &mut SmallRng,
    ) -> Self {
        let network = Network {
            links: (0..planes).map(|_| Link::default()).collect(),
            listeners: Mutex::new(vec![None; planes]),
            misdirected_to: Mutex::default(),
            broken: Mutex::default(),
        };
        Self {
            name,
            network: Arc::new(network),
            feed: None,
            folder,
            clusters,
            coverage,
            violations: Arc::default(),
            rng: SmallRng::from_rng(rng),
            watching: None,
        }
    }

    fn take(&mut self) -> Option<Feed> {
        if let Some(watching) = self.watching.take() {
            watching.abort();
        }
        self.feed.take()
    }

    pub(super) async fn start(&mut self, lifetime: Duration) {
        let addresses = ["http://0.plane:1", "http://1.plane:1"];
        let planes = addresses.map(http::Uri::from_static).to_vec();
        let mut options = FeedOptions::new(planes, self.name.clone(), self.folder.clone());
        options.timing = Timing {
            lifetime,
            ..Timing::default()
        };
        let rng = SmallRng::from_rng(&mut self.rng);
        let feed = self.claim(&options, &rng).await;
        if self.folder.join("routes.damaged").exists() {
            self.coverage.count("cache set aside");
            std::fs::remove_file(self.folder.join("routes.damaged")).expect("a file");
        } else if !feed.table().is_initial() {
            self.coverage.count("cache used");
        }
        let observer = TableObserver {
            name: self.name.clone(),
            clusters: self.clusters.clone(),
            violations: Arc::clone(&self.violations),
        };
        self.watching = Some(tokio::spawn(observer.run(feed.clone())).abort_handle());
        self.feed = Some(feed);
    }

    /// Starts once the folder is unlocked. Concurrent tests start programs, and a child process
    /// inherits the locks of this process until it executes its program.
    #[expect(
        clippy::disallowed_methods,
        reason = "child processes do not live in simulated time"
    )]
    async fn claim(&self, options: &FeedOptions, rng: &SmallRng) -> Feed {
        let began = std::time::Instant::now();
        loop {
            let network = Arc::clone(&self.network);
            let surroundings = Surroundings::simulated(
                move |endpoint| {
                    let network = Arc::clone(&network);
                    Box::pin(async move {
                        let connect = tower::service_fn(move |to: http::Uri| {
                            connect(Arc::clone(&network), to)
                        });
                        endpoint.connect_with_connector(connect).await
                    })
                },
                rng.clone(),
            );
            let source = Arc::new(IdleReport(watch::Sender::new(0)));
            match feed::start_in(surroundings, options.clone(), source).await {
                Err(feed::Error::Identity(IdentityError::InUse(_)))
                    if began.elapsed() < Duration::from_secs(10) =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                started => {
                    return started.expect("a node starts with any cache folder");
                }
            }
        }
    }

    /// Kills the process: the next one finds the present content of the disk.
    pub(super) async fn kill(&mut self, disk: Disk) {
        let Some(feed) = self.take() else {
            return;
        };
        self.disconnect();
        let file = self.folder.join("routes");
        let content = std::fs::read(&file).ok();
        feed.shutdown().await;
        drop(feed);
        let Some(mut bytes) = content else {
            let _ = std::fs::remove_file(&file);
            return;
        };
        let at = self.rng.random_range(0..bytes.len());
        match disk {
            Disk::Kept => {}
            Disk::Lost => {
                let _ = std::fs::remove_file(&file);
                return;
            }
            Disk::Flipped => bytes[at] ^= 1 << self.rng.random_range(0..8u32),
            Disk::Truncated => bytes.truncate(at),
            Disk::HalfWritten => {
                let half = self.folder.join("routes.new");
                std::fs::write(half, &bytes[..at]).expect("a folder to write to");
            }
        }
        std::fs::write(&file, bytes).expect("a folder to write to");
    }

    /// Stops the process cleanly, which leaves the newest table on disk.
    pub(super) async fn stop(&mut self) {
        if let Some(feed) = self.take() {
            let newest = feed.load_full();
            feed.shutdown().await;
            if !newest.is_initial() {
                assert!(self.folder.join("routes").exists(), "nothing on disk");
            }
        }
    }

    /// Breaks all connections.
    pub(super) fn disconnect(&self) {
        std::mem::take(&mut *self.network.broken.lock()).cancel();
    }

    /// Cluster, epoch and revision of its table; `None` while it is down.
    pub(super) fn at(&self) -> Option<(String, At)> {
        let table = self.feed.as_ref()?.load_full();
        let cursor = table.cursor();
        Some((
            table.cluster().to_string(),
            (cursor.epoch.clone(), cursor.revision),
        ))
    }

    pub(super) fn is_connected(&self) -> bool {
        let feed = self.feed.as_ref();
        feed.is_some_and(|feed| feed.status().borrow().connected)
    }

    /// Verifies the present table, and that no earlier one was wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(feed) = &self.feed {
            verify(&feed.load_full(), &self.clusters)?;
        }
        match self.violations.lock().first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn cache(&self) -> &Path {
        &self.folder
    }
}

async fn connect(network: Arc<Network>, to: http::Uri) -> io::Result<TokioIo<DuplexStream>> {
    let requested = usize::from(to.host().is_some_and(|host| host.starts_with('1')));
    let plane = network.misdirected_to.lock().unwrap_or(requested);
    let listener = network.listeners.lock()[plane].clone();
    let (incoming, plane_breaks) = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
    let node_breaks = network.broken.lock().clone();
    let broken = CancellationToken::new();
    let (breaks, done) = (broken.clone(), broken.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = plane_breaks.cancelled() => breaks.cancel(),
            () = node_breaks.cancelled() => breaks.cancel(),
            () = done.cancelled() => {}
        }
    });
    let stream = network.links[plane].connect(&incoming, broken).await?;
    Ok(TokioIo::new(stream))
}

/// Verifies each new table of a node.
struct TableObserver {
    name: String,
    clusters: Vec<(&'static str, Arc<SimDatabase>)>,
    violations: Arc<Mutex<Vec<String>>>,
}

impl TableObserver {
    async fn run(self, feed: Feed) {
        let mut changed = feed.changed();
        let mut newest = HashMap::new();
        loop {
            changed.borrow_and_update();
            if let Err(violation) = self.check(&feed.load_full(), &mut newest) {
                let violation = format!("{}: {violation}", self.name);
                self.violations.lock().push(violation);
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn check(
        &self,
        table: &Table,
        newest: &mut HashMap<(String, String), i64>,
    ) -> Result<(), String> {
        verify(table, &self.clusters)?;
        let cursor = table.cursor();
        let key = (table.cluster().to_string(), cursor.epoch.clone());
        let before = newest.insert(key, cursor.revision).unwrap_or(i64::MIN);
        if before > cursor.revision {
            return Err(format!(
                "revision decreased within epoch {} from {before} to {}",
                cursor.epoch, cursor.revision
            ));
        }
        Ok(())
    }
}

/// Checks that a table equals a committed one and serves its routes.
fn verify(table: &Table, clusters: &[(&'static str, Arc<SimDatabase>)]) -> Result<(), String> {
    if table.is_initial() {
        return Ok(());
    }
    let cursor = table.cursor();
    let at = (cursor.epoch.clone(), cursor.revision);
    let database = clusters
        .iter()
        .find(|(name, _)| **name == **table.cluster())
        .map(|(_, database)| database)
        .ok_or_else(|| format!("a table of an unknown cluster: {}", table.cluster()))?;
    let committed = database
        .committed(&at)
        .ok_or_else(|| format!("a table that was never committed: {at:?}"))?;
    if committed.len() != table.len() {
        return Err(format!(
            "{at:?}: {} routes, not {}",
            table.len(),
            committed.len()
        ));
    }
    for (uid, bytes) in &*committed {
        let entry = table
            .entry(uid)
            .ok_or_else(|| format!("{at:?}: {uid} is missing"))?;
        if entry.received() != bytes {
            return Err(format!("{at:?}: {uid} differs"));
        }
        let good = entry.last_good();
        if let Some(good) = good.filter(|_| !entry.is_good())
            && !database.ever_had(uid, &good.received)
        {
            return Err(format!("{at:?}: {uid} serves a route that it never had"));
        }
        for (host, _) in entry.serving().iter().flat_map(|route| route.all_hosts()) {
            let found = table.lookup(host);
            let is_other = found.is_none_or(|found| *found.route.service_uid != **uid);
            if is_other && entry.is_good() {
                return Err(format!("{at:?}: {host} does not lead to {uid}"));
            }
        }
    }
    Ok(())
}
