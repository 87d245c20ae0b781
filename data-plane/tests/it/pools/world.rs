//! The pools of a node over a scripted engine, with one route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cless_data_plane::engine::policy::NodePolicy;
use cless_data_plane::isolation::Isolation;
use cless_data_plane::metrics::Metrics;
use cless_data_plane::pool::{Guard, Node, Pool, Pools, Refusal};
use cless_data_plane::report::{NodeReport, StartFailure, VersionReport};
use cless_data_plane::route::testing::with_percents;
use cless_data_plane::route::{
    Candidate, Change, Cursor, Digest, Route, Scope, Settings, Spec, Table,
};
use cless_data_plane::runtime::fake::Fake;
use cless_data_plane::runtime::label;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const NODE: &str = "0a1b2c3d-0000-4000-8000-000000000001";

pub(crate) struct World {
    pub(crate) engine: Fake,
    pub(crate) pools: Pools,
    pub(crate) route: Arc<Route>,
    pub(crate) revision: i64,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        Self::on(settings, Fake::default())
    }

    /// On a given engine.
    pub(crate) fn on(settings: Settings, engine: Fake) -> Self {
        let world = Self::unsynced(settings, engine);
        world.sync();
        world
    }

    /// On a given engine, without a route table yet.
    pub(crate) fn unsynced(settings: Settings, engine: Fake) -> Self {
        Self::build(route(settings), engine, None, 0)
    }

    /// Like [`World::unsynced`], on a node that keeps sandboxes ready.
    pub(crate) fn with_sandboxes(settings: Settings, engine: Fake, sandboxes: usize) -> Self {
        Self::build(route(settings), engine, None, sandboxes)
    }

    /// With a changed version, on a node with `--runtime`.
    pub(crate) fn of(engine: Fake, change: impl FnOnce(&mut Spec), runtime: Option<&str>) -> Self {
        let mut route = route(settings(10, 1));
        if let Some(version) = route.versions.first_mut() {
            change(&mut Arc::make_mut(version).spec);
        }
        let world = Self::build(route, engine, runtime.map(str::to_owned), 0);
        world.sync();
        world
    }

    fn build(route: Route, engine: Fake, runtime: Option<String>, sandboxes: usize) -> Self {
        let world = Self {
            pools: Pools::new(
                Node {
                    id: NODE.into(),
                    boot: "boot-2".into(),
                    starts_at_once: 2,
                    max_wakes_per_ip: 1,
                    images: Arc::default(),
                    pins: Arc::default(),
                    runtime,
                    isolation: Isolation::unchecked(),
                    sandboxes,
                    policy: NodePolicy::default(),
                    drained: false,
                },
                Arc::new(engine.clone()),
                Arc::new(Metrics::default()),
                Arc::new(Table::default()),
                watch::Sender::new(0),
            ),
            engine,
            route: Arc::new(route),
            revision: 1,
        };
        tokio::spawn(world.pools.clone().follow_engine());
        tokio::spawn(world.pools.clone().keep_sandboxes());
        world
    }

    pub(crate) fn table(&self, with_route: bool) -> Arc<Table> {
        let candidate = Candidate {
            service_uid: self.route.service_uid.clone(),
            received: bytes::Bytes::from_static(b"route"),
            digest: Digest::default(),
            decoded: Ok(self.route.clone()),
            last_good: None,
        };
        Arc::new(Table::default().apply(Change {
            cluster: "cluster".into(),
            cursor: Cursor {
                epoch: "epoch".into(),
                revision: self.revision,
                digest: Digest::default(),
            },
            scope: Scope::Snapshot,
            upserts: with_route.then_some(candidate).into_iter().collect(),
            removed: Vec::new(),
        }))
    }

    pub(crate) fn pool(&self) -> Pool {
        self.pools.get(&self.route, &self.route.versions[0])
    }

    /// Applies the current table of a synced feed.
    pub(crate) fn sync(&self) {
        self.pools.apply_table(&self.table(true), true);
    }

    pub(crate) async fn admit(&self) -> Result<Guard, Refusal> {
        self.admit_within(Duration::from_secs(5)).await
    }

    pub(crate) async fn admit_within(&self, timeout: Duration) -> Result<Guard, Refusal> {
        self.pool().admit(Instant::now() + timeout, || None).await
    }

    /// A request in a task of its own.
    pub(crate) fn waiter(&self) -> JoinHandle<Result<Guard, Refusal>> {
        let pool = self.pool();
        tokio::spawn(async move {
            pool.admit(Instant::now() + Duration::from_secs(9), || None)
                .await
        })
    }

    pub(crate) async fn stop(&self, keep: bool) {
        self.pools.shut_down(keep, Duration::from_secs(5)).await;
    }

    pub(crate) fn report(&self) -> NodeReport {
        self.pools.report()
    }

    pub(crate) fn version(&self) -> Option<VersionReport> {
        self.report().versions.into_iter().next()
    }

    pub(crate) fn failure(&self) -> StartFailure {
        let version = self.version().expect("a version");
        version.last_failure.expect("a failure")
    }

    /// Checks the message of the last failure.
    pub(crate) fn failed_with(&self, text: &str) {
        let message = self.failure().message;
        assert!(message.contains(text), "{message}");
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.engine.names().iter().any(|known| known == name)
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let what = format!("{name} is removed");
        self.until(&what, |world| !world.has(name)).await;
    }

    /// Until this number of containers exists.
    pub(crate) async fn until_left(&self, number: usize) {
        let what = format!("{number} containers");
        self.until(&what, |world| world.engine.names().len() == number)
            .await;
    }

    /// Until this number of requests waits.
    pub(crate) async fn until_waiting(&self, number: usize) {
        let what = format!("{number} requests wait");
        self.until(&what, |world| world.pool().waiting() == number)
            .await;
    }

    pub(crate) async fn until_retired(&self, guard: &Guard) {
        let retired = guard.instance().retired();
        self.until("the instance is retired", |_| retired.is_cancelled())
            .await;
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(super) fn route(settings: Settings) -> Route {
    let mut route = with_percents(&[100]);
    let version = Arc::make_mut(&mut route.versions[0]);
    version.spec.port = Some(8099);
    route.settings = Arc::new(settings);
    route
}

/// The labels of a container of an earlier process, with these in addition.
pub(crate) fn labels(more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let base = [(label::NODE, NODE), (label::BOOT, "boot-1")];
    let all = base.iter().chain(more);
    all.map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The labels of an instance of an earlier process.
pub(crate) fn instance_labels(number: &str) -> BTreeMap<String, String> {
    labels(&[
        (label::UID, "uid-a"),
        (label::VERSION, number),
        (label::PORT, "8098"),
    ])
}

/// [`settings`] with an idle timeout longer than any test.
pub(crate) fn lasting(concurrency: u32, max_instances: u32) -> Settings {
    Settings {
        idle_timeout: Duration::from_secs(60),
        ..settings(concurrency, max_instances)
    }
}

pub(crate) fn settings(concurrency: u32, max_instances: u32) -> Settings {
    Settings {
        concurrency,
        max_instances,
        idle_timeout: Duration::from_millis(300),
        ..Settings::default()
    }
}
