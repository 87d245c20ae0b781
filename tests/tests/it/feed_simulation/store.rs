//! A database in memory: the history of one cluster, and what each replica can read of it.

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

/// A committed table: each route's bytes by its service's uid.
pub(super) type Committed = Arc<BTreeMap<String, Bytes>>;

/// Epoch and revision.
pub(super) type At = (String, i64);

/// What all replicas of a cluster share.
#[derive(Debug)]
pub(super) struct Database {
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
    /// Every table that was ever committed.
    committed: HashMap<At, Committed>,
    /// When each was.
    times: Vec<(Instant, At)>,
}

impl Database {
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

    /// Sets a route, removes it, or writes what changes no route.
    pub(super) fn write(&self, uid: &str, body: Option<Bytes>) {
        let mut state = self.state.lock();
        let revision = state.revision + 1;
        if let Some(old) = state.routes.remove(uid) {
            state.digest = sum(state.digest, negated(old.sha256));
        }
        let op = match body {
            None => RouteOp::Remove,
            Some(body) => {
                let sha256 = Sha256::digest(&body).into();
                state.digest = sum(state.digest, sha256);
                let route = StoredRoute {
                    service_uid: Uid::parse(uid).expect("a uid"),
                    service: ServiceId::parse("any").expect("an id"),
                    revision,
                    body,
                    sha256,
                };
                state.routes.insert(uid.to_owned(), route);
                RouteOp::Upsert
            }
        };
        state.commit(Some(uid), op);
        self.head.send_replace(state.revision);
    }

    /// Forgets all changes but the newest `keep`.
    pub(super) fn compact(&self, keep: usize) {
        let mut state = self.state.lock();
        let cut = state.log.len().saturating_sub(keep + 1);
        state.log.drain(..cut);
        state.compacted = state.log[0].revision;
    }

    /// A backup from `ago` revisions ago is put in the database's place, in a new epoch.
    pub(super) fn restore(&self, ago: i64) {
        let mut state = self.state.lock();
        let at = (state.revision - ago).max(1);
        let old = state.committed.get(&(state.epoch(), at)).cloned();
        // In another epoch then: only the epoch changes.
        if let Some(old) = old {
            state.revision = at;
            state.digest = [0; 32];
            state.routes.clear();
            for (uid, body) in &*old {
                let sha256 = Sha256::digest(body).into();
                state.digest = sum(state.digest, sha256);
                let route = StoredRoute {
                    service_uid: Uid::parse(uid.as_str()).expect("a uid"),
                    service: ServiceId::parse("any").expect("an id"),
                    revision: at,
                    body: body.clone(),
                    sha256,
                };
                state.routes.insert(uid.clone(), route);
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

    /// Every value that a service's route ever had.
    pub(super) fn ever(&self, uid: &str, value: &Bytes) -> bool {
        let state = self.state.lock();
        let mut tables = state.committed.values();
        tables.any(|table| table.get(uid) == Some(value))
    }

    pub(super) fn head(&self) -> At {
        let state = self.state.lock();
        (state.epoch(), state.revision)
    }

    /// The head as it was then.
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

/// What one control plane sees of the database.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    database: Arc<Database>,
    /// The database does not answer it.
    pub(super) cut_off: Arc<AtomicBool>,
    /// It hears of no write: polling must find it.
    pub(super) deaf: Arc<AtomicBool>,
    never: Arc<watch::Sender<i64>>,
}

impl Replica {
    pub(super) fn new(database: &Arc<Database>) -> Self {
        Self {
            database: Arc::clone(database),
            cut_off: Arc::default(),
            deaf: Arc::default(),
            never: Arc::new(watch::Sender::new(0)),
        }
    }

    fn read(&self) -> Result<parking_lot::MutexGuard<'_, State>, Error> {
        if self.cut_off.load(Ordering::Relaxed) {
            return Err(Error::Database("simulated: no answer".to_owned()));
        }
        Ok(self.database.state.lock())
    }
}

impl FeedSource for Replica {
    fn subscribe(&self) -> watch::Receiver<i64> {
        if self.deaf.load(Ordering::Relaxed) {
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

/// Modulo 2^256, big-endian: written apart from both planes' own.
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
