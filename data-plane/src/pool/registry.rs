//! All pools of a node.
//!
//! Two reconcilers keep them in step; both are idempotent and reread the whole state they work
//! from:
//! - [`Pools::apply_table`] updates every pool from the route table, and creates the pools of
//!   versions that need verification or warm instances;
//! - [`reconcile`](super::reconcile) compares the engine's containers with the pools.
//!
//! Any other pool is created by the first request for its version.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::warn;

use super::actor::{PoolActor, PoolContext};
use super::handle::Pool;
use super::message::{Message, RouteMembership};
use super::shared::Shared;
use super::wakes::{WakeLimits, Wakers};
use crate::engine::availability::Availability;
use crate::engine::confirmed_calls;
use crate::engine::context::{EngineContext, network_name};
use crate::engine::oci_runtime::OciRuntime;
use crate::engine::policy::NodePolicy;
use crate::engine::sandbox::{self, Sandboxes};
use crate::engine::start_limiter::StartLimiter;
use crate::image::{Pins, PullRecord, Puller};
use crate::isolation::Isolation;
use crate::metrics::Metrics;
use crate::report::NodeReport;
use crate::route::{Route, Table, Version, VersionKey};
use crate::runtime::{Runtime, label};
use crate::scale::decide::VersionStatus;

/// Time for the engine to stop and remove containers at a shutdown, beyond their longest stop
/// grace.
const REMOVE_MARGIN: Duration = Duration::from_secs(2);
/// Time limit for the removal of what is left at the end of a shutdown.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(20);
/// The same while the engine does not answer.
const CLEAR_TIMEOUT_IN_OUTAGE: Duration = Duration::from_secs(1);
/// Interval at which a shutdown checks whether it still waits for something.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Limit on warnings about images of versions in one report.
const MAX_IMAGE_WARNINGS: usize = 20;

/// All pools of a node. Cheap to clone.
#[derive(Clone)]
pub struct Pools {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// Actors run here, whichever thread creates their pool.
    runtime: tokio::runtime::Handle,
    pools: Mutex<HashMap<VersionKey, Pool>>,
    pub(super) context: PoolContext,
    pub(super) table: Mutex<Arc<Table>>,
    /// Whether a sync was committed in this run, so that orphaned containers may be removed.
    pub(super) synced: AtomicBool,
    stopping: AtomicBool,
    wake_limits: WakeLimits,
    pub(super) reconcile: Notify,
}

/// The identity and the limits of a node.
#[derive(Debug, Clone)]
pub struct Node {
    /// The random id in the cache folder.
    pub id: String,
    /// The id of this process.
    pub boot: String,
    /// Limit on concurrent starts.
    pub starts_at_once: usize,
    /// Limit on the versions that one client wakes at a time; 0: no limit.
    pub max_wakes_per_ip: usize,
    /// The images that this node pulled for cless.
    pub images: Arc<PullRecord>,
    /// The local images that versions of this node run.
    pub pins: Arc<Pins>,
    /// The OCI runtime of containers; `None`: the engine's default.
    pub runtime: Option<String>,
    /// The isolation of containers.
    pub isolation: Isolation,
    /// Network sandboxes kept ready; 0 disables them.
    pub sandboxes: usize,
    /// The rights of versions beyond the default.
    pub policy: NodePolicy,
    /// Whether the node is drained.
    pub drained: bool,
}

impl Pools {
    /// Creates a registry without pools. `table` is the present table, empty if there is none.
    /// `changed` is incremented whenever [`Pools::report`] changes, except for requests in flight.
    pub fn new(
        node: Node,
        runtime: Arc<dyn Runtime>,
        metrics: Arc<Metrics>,
        table: Arc<Table>,
        changed: watch::Sender<u64>,
    ) -> Self {
        let engine = Arc::new(EngineContext {
            cluster: RwLock::new(table.cluster().clone()),
            node: node.id,
            boot: node.boot,
            start_limiter: StartLimiter::new(node.starts_at_once),
            network: RwLock::default(),
            puller: Puller::new(runtime.clone(), node.images),
            pins: node.pins,
            answer: Mutex::new(Ok(String::new())),
            control_plane: watch::Sender::new(false),
            oci_runtime: OciRuntime::new(node.runtime),
            runtime,
            isolation: node.isolation,
            policy: node.policy,
            availability: watch::Sender::new(Availability::default()),
            busy: watch::Sender::new(0),
            disk_full: Mutex::default(),
        });
        let sandboxes = Arc::new(Sandboxes::new(engine.clone(), node.sandboxes));
        Self {
            inner: Arc::new(Inner {
                runtime: tokio::runtime::Handle::current(),
                pools: Mutex::default(),
                context: PoolContext {
                    engine,
                    sandboxes,
                    metrics,
                    changed,
                    drained: watch::Sender::new(node.drained),
                },
                table: Mutex::new(table),
                synced: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                wake_limits: WakeLimits::new(node.max_wakes_per_ip),
                reconcile: Notify::new(),
            }),
        }
    }

    /// The pool of a version in the route table; created if there is none.
    pub fn get(&self, route: &Route, version: &Arc<Version>) -> Pool {
        let mut pools = self.inner.pools.lock();
        if let Some(pool) = pools.get(&version.key) {
            return pool.clone();
        }
        let membership = membership(route, version);
        let (mailbox, inbox) = mpsc::unbounded_channel();
        let wakers = Wakers::new(self.inner.wake_limits.clone());
        let demand = self.inner.context.engine.start_limiter.demand();
        let shared = Shared::new(version, &route.settings, mailbox, wakers, demand);
        let shared = Arc::new(shared);
        let pool = Pool {
            shared: shared.clone(),
        };
        pools.insert(version.key.clone(), pool.clone());
        let context = self.inner.context.clone();
        let metrics = &context.metrics;
        metrics.begin_version(&version.service, version.key.number);
        let actor = PoolActor::new(shared.clone(), context, inbox, membership);
        let inner = Arc::downgrade(&self.inner);
        self.inner.runtime.spawn(actor.run(move || {
            if let Some(inner) = inner.upgrade() {
                let mut pools = inner.pools.lock();
                let current = pools.get(&shared.key);
                if current.is_some_and(|pool| Arc::ptr_eq(&pool.shared, &shared)) {
                    pools.remove(&shared.key);
                }
            }
        }));
        pool
    }

    /// Updates every pool from a table. `synced`: a sync was committed in this run.
    pub fn apply_table(&self, table: &Arc<Table>, synced: bool) {
        if table.is_initial() || self.is_stopping() {
            return;
        }
        *self.inner.context.engine.cluster.write() = table.cluster().clone();
        self.inner.context.sandboxes.wake();
        *self.inner.table.lock() = table.clone();
        for pool in self.all() {
            pool.shared.send(update(table, pool.key()));
        }
        // The pools of a drained node are created by its requests alone.
        let routes = (!self.is_drained()).then(|| table.routes());
        for route in routes.into_iter().flatten() {
            for version in &route.versions {
                let warm = route.settings.min_instances > 0;
                let warm = warm && route.percent(version.key.number) > 0;
                if version.verify.is_some() || warm {
                    self.get(route, version);
                }
            }
        }
        if synced && !self.inner.synced.swap(true, Ordering::Relaxed) {
            self.inner.reconcile.notify_one();
        }
    }

    /// Records whether a control plane is connected; starts wait for a fixed digest only then.
    pub fn set_control_plane_connected(&self, connected: bool) {
        let control_plane = &self.inner.context.engine.control_plane;
        control_plane.send_replace(connected);
    }

    /// Takes the node out of service, or puts it into service again: see the module `drain`.
    pub fn set_drained(&self, drained: bool) {
        let changed = |now: &mut bool| std::mem::replace(now, drained) != drained;
        if !self.inner.context.drained.send_if_modified(changed) {
            return;
        }
        self.inner.context.report_changed();
        if !drained {
            let table = self.inner.table.lock().clone();
            self.apply_table(&table, self.inner.synced.load(Ordering::Relaxed));
        }
    }

    /// Whether the node is drained.
    pub fn is_drained(&self) -> bool {
        *self.inner.context.drained.borrow()
    }

    /// Keeps network sandboxes ready for new instances, until the node stops.
    pub async fn keep_sandboxes(self) {
        let context = &self.inner.context;
        let changed = || context.report_changed();
        context.sandboxes.keep_stocked(changed).await;
    }

    /// The present state of the node.
    pub fn report(&self) -> NodeReport {
        let context = &self.inner.context;
        let mut report = NodeReport {
            drained: self.is_drained(),
            ..NodeReport::default()
        };
        match &*context.engine.answer.lock() {
            Ok(name) => report.engine.clone_from(name),
            Err(error) => report.warnings.push(format!("engine: {error}")),
        }
        match context.engine.oci_runtime.selected() {
            Ok(name) => report.runtime = name,
            Err(error) => report.warnings.push(format!("engine: {error}")),
        }
        if let Some(message) = &*context.engine.disk_full.lock() {
            report.warnings.push(format!(
                "engine: its disk was full at the last start: {message}; free some, for example by \
                 removing unused images"
            ));
        }
        let policy = &context.engine.policy;
        report.allowed_capabilities = policy.capabilities.iter().cloned().collect();
        report.allowed_egress = policy.egress.iter().map(ToString::to_string).collect();
        let unresolved = context.engine.isolation.unresolved_egress().into_iter();
        report.warnings.extend(unresolved.map(|to| {
            format!("egress: {to} has no IPv4 address that containers reach; correct the name")
        }));
        (report.sandboxes.idle, report.sandboxes.used) = context.sandboxes.counts();
        let error = context.sandboxes.error();
        report
            .warnings
            .extend(error.map(|why| format!("network sandboxes: {why}; starts use the bridge")));
        report.warnings.extend(context.engine.pins.warning());
        let mut image_warnings = 0;
        for pool in self.all() {
            let view = pool.shared.view.lock();
            for (instance, known) in &view.instances {
                let mut known = known.clone();
                known.in_flight = instance.admission.in_flight();
                report.instances.push(known);
            }
            report.versions.extend(view.version.clone());
            if let Some(warning) = &view.warning
                && image_warnings < MAX_IMAGE_WARNINGS
            {
                image_warnings += 1;
                let (service, number) = (&pool.shared.service, pool.key().number);
                let warning = format!("version {number} of {service}: {warning}");
                report.warnings.push(warning);
            }
        }
        report
    }

    /// Stops every pool: drains, then removes this node's containers and network. With `keep`,
    /// ready containers stay for the next process. Requests longer than `timeout` are cut off;
    /// containers get the stop grace of their version in any case.
    pub async fn shut_down(&self, keep: bool, timeout: Duration) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let mut ends = Vec::new();
        let mut minimum = Duration::ZERO;
        for pool in self.all() {
            minimum = minimum.max(pool.shared.stop_grace + REMOVE_MARGIN);
            let (done, ended) = oneshot::channel();
            if pool.shared.send(Message::Stop { keep, done }) {
                ends.push(ended);
            }
        }
        let all_ended = async {
            for ended in ends {
                // The actor drops its sender at its end.
                let _ = ended.await;
            }
        };
        let all_ended = async {
            tokio::join!(all_ended, self.inner.context.sandboxes.shut_down());
        };
        tokio::pin!(all_ended);
        let mut in_time = tokio::select! {
            biased;
            () = &mut all_ended => true,
            () = self.until_only_the_engine_is_missing() => false,
            () = tokio::time::sleep(timeout) => false,
        };
        // An unavailable engine stops no container, however long the wait.
        if !in_time && self.engine_answers() {
            let rest = minimum.saturating_sub(timeout);
            in_time = tokio::time::timeout(rest, all_ended).await.is_ok();
        }
        if keep {
            return;
        }
        if !in_time && self.engine_answers() {
            warn!("requests exceed the drain timeout; their containers are removed");
        }
        let clear_timeout = match self.engine_answers() {
            true => CLEAR_TIMEOUT,
            false => CLEAR_TIMEOUT_IN_OUTAGE,
        };
        if tokio::time::timeout(clear_timeout, self.clear())
            .await
            .is_err()
        {
            warn!("the engine does not answer: the next start of this node removes what is left");
        }
    }

    /// Returns once no request is in flight and the engine does not answer: there is nothing that a
    /// further wait could bring about.
    async fn until_only_the_engine_is_missing(&self) {
        while self.engine_answers() || self.in_flight() > 0 {
            tokio::time::sleep(STOP_POLL).await;
        }
    }

    /// Requests in flight on all instances.
    fn in_flight(&self) -> u32 {
        let pools = self.all();
        let views = pools.iter().map(|pool| pool.shared.view.lock());
        let in_flight = views.map(|view| {
            let instances = view.instances.iter();
            instances
                .map(|(instance, _)| instance.admission.in_flight())
                .sum::<u32>()
        });
        in_flight.sum()
    }

    /// Removes everything that is left of this node.
    async fn clear(&self) {
        let engine = &self.inner.context.engine;
        match engine.runtime.list(&engine.node).await {
            Ok(mut left) => {
                // Pause containers last: instances use their networks.
                left.sort_by_key(sandbox::is_sandbox);
                for container in left {
                    if let Err(error) = confirmed_calls::remove(engine, &container.name).await {
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

    /// Whether the engine answered the last call.
    pub fn engine_answers(&self) -> bool {
        self.inner.context.engine.is_available()
    }

    /// The length of each queue, by service and version.
    pub fn queues(&self) -> Vec<(Arc<str>, u32, usize)> {
        let pools = self.all();
        let queues = pools.iter().map(|pool| {
            let service = pool.shared.service.clone();
            (service, pool.key().number, pool.waiting())
        });
        queues.collect()
    }

    pub(super) fn all(&self) -> Vec<Pool> {
        self.inner.pools.lock().values().cloned().collect()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Relaxed)
    }

    /// Records the engine's answer. True if it changed.
    pub(super) fn set_engine(&self, answer: Result<String, String>) -> bool {
        let mut engine = self.inner.context.engine.answer.lock();
        let changed = *engine != answer;
        *engine = answer;
        changed
    }

    /// Sends a message to the pool of the container with these labels.
    pub(super) fn send_to(&self, labels: &BTreeMap<String, String>, message: Message) {
        if let Some(key) = key_of(labels)
            && let Some(pool) = self.inner.pools.lock().get(&key)
        {
            pool.shared.send(message);
        }
    }
}

fn membership(route: &Route, version: &Arc<Version>) -> RouteMembership {
    let status = match route.percent(version.key.number) {
        0 => VersionStatus::Reachable,
        _ => VersionStatus::InTraffic,
    };
    RouteMembership {
        status,
        version: version.clone(),
        settings: route.settings.clone(),
    }
}

fn update(table: &Table, key: &VersionKey) -> Message {
    match (table.version(key), table.route(&key.service_uid)) {
        (Some((route, version)), _) => Message::Routed(membership(route, version)),
        (None, Some(_)) => Message::Unrouted(VersionStatus::Left),
        (None, None) => Message::Unrouted(VersionStatus::Deleted),
    }
}

pub(super) fn key_of(labels: &BTreeMap<String, String>) -> Option<VersionKey> {
    Some(VersionKey {
        service_uid: labels.get(label::UID)?.as_str().into(),
        number: labels.get(label::VERSION)?.parse().ok()?,
    })
}
