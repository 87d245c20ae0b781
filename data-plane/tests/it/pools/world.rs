//! The pools of a node over a scripted engine, with one route.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cless_data_plane::engine::policy::NodePolicy;
use cless_data_plane::isolation::Isolation;
use cless_data_plane::metrics::Metrics;
use cless_data_plane::pool::{Guard, Node, Pool, Pools, Refusal};
use cless_data_plane::report::VersionReport;
use cless_data_plane::route::{
    Candidate, Change, ContainerOptions, Cursor, Digest, ProbeTimings, Protocol, PullPolicy,
    Readiness, Route, Scope, Settings, Slots, Spec, Table, Version, VersionKey,
};
use cless_data_plane::runtime::fake::Fake;
use tokio::sync::watch;

pub(crate) const NODE: &str = "0a1b2c3d-0000-4000-8000-000000000001";

pub(crate) struct World {
    pub(crate) engine: Fake,
    pub(crate) pools: Pools,
    pub(crate) route: Arc<Route>,
    pub(crate) revision: i64,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let world = Self::unsynced(settings, Fake::default());
        world.pools.apply_table(&world.table(true), true);
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
    pub(crate) fn of(
        settings: Settings,
        engine: Fake,
        change: impl FnOnce(&mut Spec),
        runtime: Option<&str>,
    ) -> Self {
        let mut route = route(settings);
        if let Some(version) = route.versions.first_mut() {
            change(&mut Arc::make_mut(version).spec);
        }
        let world = Self::build(route, engine, runtime.map(str::to_owned), 0);
        world.pools.apply_table(&world.table(true), true);
        world
    }

    fn build(route: Route, engine: Fake, runtime: Option<String>, sandboxes: usize) -> Self {
        let world = Self {
            pools: Pools::new(
                Node {
                    id: NODE.into(),
                    boot: "boot-2".into(),
                    starts_at_once: 2,
                    images: Arc::default(),
                    runtime,
                    isolation: Isolation::unchecked(),
                    sandboxes,
                    policy: NodePolicy::default(),
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
            upserts: if with_route {
                vec![candidate]
            } else {
                Vec::new()
            },
            removed: Vec::new(),
        }))
    }

    pub(crate) fn pool(&self) -> Pool {
        self.pools.get(&self.route, &self.route.versions[0])
    }

    pub(crate) async fn admit(&self) -> Result<Guard, Refusal> {
        self.pool()
            .admit(Instant::now() + Duration::from_secs(5))
            .await
    }

    pub(crate) fn version(&self) -> Option<VersionReport> {
        self.pools.report().versions.into_iter().next()
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
    let version = Version {
        key: VersionKey {
            service_uid: "uid-1".into(),
            number: 1,
        },
        uid: "version-uid".into(),
        service: "hello".into(),
        host: "hello.localhost".into(),
        spec: Spec {
            image: "hello:1".into(),
            port: Some(8099),
            env: Vec::new(),
            command: Vec::new(),
            args: Vec::new(),
            cpu_millis: 1000,
            memory_bytes: 512 << 20,
            readiness: Readiness::Tcp,
            probe: ProbeTimings::default(),
            pull_policy: PullPolicy::Missing,
            protocol: Protocol::Auto,
            pids_limit: 512,
            read_only_root: false,
            tmpfs: Vec::new(),
            user: None,
            stop_signal: None,
            stop_grace: Duration::from_secs(10),
            options: ContainerOptions::default(),
        },
        image_digest: None,
        verify: None,
    };
    Route {
        service: "hello".into(),
        service_uid: "uid-1".into(),
        hosts: Box::new(["hello.localhost".into()]),
        tags: Box::new([]),
        settings: Arc::new(settings),
        versions: vec![Arc::new(version)],
        slots: Slots::new(&[1i32; 100], |_| Some(0)).ok(),
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
