//! A database in memory with the history of one cluster, and its view by each replica.

use bytes::Bytes;
use cless_control_plane::domain::{ServiceId, Uid};
use cless_control_plane::store::{
    Changes, Error, FeedSource, Head, RouteChange, RouteOp, Since, StoredRoute,
};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio::time::Instant;

/// A committed table: encoded routes by service uid.
pub(super) type Committed = Arc<BTreeMap<String, Bytes>>;

/// Epoch and revision.
pub(super) type At = (String, i64);

/// The database shared by all replicas of a cluster.
#[derive(Debug)]
pub(super) struct SimDatabase {
    state: Mutex<State>,
    head: watch::Sender<i64>,
}

#[derive(Debug)]
struct State {
    cluster: String,
    epoch: u32,
    revision: i64,
    compacted: i64,
    digest: [u8; 32],
    routes: BTreeMap<String, StoredRoute>,
    log: Vec<RouteChange>,
    /// All tables ever committed.
    committed: HashMap<At, Committed>,
    /// Times of the commits.
    times: Vec<(Instant, At)>,
}

impl SimDatabase {
    pub(super) fn new(cluster: &str) -> Arc<Self> {
        let mut state = State {
            cluster: cluster.to_owned(),
            epoch: 1,
            revision: 0,
            compacted: 0,
            digest: [0; 32],
            routes: BTreeMap::new(),
            log: Vec::new(),
            committed: HashMap::new(),
            times: Vec::new(),
        };
        state.commit(None, RouteOp::None);
        state.compacted = state.revision;
        Arc::new(Self {
            head: watch::Sender::new(state.revision),
            state: Mutex::new(state),
        })
    }

    /// Sets a route, or removes it without `body`.
    pub(super) fn write(&self, uid: &str, body: Option<Bytes>) {
        let mut state = self.state.lock();
        let revision = state.revision + 1;
        if let Some(old) = state.routes.remove(uid) {
            state.digest = sum(state.digest, negated(old.sha256));
        }
        let op = match body {
            None => RouteOp::Remove,
            Some(body) => {
                state.insert(uid, revision, body);
                RouteOp::Upsert
            }
        };
        state.commit(Some(uid), op);
        self.head.send_replace(state.revision);
    }

    /// Deletes all changes except the newest `keep`.
    pub(super) fn compact(&self, keep: usize) {
        let mut state = self.state.lock();
        let cut = state.log.len().saturating_sub(keep + 1);
        state.log.drain(..cut);
        state.compacted = state.log[0].revision;
    }

    /// Restores the backup of `ago` revisions ago in a new epoch.
    pub(super) fn restore(&self, ago: i64) {
        let mut state = self.state.lock();
        let at = (state.revision - ago).max(1);
        let old = state.committed.get(&(state.epoch(), at)).cloned();
        // Without a table of this epoch only the epoch changes.
        if let Some(old) = old {
            state.revision = at;
            state.digest = [0; 32];
            state.routes.clear();
            for (uid, body) in &*old {
                state.insert(uid, at, body.clone());
            }
        }
        state.epoch += 1;
        state.log.clear();
        state.commit(None, RouteOp::None);
        state.compacted = state.revision;
        self.head.send_replace(state.revision);
    }

    pub(super) fn committed(&self, at: &At) -> Option<Committed> {
        self.state.lock().committed.get(at).cloned()
    }

    /// Whether a service's route ever had this value.
    pub(super) fn ever_had(&self, uid: &str, value: &Bytes) -> bool {
        let state = self.state.lock();
        let mut tables = state.committed.values();
        tables.any(|table| table.get(uid) == Some(value))
    }

    pub(super) fn head(&self) -> At {
        let state = self.state.lock();
        (state.epoch(), state.revision)
    }

    /// The head at a time; `None` before the first commit.
    pub(super) fn head_at(&self, then: Instant) -> Option<At> {
        let state = self.state.lock();
        let mut times = state.times.iter().rev();
        times
            .find(|(time, _)| *time <= then)
            .map(|(_, at)| at.clone())
    }

    pub(super) fn uids(&self) -> Vec<String> {
        self.state.lock().routes.keys().cloned().collect()
    }
}

impl State {
    fn epoch(&self) -> String {
        format!("{}-{}", self.cluster, self.epoch)
    }

    fn insert(&mut self, uid: &str, revision: i64, body: Bytes) {
        let sha256 = Sha256::digest(&body).into();
        self.digest = sum(self.digest, sha256);
        let route = StoredRoute {
            service_uid: Uid::parse(uid).expect("a uid"),
            service: ServiceId::parse("any").expect("an id"),
            revision,
            body,
            sha256,
        };
        self.routes.insert(uid.to_owned(), route);
    }

    fn commit(&mut self, uid: Option<&str>, op: RouteOp) {
        self.revision += 1;
        self.log.push(RouteChange {
            revision: self.revision,
            service_uid: uid.map(|uid| Uid::parse(uid).expect("a uid")),
            op,
            digest: self.digest,
        });
        let routes = self.routes.iter();
        let table = routes.map(|(uid, route)| (uid.clone(), route.body.clone()));
        let at = (self.epoch(), self.revision);
        self.committed.insert(at.clone(), Arc::new(table.collect()));
        self.times.push((Instant::now(), at));
    }

    fn head(&self) -> Head {
        Head {
            cluster: self.cluster.clone(),
            epoch: self.epoch(),
            revision: self.revision,
            compacted_revision: self.compacted,
            digest: self.digest,
        }
    }
}

/// The view of one control plane.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    database: Arc<SimDatabase>,
    /// Whether reads fail.
    pub(super) cut_off: Arc<AtomicBool>,
    /// Whether notifications are lost, so that only polling finds writes.
    pub(super) unnotified: Arc<AtomicBool>,
    never: Arc<watch::Sender<i64>>,
}

impl Replica {
    pub(super) fn new(database: &Arc<SimDatabase>) -> Self {
        Self {
            database: Arc::clone(database),
            cut_off: Arc::default(),
            unnotified: Arc::default(),
            never: Arc::new(watch::Sender::new(0)),
        }
    }

    fn read(&self) -> Result<parking_lot::MutexGuard<'_, State>, Error> {
        if self.cut_off.load(Ordering::Relaxed) {
            return Err(Error::Database("simulated: no response".to_owned()));
        }
        Ok(self.database.state.lock())
    }
}

impl FeedSource for Replica {
    fn subscribe(&self) -> watch::Receiver<i64> {
        if self.unnotified.load(Ordering::Relaxed) {
            self.never.subscribe()
        } else {
            self.database.head.subscribe()
        }
    }

    async fn load_table(&self) -> Result<(Head, Vec<StoredRoute>), Error> {
        let state = self.read()?;
        Ok((state.head(), state.routes.values().cloned().collect()))
    }

    async fn changes_since(&self, revision: i64) -> Result<Since, Error> {
        let state = self.read()?;
        let head = state.head();
        if revision > head.revision {
            return Ok(Since::Ahead(head));
        }
        if revision < head.compacted_revision {
            return Ok(Since::Compacted(head));
        }
        let changes = state.log.iter().filter(|change| change.revision > revision);
        let routes = state
            .routes
            .values()
            .filter(|route| route.revision > revision);
        Ok(Since::Changes(Changes {
            head,
            changes: changes.cloned().collect(),
            routes: routes.cloned().collect(),
        }))
    }

    async fn digest_at(&self, revision: i64) -> Result<Option<[u8; 32]>, Error> {
        let state = self.read()?;
        let mut log = state.log.iter();
        Ok(log
            .find(|change| change.revision == revision)
            .map(|change| change.digest))
    }
}

/// The sum modulo 2^256, big-endian; independent of the implementations under test.
fn sum(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    let mut sum = [0; 32];
    for at in (0..32).rev() {
        let digit = u16::from(a[at]) + u16::from(b[at]) + carry;
        sum[at] = digit.to_le_bytes()[0];
        carry = digit >> 8;
    }
    sum
}

fn negated(a: [u8; 32]) -> [u8; 32] {
    let mut one = [0; 32];
    one[31] = 1;
    sum(a.map(|byte| !byte), one)
}
