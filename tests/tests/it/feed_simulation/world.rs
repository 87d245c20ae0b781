//! One run: what happens, drawn from the seed, and what must hold at each step and in the end.

mod law;

use super::link::Weather;
use super::node::{Disk, Node};
use super::plane::{MISCHIEF, Plane, Plans};
use super::store::{Database, Replica};
use super::tally::Tally;
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
/// Two replicas of one cluster, and the only one of another.
const PLANES: usize = 3;
const STRANGER: usize = 2;
/// What a node that nothing befell may be behind: a lost hint, and a stream that moves meanwhile.
const BEHIND_MOST: Duration = Duration::from_secs(6);
/// Silence, back-off and an old connection at their longest, one after the other.
const HEALED_WITHIN: Duration = Duration::from_secs(180);

/// Runs a seed; what happened, if a law was broken.
pub(super) fn run(seed: u64, tally: &Tally) -> Result<(), String> {
    let mut story = Vec::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new(seed, tally.clone(), &mut story).await;
            let outcome = world.live().await;
            world.end().await;
            outcome
        })
    }));
    let wrong = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(wrong)) => wrong,
        Err(panic) => match panic.downcast::<String>() {
            Ok(words) => *words,
            Err(_) => "a panic".to_owned(),
        },
    };
    Err(format!(
        "seed {seed}: {wrong}; after:\n{}",
        story.join("\n")
    ))
}

struct World<'a> {
    rng: SmallRng,
    tally: Tally,
    story: &'a mut Vec<String>,
    began: Instant,
    database: Arc<Database>,
    replicas: Vec<Replica>,
    planes: Vec<Option<Plane>>,
    nodes: Vec<Node>,
    /// Since something befell it, until it was seen at the head.
    troubled: [bool; NODES],
    plans: Plans,
    uids: u128,
    contents: u32,
    /// Routes of some runs are large enough to fill a connection.
    fat: usize,
    rotates: Duration,
    _folder: tempfile::TempDir,
}

impl<'a> World<'a> {
    async fn new(seed: u64, tally: Tally, story: &'a mut Vec<String>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (database, stranger) = (Database::new("ours"), Database::new("theirs"));
        let replicas = vec![
            Replica::new(&database),
            Replica::new(&database),
            Replica::new(&stranger),
        ];
        replicas[1]
            .deaf
            .store(rng.random_bool(0.3), Ordering::Relaxed);
        let memory = std::path::Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        }
        .expect("a folder");
        let clusters = vec![("ours", Arc::clone(&database)), ("theirs", stranger)];
        let nodes = (0..NODES)
            .map(|n| {
                let at = folder.path().join(n.to_string());
                Node::new(
                    format!("node-{n}"),
                    at,
                    PLANES,
                    clusters.clone(),
                    tally.clone(),
                    &mut rng,
                )
            })
            .collect();
        let mut world = Self {
            fat: if rng.random_bool(0.08) { 120 * 1024 } else { 0 },
            rotates: Duration::from_secs(if rng.random_bool(0.3) { 40 } else { 1800 }),
            rng,
            tally,
            story,
            began: Instant::now(),
            database,
            replicas,
            planes: (0..PLANES).map(|_| None).collect(),
            nodes,
            troubled: [true; NODES],
            plans: Plans::default(),
            uids: 0,
            contents: 0,
            _folder: folder,
        };
        for _ in 0..4 {
            world.write();
        }
        for plane in 0..PLANES {
            world.start_plane(plane).await;
        }
        for node in 0..NODES {
            world.start_node(node).await;
        }
        world
    }

    fn tell(&mut self, what: String) {
        self.story
            .push(format!("{:>9.3?} {what}", self.began.elapsed()));
    }

    async fn live(&mut self) -> Result<(), String> {
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
        self.heal().await
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
            36..44 => self.weather(node, plane).await,
            44..52 => self.fair(node),
            52..56 => {
                self.trouble(node, "its connections break");
                self.nodes[node].disconnect();
            }
            56..64 => self.plane(plane).await,
            64..74 => self.node(node).await,
            74..86 => {
                let plan = MISCHIEF[self.rng.random_range(0..MISCHIEF.len())];
                self.trouble(node, &format!("{plan:?}"));
                self.plans
                    .lock()
                    .insert(self.nodes[node].name.clone(), plan);
                self.write();
            }
            86..91 => {
                let cut = &self.replicas[plane].cut_off;
                let now = !cut.fetch_xor(true, Ordering::Relaxed);
                self.trouble_all(format!("plane {plane}: database answers: {}", !now));
            }
            91..95 => {
                let keep = self.rng.random_range(0..4);
                self.database.compact(keep);
                self.tell(format!("all changes but {keep} are forgotten"));
            }
            95..97 => {
                let ago = self.rng.random_range(0..8);
                self.database.restore(ago);
                self.trouble_all(format!("restored from {ago} revisions ago"));
            }
            _ => {
                let mut misled = self.nodes[node].view.misled.lock();
                *misled = if misled.is_some() {
                    None
                } else {
                    Some(STRANGER)
                };
                let now = *misled;
                drop(misled);
                self.trouble(node, &format!("is led to plane {now:?}"));
                self.nodes[node].disconnect();
            }
        }
    }

    fn trouble(&mut self, node: usize, what: &str) {
        self.troubled[node] = true;
        self.tell(format!("node {node}: {what}"));
    }

    fn trouble_all(&mut self, what: String) {
        self.troubled = [true; NODES];
        self.tell(what);
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
        let route = route(&uid, self.contents, self.fat);
        let body = match self.rng.random_range(0..12) {
            0 | 1 => None,
            // Does not decode.
            2 => Some(Bytes::from(format!("{} is no route", self.contents))),
            // Wants another's host.
            3 if !known.is_empty() => {
                let mut greedy = route;
                greedy.hosts.push(host(&known[0]));
                Some(greedy.encode_to_vec().into())
            }
            _ => Some(route.encode_to_vec().into()),
        };
        self.database.write(&uid, body);
        let head = self.database.head().1;
        self.tell(format!("revision {head} is written"));
    }

    async fn weather(&mut self, node: usize, plane: usize) {
        let cut = |cut| Weather {
            cut,
            ..Weather::default()
        };
        let delay = Duration::from_millis(self.rng.random_range(1..20));
        let slow = Weather { cut: false, delay };
        let (what, up, down) = match self.rng.random_range(0..4) {
            0 => ("hears nothing from", cut(false), cut(true)),
            1 => ("is not heard by", cut(true), cut(false)),
            2 => ("is cut off from", cut(true), cut(true)),
            _ => ("is far from", slow, slow),
        };
        self.trouble(node, &format!("{what} plane {plane}"));
        let path = &self.nodes[node].view.paths[plane];
        path.up.send_replace(up);
        path.down.send_replace(down);
        if up.cut && down.cut && self.fat > 0 {
            // More than a connection holds, for longer than a stream may stall.
            for _ in 0..14 {
                self.write();
            }
            sleep(Duration::from_secs(35)).await;
        }
    }

    fn fair(&mut self, node: usize) {
        for path in &self.nodes[node].view.paths {
            path.up.send_replace(Weather::default());
            path.down.send_replace(Weather::default());
        }
        self.tell(format!("node {node}: has a fair network"));
    }

    async fn start_plane(&mut self, at: usize) {
        let plane = Plane::start(
            self.replicas[at].clone(),
            Arc::clone(&self.plans),
            self.tally.clone(),
            self.rotates,
            &mut self.rng,
        );
        self.planes[at] = plane.await;
        let door = self.planes[at].as_ref().map(Plane::door);
        for node in &self.nodes {
            node.view.doors.lock()[at].clone_from(&door);
        }
    }

    async fn plane(&mut self, at: usize) {
        let Some(plane) = self.planes[at].take() else {
            self.trouble_all(format!("plane {at}: starts"));
            return self.start_plane(at).await;
        };
        for node in &self.nodes {
            node.view.doors.lock()[at] = None;
        }
        if self.rng.random_bool(0.5) {
            self.trouble_all(format!("plane {at}: is killed"));
            self.tally.count("plane killed");
            plane.kill();
        } else {
            self.trouble_all(format!("plane {at}: stops"));
            self.tally.count("plane stopped");
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

    async fn node(&mut self, node: usize) {
        if self.nodes[node].feed.is_none() {
            self.trouble(node, "starts");
            return self.start_node(node).await;
        }
        if self.rng.random_bool(0.3) {
            self.trouble(node, "stops");
            self.tally.count("node stopped");
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
        self.trouble(node, &format!("is killed, its table on disk {disk:?}"));
        self.tally.count("node killed");
        self.nodes[node].kill(disk).await;
        if self.rng.random_bool(0.5) {
            self.start_node(node).await;
        }
    }

    async fn end(&mut self) {
        for node in &mut self.nodes {
            node.stop().await;
            let left = std::fs::read_dir(node.cache()).expect("a folder").count();
            assert!(left <= 4, "files pile up in the cache folder");
        }
        for plane in self.planes.drain(..).flatten() {
            plane.kill();
        }
    }
}

fn host(uid: &str) -> String {
    format!("{uid}.localhost")
}

fn route(uid: &str, content: u32, fat: usize) -> pb::Route {
    let env = (fat > 0).then(|| ("FAT".to_owned(), "x".repeat(fat)));
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
