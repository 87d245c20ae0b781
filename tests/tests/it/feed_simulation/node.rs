//! A data plane as a process: the real client over a cache folder, watched at every table it serves.

use super::link::Path;
use super::plane::Plane;
use super::store::{At, Database};
use super::tally::Tally;
use cless_data_plane::feed::{
    self, Environment, Feed, FeedOptions, IdentityError, ReportSource, Timing,
};
use cless_data_plane::report::NodeReport;
use cless_data_plane::route::Table;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::HashMap;
use std::io;
use std::path::{Path as Folder, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// Where planes are found now: the door of each, and the way to it.
pub(super) type Door = Option<(mpsc::UnboundedSender<DuplexStream>, CancellationToken)>;

/// The network as one node sees it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) paths: Vec<Path>,
    pub(super) doors: Mutex<Vec<Door>>,
    /// Every address leads to this plane: a mistake of DNS.
    pub(super) misled: Mutex<Option<usize>>,
    /// Breaks the node's connections.
    pub(super) broken: Mutex<CancellationToken>,
}

/// What happened to the file of the table while the node was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    Kept,
    Lost,
    Flipped,
    Truncated,
    HalfWritten,
}

/// A data plane, running or not.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) view: Arc<View>,
    pub(super) feed: Option<Feed>,
    folder: PathBuf,
    clusters: Vec<(&'static str, Arc<Database>)>,
    tally: Tally,
    /// What was found wrong with a table that it served.
    wrong: Arc<Mutex<Vec<String>>>,
    rng: SmallRng,
    watching: Option<AbortHandle>,
}

struct Idle(watch::Sender<u64>);

impl ReportSource for Idle {
    fn report(&self) -> NodeReport {
        NodeReport::default()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Node {
    pub(super) fn new(
        name: String,
        folder: PathBuf,
        planes: usize,
        clusters: Vec<(&'static str, Arc<Database>)>,
        tally: Tally,
        rng: &mut SmallRng,
    ) -> Self {
        let view = View {
            paths: (0..planes).map(|_| Path::default()).collect(),
            doors: Mutex::new(vec![None; planes]),
            misled: Mutex::default(),
            broken: Mutex::default(),
        };
        Self {
            name,
            view: Arc::new(view),
            feed: None,
            folder,
            clusters,
            tally,
            wrong: Arc::default(),
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
            self.tally.count("cache set aside");
            std::fs::remove_file(self.folder.join("routes.damaged")).expect("a file");
        } else if !feed.table().is_initial() {
            self.tally.count("cache used");
        }
        let watched = Watch {
            name: self.name.clone(),
            clusters: self.clusters.clone(),
            wrong: Arc::clone(&self.wrong),
        };
        self.watching = Some(tokio::spawn(watched.run(feed.clone())).abort_handle());
        self.feed = Some(feed);
    }

    /// Starts once the folder is free. The tests beside this one start programs: until such a child has
    /// begun its program, it holds every lock that this process does.
    #[expect(
        clippy::disallowed_methods,
        reason = "the children are not of this world's time"
    )]
    async fn claim(&self, options: &FeedOptions, rng: &SmallRng) -> Feed {
        let began = std::time::Instant::now();
        loop {
            let view = Arc::clone(&self.view);
            let environment = Environment::simulated(
                move |endpoint| {
                    let view = Arc::clone(&view);
                    Box::pin(async move {
                        let dial =
                            tower::service_fn(move |to: http::Uri| dial(Arc::clone(&view), to));
                        endpoint.connect_with_connector(dial).await
                    })
                },
                rng.clone(),
            );
            let source = Arc::new(Idle(watch::Sender::new(0)));
            match feed::start_in(environment, options.clone(), source).await {
                Err(feed::Error::Identity(IdentityError::InUse(_)))
                    if began.elapsed() < Duration::from_secs(10) =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                started => {
                    return started
                        .expect("a cache folder, damaged or not, keeps no node from starting");
                }
            }
        }
    }

    /// Ends the process: what it had on disk at this moment is what the next one finds.
    pub(super) async fn kill(&mut self, disk: Disk) {
        let Some(feed) = self.take() else {
            return;
        };
        self.disconnect();
        let file = self.folder.join("routes");
        let then = std::fs::read(&file).ok();
        feed.shutdown().await;
        drop(feed);
        let Some(mut bytes) = then else {
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

    /// Ends the process in order: the newest table is on disk then.
    pub(super) async fn stop(&mut self) {
        if let Some(feed) = self.take() {
            let newest = feed.load_full();
            feed.shutdown().await;
            if !newest.is_initial() {
                assert!(self.folder.join("routes").exists(), "nothing on disk");
            }
        }
    }

    /// Breaks its connections.
    pub(super) fn disconnect(&self) {
        std::mem::take(&mut *self.view.broken.lock()).cancel();
    }

    /// Where its table stands.
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

    /// What a request would see now, and what was wrong so far.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(feed) = &self.feed {
            verify(&feed.load_full(), &self.clusters)?;
        }
        match self.wrong.lock().first() {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn cache(&self) -> &Folder {
        &self.folder
    }
}

async fn dial(view: Arc<View>, to: http::Uri) -> io::Result<TokioIo<DuplexStream>> {
    let asked = usize::from(to.host().is_some_and(|host| host.starts_with('1')));
    let plane = view.misled.lock().unwrap_or(asked);
    let door = view.doors.lock()[plane].clone();
    let (incoming, plane_breaks) = door.ok_or(io::ErrorKind::ConnectionRefused)?;
    let node_breaks = view.broken.lock().clone();
    let broken = CancellationToken::new();
    let (breaks, done) = (broken.clone(), broken.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = plane_breaks.cancelled() => breaks.cancel(),
            () = node_breaks.cancelled() => breaks.cancel(),
            () = done.cancelled() => {}
        }
    });
    let stream = Plane::connect(&view.paths[plane], incoming, broken).await?;
    Ok(TokioIo::new(stream))
}

/// Looks at each table that is put in place.
struct Watch {
    name: String,
    clusters: Vec<(&'static str, Arc<Database>)>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    async fn run(self, feed: Feed) {
        let mut changed = feed.changed();
        let mut newest = HashMap::new();
        loop {
            changed.borrow_and_update();
            if let Err(wrong) = self.look(&feed.load_full(), &mut newest) {
                self.wrong.lock().push(format!("{}: {wrong}", self.name));
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn look(
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
                "went back within epoch {} from revision {before} to {}",
                cursor.epoch, cursor.revision
            ));
        }
        Ok(())
    }
}

/// That a table is exactly one that was committed, and serves what it says.
fn verify(table: &Table, clusters: &[(&'static str, Arc<Database>)]) -> Result<(), String> {
    if table.is_initial() {
        return Ok(());
    }
    let cursor = table.cursor();
    let at = (cursor.epoch.clone(), cursor.revision);
    let database = clusters
        .iter()
        .find(|(name, _)| **name == **table.cluster())
        .map(|(_, database)| database)
        .ok_or_else(|| format!("a table of no cluster: {}", table.cluster()))?;
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
            && !database.ever(uid, &good.received)
        {
            return Err(format!("{at:?}: {uid} serves what it never was"));
        }
        for (host, _) in entry.serving().iter().flat_map(|route| route.all_hosts()) {
            let leads = table.lookup(host);
            let elsewhere = leads.is_none_or(|leads| *leads.route.service_uid != **uid);
            if elsewhere && entry.is_good() {
                return Err(format!("{at:?}: {host} does not lead to {uid}"));
            }
        }
    }
    Ok(())
}
