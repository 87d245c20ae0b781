//! All pools of a node: made at first need, kept in step with the route table and the engine.
//!
//! Two reconcilers, both idempotent and both rereading the whole state they work from:
//! - [`Pools::reconcile`] tells every pool what the table says of its version, and makes the pools
//!   of versions that are to be proved or kept warm;
//! - [`Pools::sweep`] compares the engine's containers with the pools: takes over what is healthy
//!   and routed, removes what nobody knows, and reports as dead what the engine does not have.
//!
//! Ownership: only containers labelled with this node's random id are ever looked at, and the id's
//! file is locked while the process lives, so no other process makes or removes them. Nothing is
//! removed before the first committed sync of this run: an old table on disk may lack what another
//! start of this node began.

#[path = "engine_events.rs"]
mod follow;
#[path = "reconcile.rs"]
mod sweep;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::warn;

use super::engine::{Engine, network_name};
use super::gate::Gate;
use super::oci::OciRuntime;
use super::outage::Outage;
use super::owner::{Membership, Message, Owner, Surroundings};
use super::pool::{Pool, Shared};
use super::report::NodeReport;
use super::sandbox::{self, Sandboxes};
use super::sure;
use crate::image::{Puller, Record};
use crate::isolation::Isolation;
use crate::metrics::Metrics;
use crate::route::{Route, Table, Version, VersionKey};
use crate::runtime::{Runtime, Runtimes, label};
use crate::scale::decide::Standing;

/// Beyond the longest grace of its containers, how long a node that stops gives the engine to end and
/// remove them.
const TO_REMOVE: Duration = Duration::from_secs(2);
/// How long containers that are left may take to be removed when the node stops.
const CLEAR_WITHIN: Duration = Duration::from_secs(20);

/// All pools of a node. Cheap to clone.
#[derive(Clone)]
pub struct Pools {
    inner: Arc<Inner>,
}

struct Inner {
    /// Owners run here, whichever thread first asks for a pool.
    home: tokio::runtime::Handle,
    pools: Mutex<HashMap<VersionKey, Pool>>,
    around: Surroundings,
    table: Mutex<Arc<Table>>,
    /// A sync was committed in this run, so leftovers may be removed.
    synced: AtomicBool,
    stopping: AtomicBool,
    /// The engine's name and version, or what is wrong with it.
    engine: Mutex<Result<String, String>>,
    sweep: Notify,
}

/// Who this node is, and how many starts it runs at once.
#[derive(Debug, Clone)]
pub struct Node {
    /// The random id kept in the cache folder.
    pub id: String,
    /// This start of the process.
    pub boot: String,
    /// Starts at once.
    pub starts_at_once: usize,
    /// What this node pulled for cless.
    pub images: Arc<Record>,
    /// The engine's runtime that containers run under; `None`: its default.
    pub runtime: Option<String>,
    /// What keeps its containers apart.
    pub isolation: Isolation,
    /// Network sandboxes kept ready; 0: none are made.
    pub sandboxes: usize,
}

impl Pools {
    /// No pools yet. `table` is what the node has now, empty if nothing; `changed` is bumped whenever
    /// [`Pools::report`] would say something new, but for in-flight counts.
    pub fn new(
        node: Node,
        runtime: Arc<dyn Runtime>,
        metrics: Arc<Metrics>,
        table: Arc<Table>,
        changed: watch::Sender<u64>,
    ) -> Self {
        let engine = Engine {
            cluster: parking_lot::RwLock::new(table.cluster().clone()),
            node: node.id,
            boot: node.boot,
            gate: Gate::new(node.starts_at_once),
            network: parking_lot::RwLock::default(),
            puller: Puller::new(runtime.clone(), node.images),
            linked: watch::Sender::new(false),
            oci: OciRuntime::new(node.runtime),
            sandboxes: Arc::new(Sandboxes::new(node.sandboxes)),
            runtime,
            isolation: node.isolation,
            outage: watch::Sender::new(Outage::default()),
            full: Mutex::default(),
        };
        Self {
            inner: Arc::new(Inner {
                home: tokio::runtime::Handle::current(),
                pools: Mutex::default(),
                around: Surroundings {
                    engine: Arc::new(engine),
                    metrics,
                    changed,
                },
                table: Mutex::new(table),
                synced: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                engine: Mutex::new(Ok(String::new())),
                sweep: Notify::new(),
            }),
        }
    }

    /// The pool of a version that the table routes to; made if there is none.
    pub fn get(&self, route: &Route, version: &Arc<Version>) -> Pool {
        let mut pools = self.inner.pools.lock();
        if let Some(pool) = pools.get(&version.key) {
            return pool.clone();
        }
        let standing = standing_of(route, version);
        let member = Membership {
            standing,
            version: version.clone(),
            settings: route.settings.clone(),
        };
        let (mailbox, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(version, &route.settings, mailbox));
        let pool = Pool {
            shared: shared.clone(),
        };
        pools.insert(version.key.clone(), pool.clone());
        let owner = Owner::new(shared.clone(), self.inner.around.clone(), inbox, member);
        let inner = Arc::downgrade(&self.inner);
        self.inner.home.spawn(owner.run(move || {
            if let Some(inner) = inner.upgrade() {
                let mut pools = inner.pools.lock();
                if pools
                    .get(&shared.key)
                    .is_some_and(|pool| Arc::ptr_eq(&pool.shared, &shared))
                {
                    pools.remove(&shared.key);
                }
            }
        }));
        pool
    }

    /// Brings every pool in step with a table. `synced`: a sync was committed in this run.
    pub fn reconcile(&self, table: &Arc<Table>, synced: bool) {
        if table.is_initial() || self.inner.stopping.load(Ordering::Relaxed) {
            return;
        }
        *self.inner.around.engine.cluster.write() = table.cluster().clone();
        self.inner.around.engine.sandboxes.wake();
        *self.inner.table.lock() = table.clone();
        for pool in self.all() {
            pool.shared.tell(told(table, pool.key()));
        }
        for route in table.routes() {
            for version in &route.versions {
                let warm = route.settings.min_instances > 0;
                let warm = warm && route.percent(version.key.number) > 0;
                if version.verify.is_some() || warm {
                    self.get(route, version);
                }
            }
        }
        if synced && !self.inner.synced.swap(true, Ordering::Relaxed) {
            self.inner.sweep.notify_one();
        }
    }

    /// Whether a control plane is connected, so that a start may hear from it.
    pub fn set_linked(&self, linked: bool) {
        self.inner.around.engine.linked.send_replace(linked);
    }

    fn all(&self) -> Vec<Pool> {
        self.inner.pools.lock().values().cloned().collect()
    }

    /// Keeps network sandboxes ready for new instances, until the node stops.
    pub async fn keep_sandboxes(self) {
        let changed = &self.inner.around.changed;
        let tell = || changed.send_modify(|count| *count += 1);
        sandbox::keep(self.inner.around.engine.clone(), tell).await;
    }

    /// A container of this node has ended: an instance, or a pause container.
    fn died(&self, name: String, labels: &BTreeMap<String, String>) {
        self.sandbox_died(&name);
        self.tell(labels, Message::Died(name));
    }

    /// Tells the pool of a container by its labels.
    fn tell(&self, labels: &BTreeMap<String, String>, message: Message) {
        if let Some(key) = key_of(labels)
            && let Some(pool) = self.inner.pools.lock().get(&key)
        {
            pool.shared.tell(message);
        }
    }

    /// Whoever is in it has lost its network. Does nothing if no sandbox has this name.
    fn sandbox_died(&self, name: &str) {
        let engine = &self.inner.around.engine;
        if let Some(instance) = engine.sandboxes.died(&engine.runtime, name) {
            for pool in self.all() {
                pool.shared.tell(Message::NetworkLost(instance.clone()));
            }
        }
    }

    fn compare_runtimes(&self, offered: &Runtimes) {
        let oci = &self.inner.around.engine.oci;
        if oci.compare(offered) {
            if let Err(unfit) = oci.found() {
                warn!(%unfit, "no container is started");
            }
            self.inner.around.changed.send_modify(|count| *count += 1);
        }
    }

    /// The node's state as of now.
    pub fn report(&self) -> NodeReport {
        let mut report = NodeReport::default();
        match &*self.inner.engine.lock() {
            Ok(name) => report.engine.clone_from(name),
            Err(error) => report.warnings.push(format!("engine: {error}")),
        }
        match self.inner.around.engine.oci.found() {
            Ok(name) => report.runtime = name,
            Err(unfit) => report.warnings.push(format!("engine: {unfit}")),
        }
        if let Some(said) = &*self.inner.around.engine.full.lock() {
            report.warnings.push(format!(
                "engine: its disk was full at the last start: {said}; free some, by removing images \
                 that are not needed for example"
            ));
        }
        let sandboxes = &self.inner.around.engine.sandboxes;
        (report.sandboxes.idle, report.sandboxes.used) = sandboxes.counts();
        let trouble = sandboxes.trouble();
        report
            .warnings
            .extend(trouble.map(|why| format!("network sandboxes: {why}; starts use the bridge")));
        for pool in self.all() {
            let view = pool.shared.view.lock();
            for (instance, known) in &view.instances {
                let mut known = known.clone();
                known.in_flight = instance.admission.in_flight();
                report.instances.push(known);
            }
            report.versions.extend(view.version.clone());
        }
        report
    }

    /// Stops every pool: drains, then removes this node's containers and network, or with `keep`
    /// leaves what is ready for the next process. Requests that still run after `patience` are cut;
    /// containers get the grace of their version in any case.
    pub async fn shut_down(&self, keep: bool, patience: Duration) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        let mut least = Duration::ZERO;
        for pool in self.all() {
            least = least.max(pool.shared.stop_grace + TO_REMOVE);
            let (done, ended) = oneshot::channel();
            if pool.shared.tell(Message::Stop { keep, done }) {
                waits.push(ended);
            }
        }
        let all_ended = async {
            for ended in waits {
                // Answered by being dropped.
                let _ = ended.await;
            }
        };
        let engine = &self.inner.around.engine;
        let all_ended = async {
            tokio::join!(all_ended, engine.sandboxes.shut_down(&*engine.runtime));
        };
        tokio::pin!(all_ended);
        let mut in_time = tokio::time::timeout(patience, &mut all_ended).await.is_ok();
        // Of an engine that is away no container is ended, however long one waits.
        if !in_time && self.engine_answers() {
            let rest = least.saturating_sub(patience);
            in_time = tokio::time::timeout(rest, all_ended).await.is_ok();
        }
        if keep {
            return;
        }
        if !in_time {
            warn!("requests still run after the time to drain; their containers are removed");
        }
        if tokio::time::timeout(CLEAR_WITHIN, self.clear())
            .await
            .is_err()
        {
            warn!(
                "the engine does not answer: what is left is removed at the next start of this node"
            );
        }
    }

    /// Removes what is left of this node.
    async fn clear(&self) {
        let engine = &self.inner.around.engine;
        match engine.runtime.list(&engine.node).await {
            Ok(mut left) => {
                // Networks after those who use them.
                left.sort_by_key(sandbox::is_sandbox);
                for container in left {
                    if let Err(error) = sure::remove(engine, &container.name).await {
                        warn!(container = container.name, %error, "cannot remove a container");
                    }
                }
            }
            Err(error) => warn!(%error, "cannot list this node's containers to remove them"),
        }
        if let Err(error) = engine
            .runtime
            .remove_network(&network_name(&engine.node))
            .await
        {
            warn!(%error, "cannot remove this node's network");
        }
        if let Err(error) = engine.runtime.remove_sandbox_image().await {
            warn!(%error, "cannot remove the image of pause containers");
        }
    }

    /// The engine answers, as far as is known.
    pub fn engine_answers(&self) -> bool {
        !self.inner.around.engine.outage.borrow().is_on()
    }

    /// How many requests wait in each queue, by service and version.
    pub fn queues(&self) -> Vec<(Arc<str>, u32, usize)> {
        let pools = self.all();
        let queues = pools.iter().map(|pool| {
            let service = pool.shared.service.clone();
            (service, pool.key().number, pool.waiting())
        });
        queues.collect()
    }
}

fn standing_of(route: &Route, version: &Version) -> Standing {
    if route.percent(version.key.number) > 0 {
        Standing::InTraffic
    } else {
        Standing::Reachable
    }
}

/// What the owner of a pool is told about a table.
fn told(table: &Table, key: &VersionKey) -> Message {
    match (table.version(key), table.route(&key.service_uid)) {
        (Some((route, version)), _) => Message::Member(Membership {
            standing: standing_of(route, version),
            version: version.clone(),
            settings: route.settings.clone(),
        }),
        (None, Some(_)) => Message::Left(Standing::Left),
        (None, None) => Message::Left(Standing::Deleted),
    }
}

fn key_of(labels: &BTreeMap<String, String>) -> Option<VersionKey> {
    Some(VersionKey {
        service_uid: labels.get(label::UID)?.as_str().into(),
        number: labels.get(label::VERSION)?.parse().ok()?,
    })
}
