//! One run: random faults determined by the seed, with invariants after each step and at the end.

mod invariants;

use super::control_plane::{MESSAGE_FAULTS, PlannedFaults, SimControlPlane};
use super::coverage::Coverage;
use super::link::LinkConditions;
use super::node::{Disk, SimNode};
use super::store::{Replica, SimDatabase};
use bytes::Bytes;
use cless_proto::v1 as pb;
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const STEPS: usize = 40;
const NODES: usize = 3;
/// Two replicas of one cluster, and the only replica of another.
const PLANES: usize = 3;
/// Index of the other cluster's replica.
const OTHER_CLUSTER: usize = 2;
/// Maximum lag of a node without faults: a lost notification and a stream that moves meanwhile.
const MAX_LAG: Duration = Duration::from_secs(6);
/// The longest silence, back-off and connection lifetime in sequence.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(180);

/// Runs a seed; the error of a violated invariant contains the events.
pub(super) fn run(seed: u64, coverage: &Coverage) -> Result<(), String> {
    let mut events = Vec::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut run = Run::new(seed, coverage.clone(), &mut events).await;
            let outcome = run.all_steps().await;
            run.end().await;
            outcome
        })
    }));
    let violation = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(violation)) => violation,
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(_) => "a panic".to_owned(),
        },
    };
    Err(format!(
        "seed {seed}: {violation}; after:\n{}",
        events.join("\n")
    ))
}

struct Run<'a> {
    rng: SmallRng,
    coverage: Coverage,
    events: &'a mut Vec<String>,
    began: Instant,
    database: Arc<SimDatabase>,
    replicas: Vec<Replica>,
    planes: Vec<Option<SimControlPlane>>,
    nodes: Vec<SimNode>,
    /// Whether a node has had a fault since it was last seen at the newest revision.
    disturbed: [bool; NODES],
    planned: PlannedFaults,
    uids: u128,
    contents: u32,
    /// Additional bytes of each route, which fill a connection in some runs.
    padding: usize,
    /// Lifetime of a stream.
    max_age: Duration,
    _folder: tempfile::TempDir,
}

impl<'a> Run<'a> {
    async fn new(seed: u64, coverage: Coverage, events: &'a mut Vec<String>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (database, other) = (SimDatabase::new("ours"), SimDatabase::new("theirs"));
        let replicas = vec![
            Replica::new(&database),
            Replica::new(&database),
            Replica::new(&other),
        ];
        replicas[1]
            .unnotified
            .store(rng.random_bool(0.3), Ordering::Relaxed);
        let memory = std::path::Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        }
        .expect("a folder");
        let clusters = vec![("ours", Arc::clone(&database)), ("theirs", other)];
        let nodes = (0..NODES)
            .map(|n| {
                let at = folder.path().join(n.to_string());
                SimNode::new(
                    format!("node-{n}"),
                    at,
                    PLANES,
                    clusters.clone(),
                    coverage.clone(),
                    &mut rng,
                )
            })
            .collect();
        let mut run = Self {
            padding: if rng.random_bool(0.08) { 120 * 1024 } else { 0 },
            max_age: Duration::from_secs(if rng.random_bool(0.3) { 40 } else { 1800 }),
            rng,
            coverage,
            events,
            began: Instant::now(),
            database,
            replicas,
            planes: (0..PLANES).map(|_| None).collect(),
            nodes,
            disturbed: [true; NODES],
            planned: PlannedFaults::default(),
            uids: 0,
            contents: 0,
            _folder: folder,
        };
        for _ in 0..4 {
            run.write();
        }
        for plane in 0..PLANES {
            run.start_plane(plane).await;
        }
        for node in 0..NODES {
            run.start_node(node).await;
        }
        run
    }

    fn log(&mut self, event: String) {
        self.events
            .push(format!("{:>9.3?} {event}", self.began.elapsed()));
    }

    async fn all_steps(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step().await;
            let wait = match self.rng.random_range(0..20) {
                0 => self.rng.random_range(10_000..45_000),
                1..8 => self.rng.random_range(1000..6000),
                _ => self.rng.random_range(0..400),
            };
            sleep(Duration::from_millis(wait)).await;
            self.check()?;
        }
        self.repair().await
    }

    async fn step(&mut self) {
        let (node, plane) = (self.rng.random_range(0..NODES), self.rng.random_range(0..2));
        match self.rng.random_range(0..100) {
            0..36 => {
                for _ in 0..self.rng.random_range(1..6) {
                    self.write();
                    sleep(Duration::from_millis(self.rng.random_range(0..100))).await;
                }
            }
            36..44 => self.degrade_link(node, plane).await,
            44..52 => self.restore_links(node),
            52..56 => {
                self.disturb(node, "its connections break");
                self.nodes[node].disconnect();
            }
            56..64 => self.toggle_plane(plane).await,
            64..74 => self.toggle_node(node).await,
            74..86 => {
                let fault = MESSAGE_FAULTS[self.rng.random_range(0..MESSAGE_FAULTS.len())];
                self.disturb(node, &format!("{fault:?}"));
                self.planned
                    .lock()
                    .insert(self.nodes[node].name.clone(), fault);
                self.write();
            }
            86..91 => {
                let cut = &self.replicas[plane].cut_off;
                let now = !cut.fetch_xor(true, Ordering::Relaxed);
                self.disturb_all(format!("plane {plane}: database responds: {}", !now));
            }
            91..95 => {
                let keep = self.rng.random_range(0..4);
                self.database.compact(keep);
                self.log(format!("all changes but {keep} are deleted"));
            }
            95..97 => {
                let ago = self.rng.random_range(0..8);
                self.database.restore(ago);
                self.disturb_all(format!("restored from {ago} revisions ago"));
            }
            _ => {
                let now = {
                    let mut target = self.nodes[node].network.misdirected_to.lock();
                    *target = target.is_none().then_some(OTHER_CLUSTER);
                    *target
                };
                self.disturb(node, &format!("is misdirected to plane {now:?}"));
                self.nodes[node].disconnect();
            }
        }
    }

    fn disturb(&mut self, node: usize, event: &str) {
        self.disturbed[node] = true;
        self.log(format!("node {node}: {event}"));
    }

    fn disturb_all(&mut self, event: String) {
        self.disturbed = [true; NODES];
        self.log(event);
    }

    fn write(&mut self) {
        let known = self.database.uids();
        let uid = match self.rng.random_range(0..10) {
            0..4 if known.len() < 12 => {
                self.uids += 1;
                uuid::Uuid::from_u128(self.uids).hyphenated().to_string()
            }
            _ if known.is_empty() => {
                return self
                    .database
                    .write(&uuid::Uuid::from_u128(999).to_string(), None);
            }
            _ => known[self.rng.random_range(0..known.len())].clone(),
        };
        self.contents += 1;
        let route = route(&uid, self.contents, self.padding);
        let body = match self.rng.random_range(0..12) {
            0 | 1 => None,
            // Bytes that do not decode.
            2 => Some(Bytes::from(format!("{} is no route", self.contents))),
            // The host of another service.
            3 if !known.is_empty() => {
                let mut conflicting = route;
                conflicting.hosts.push(host(&known[0]));
                Some(conflicting.encode_to_vec().into())
            }
            _ => Some(route.encode_to_vec().into()),
        };
        self.database.write(&uid, body);
        let head = self.database.head().1;
        self.log(format!("revision {head} is written"));
    }

    async fn degrade_link(&mut self, node: usize, plane: usize) {
        let cut = |cut| LinkConditions {
            cut,
            ..LinkConditions::default()
        };
        let delay = Duration::from_millis(self.rng.random_range(1..20));
        let slow = LinkConditions { cut: false, delay };
        let (what, up, down) = match self.rng.random_range(0..4) {
            0 => ("receives nothing from", cut(false), cut(true)),
            1 => ("sends nothing to", cut(true), cut(false)),
            2 => ("is disconnected from", cut(true), cut(true)),
            _ => ("has a slow link to", slow, slow),
        };
        self.disturb(node, &format!("{what} plane {plane}"));
        let link = &self.nodes[node].network.links[plane];
        link.up.send_replace(up);
        link.down.send_replace(down);
        if up.cut && down.cut && self.padding > 0 {
            // More data than a connection buffers, for longer than a stream may stall.
            for _ in 0..14 {
                self.write();
            }
            sleep(Duration::from_secs(35)).await;
        }
    }

    fn restore_links(&mut self, node: usize) {
        for link in &self.nodes[node].network.links {
            link.up.send_replace(LinkConditions::default());
            link.down.send_replace(LinkConditions::default());
        }
        self.log(format!("node {node}: its links are restored"));
    }

    async fn start_plane(&mut self, at: usize) {
        let plane = SimControlPlane::start(
            self.replicas[at].clone(),
            Arc::clone(&self.planned),
            self.coverage.clone(),
            self.max_age,
            &mut self.rng,
        );
        self.planes[at] = plane.await;
        let listener = self.planes[at].as_ref().map(SimControlPlane::listener);
        for node in &self.nodes {
            node.network.listeners.lock()[at].clone_from(&listener);
        }
    }

    async fn toggle_plane(&mut self, at: usize) {
        let Some(plane) = self.planes[at].take() else {
            self.disturb_all(format!("plane {at}: starts"));
            return self.start_plane(at).await;
        };
        for node in &self.nodes {
            node.network.listeners.lock()[at] = None;
        }
        if self.rng.random_bool(0.5) {
            self.disturb_all(format!("plane {at}: is killed"));
            self.coverage.count("plane killed");
            plane.kill();
        } else {
            self.disturb_all(format!("plane {at}: stops"));
            self.coverage.count("plane stopped");
            let began = Instant::now();
            plane.stop().await;
            assert!(
                began.elapsed() < Duration::from_secs(7),
                "a plane did not stop"
            );
        }
    }

    async fn start_node(&mut self, node: usize) {
        let lifetime = if self.rng.random_bool(0.2) { 30 } else { 1800 };
        self.nodes[node].start(Duration::from_secs(lifetime)).await;
    }

    async fn toggle_node(&mut self, node: usize) {
        if self.nodes[node].feed.is_none() {
            self.disturb(node, "starts");
            return self.start_node(node).await;
        }
        if self.rng.random_bool(0.3) {
            self.disturb(node, "stops");
            self.coverage.count("node stopped");
            return self.nodes[node].stop().await;
        }
        let disks = [
            Disk::Kept,
            Disk::Lost,
            Disk::Flipped,
            Disk::Truncated,
            Disk::HalfWritten,
        ];
        let disk = disks[self.rng.random_range(0..disks.len())];
        self.disturb(node, &format!("is killed, its table on disk {disk:?}"));
        self.coverage.count("node killed");
        self.nodes[node].kill(disk).await;
        if self.rng.random_bool(0.5) {
            self.start_node(node).await;
        }
    }

    async fn end(&mut self) {
        for node in &mut self.nodes {
            node.stop().await;
            let left = std::fs::read_dir(node.cache()).expect("a folder").count();
            assert!(left <= 4, "files accumulate in the cache folder");
        }
        for plane in self.planes.drain(..).flatten() {
            plane.kill();
        }
    }
}

fn host(uid: &str) -> String {
    format!("{uid}.localhost")
}

fn route(uid: &str, content: u32, padding: usize) -> pb::Route {
    let env = (padding > 0).then(|| ("PADDING".to_owned(), "x".repeat(padding)));
    pb::Route {
        service: format!("s-{content}"),
        service_uid: uid.to_owned(),
        hosts: vec![host(uid)],
        settings: Some(pb::ServiceSettings::default()),
        versions: vec![pb::RouteVersion {
            number: 1,
            uid: format!("v-{content}"),
            spec: Some(pb::VersionSpec {
                image: "hello:1".to_owned(),
                env: env.into_iter().collect(),
                ..pb::VersionSpec::default()
            }),
            ..pb::RouteVersion::default()
        }],
        slots: vec![1; 100],
        ..pb::Route::default()
    }
}
