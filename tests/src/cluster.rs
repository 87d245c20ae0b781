//! One control plane and any number of data planes, as processes of their own, on ports the system
//! picks, with all their files in one temporary folder.
//!
//! ```text
//! let mut cluster = Cluster::start(2).await?;
//! let hello = cluster.serve("hello", &image, settings()).await?;   // service, version 1, 100 %
//! let answer = cluster.get("hello", "/").await?;                   // through node 0
//! cluster.finish().await?;                                         // SIGTERM; nothing may be left
//! ```
//!
//! A cluster dropped without [`Cluster::finish`] belongs to a test that failed: its processes are
//! killed, their last log lines printed and its containers removed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_proto::v1;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::engine::{self, Container};
use crate::firewall;
use crate::http_client::{self, Answer};
use crate::process::Program;
use crate::wait;

mod api;
mod node;
mod processes;

pub use api::{Api, duration, settings};
pub use node::{Node, NodeSetup};

/// How long a data plane may take to drain and to remove its containers.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// A change reaches a connected node in milliseconds; a node that was cut off comes back in seconds.
const PROPAGATED_WITHIN: Duration = Duration::from_secs(30);

/// A whole cless, of processes.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    docker: Docker,
    control_plane: Option<Program>,
    grpc: SocketAddr,
    nodes: Vec<Node>,
    /// Of data planes that are added without one of their own.
    setup: NodeSetup,
    id: String,
    /// Everything listens on all addresses of the machine, not on loopback only.
    exposed: bool,
    finished: bool,
}

impl Cluster {
    /// Starts a control plane with an empty database and `nodes` data planes, and waits until all of
    /// them have the route table.
    pub async fn start(nodes: usize) -> Result<Self> {
        Self::start_with(nodes, NodeSetup::default()).await
    }

    /// The same, with data planes of this set-up.
    pub async fn start_with(nodes: usize, setup: NodeSetup) -> Result<Self> {
        Self::start_at(engine::connect().await?, nodes, setup, false).await
    }

    /// The same, all listening on every address of this machine, where a container could reach them.
    pub async fn start_exposed(nodes: usize) -> Result<Self> {
        Self::start_at(engine::connect().await?, nodes, NodeSetup::default(), true).await
    }

    /// As [`Cluster::start_with`]; `docker` is the engine that the containers are on.
    pub async fn start_on(docker: Docker, nodes: usize, setup: NodeSetup) -> Result<Self> {
        Self::start_at(docker, nodes, setup, false).await
    }

    async fn start_at(
        docker: Docker,
        nodes: usize,
        setup: NodeSetup,
        exposed: bool,
    ) -> Result<Self> {
        let mut cluster = Self {
            dir: tempfile::Builder::new().prefix("cless-test-").tempdir()?,
            docker,
            control_plane: None,
            grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            nodes: Vec::new(),
            setup,
            id: String::new(),
            exposed,
            finished: false,
        };
        cluster.start_control_plane().await?;
        cluster.id = cluster.api()?.cluster_id().await?;
        for _ in 0..nodes {
            cluster.add_node().await?;
        }
        cluster.wait_propagated(0).await?;
        Ok(cluster)
    }

    /// The id that all its containers are labelled with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the control plane serves gRPC.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// The id of the control plane's process.
    pub fn control_plane_pid(&self) -> Result<u32> {
        let program = self.control_plane.as_ref();
        program.context("the control plane is down")?.pid()
    }

    /// The engine.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Its folder, for files of a test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A data plane, in the order they were started.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The same, to be set up otherwise before its next start.
    pub fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// The random id of a data plane that has been started.
    pub fn node_id(&self, index: usize) -> Result<String> {
        let file = self
            .dir
            .path()
            .join(&self.nodes[index].name)
            .join("node-id");
        let id = std::fs::read_to_string(&file);
        Ok(id
            .with_context(|| file.display().to_string())?
            .trim()
            .to_owned())
    }

    /// Where something is told to listen that is dialled at `address`.
    fn bound(&self, address: SocketAddr) -> SocketAddr {
        match self.exposed {
            true => SocketAddr::from(([0, 0, 0, 0], address.port())),
            false => address,
        }
    }

    /// The control plane's API.
    pub fn api(&self) -> Result<Api> {
        Ok(Api::new(self.channel()?))
    }

    /// A channel to the control plane; it connects when it is first used, and again when it must.
    pub fn channel(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc))?;
        Ok(endpoint.timeout(Duration::from_secs(30)).connect_lazy())
    }

    /// The host of a service.
    pub fn host(service: &str) -> String {
        format!("{service}.localhost")
    }

    /// A GET of a path of a service through node 0.
    pub async fn get(&self, service: &str, path: &str) -> Result<Answer> {
        self.node(0).get(&Self::host(service), path).await
    }

    /// A service with one version of `image` that gets all traffic, in force on all nodes.
    pub async fn serve(
        &self,
        service: &str,
        image: &str,
        settings: v1::ServiceSettings,
    ) -> Result<v1::Service> {
        self.serve_env(service, image, settings, &[("GREETING", "one")])
            .await
    }

    /// As [`Cluster::serve`], with an environment of the caller's.
    pub async fn serve_env(
        &self,
        service: &str,
        image: &str,
        settings: v1::ServiceSettings,
        env: &[(&str, &str)],
    ) -> Result<v1::Service> {
        let mut api = self.api()?;
        let created = api.create_service(service, settings).await?;
        let version = api.create_version(service, image, env).await?;
        self.set_traffic(service, &[(version.number, 100)]).await?;
        Ok(created)
    }

    /// Sets the split and waits until all nodes have it.
    pub async fn set_traffic(&self, service: &str, split: &[(i32, u32)]) -> Result<v1::Traffic> {
        let traffic = self.api()?.set_traffic(service, split).await?;
        self.wait_propagated(traffic.feed_revision).await?;
        Ok(traffic)
    }

    /// Waits until every running node has applied a feed revision; 0: the head.
    pub async fn wait_propagated(&self, revision: i64) -> Result<()> {
        let running = self
            .nodes
            .iter()
            .filter(|node| node.program.is_some())
            .count();
        let what = format!("revision {revision} is in force on {running} nodes");
        wait::until(&what, PROPAGATED_WITHIN, async || {
            let answer = self.api()?.check_propagation(revision).await?;
            let applied = answer.nodes_applied as usize;
            Ok((applied >= running && answer.pending.is_empty()).then_some(()))
        })
        .await
    }

    /// Waits until node 0 has exactly `count` network sandboxes ready.
    pub async fn wait_sandboxes(&self, count: usize, within: Duration) -> Result<()> {
        let line = format!(r#"cless_sandboxes{{state="idle"}} {count}"#);
        let what = format!("{count} sandboxes are ready");
        wait::until(&what, within, async || {
            let metrics = http_client::get(self.node(0).admin, "admin", "/metrics").await?;
            Ok(metrics.text().lines().any(|one| one == line).then_some(()))
        })
        .await
    }

    /// The pause containers of this cluster, used or not.
    pub async fn sandboxes(&self) -> Result<Vec<Container>> {
        let labels = [
            ("cless.cluster", self.id.as_str()),
            ("cless.role", "sandbox"),
        ];
        engine::containers(&self.docker, &labels).await
    }

    /// Every instance of this cluster: all its containers but sandboxes.
    pub async fn instances(&self) -> Result<Vec<Container>> {
        let mut all = self.containers(None).await?;
        all.retain(|one| one.label("cless.role") != "sandbox");
        Ok(all)
    }

    /// Every container of this cluster, sandboxes included, or of one service of it.
    pub async fn containers(&self, service: Option<&str>) -> Result<Vec<Container>> {
        let mut labels = vec![("cless.cluster", self.id.as_str())];
        labels.extend(service.map(|service| ("cless.service", service)));
        engine::containers(&self.docker, &labels).await
    }

    /// Waits until exactly `count` containers of the service are there, and returns them.
    pub async fn wait_containers(
        &self,
        service: &str,
        count: usize,
        within: Duration,
    ) -> Result<Vec<Container>> {
        wait::until(
            &format!("{count} containers of {service}"),
            within,
            async || {
                let found = self.containers(Some(service)).await?;
                Ok((found.len() == count).then_some(found))
            },
        )
        .await
    }

    /// Stops everything by SIGTERM and asserts that nothing of this cluster is left on the engine or in
    /// the firewall.
    pub async fn finish(mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            if self.nodes[index].program.is_some() {
                self.stop_node(index).await?;
            }
        }
        if let Some(mut program) = self.control_plane.take() {
            let status = program.stop(STOP_WITHIN).await?;
            ensure!(status.success(), "the control plane ended with {status}");
        }
        let left = self.containers(None).await?;
        ensure!(left.is_empty(), "containers are left: {left:#?}");
        for index in 0..self.nodes.len() {
            let rules = firewall::rules(&self.node_id(index)?);
            let log = self
                .dir
                .path()
                .join(format!("{}.log", self.nodes[index].name));
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let said: Vec<&str> = log.lines().rev().take(10).collect();
            ensure!(
                rules.is_empty(),
                "firewall rules are left: {rules:#?}; the node said last, newest first: {said:#?}"
            );
        }
        let networks = engine::networks(&self.docker, &[("cless.cluster", &self.id)]).await?;
        ensure!(networks == 0, "{networks} networks are left");
        self.finished = true;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut logs = String::new();
        let nodes = self.nodes.iter_mut().filter_map(|node| node.program.take());
        for program in self.control_plane.take().into_iter().chain(nodes) {
            logs.push_str(&format!("{}:\n{}\n", program.name(), program.log_tail(40)));
        }
        #[expect(
            clippy::print_stderr,
            reason = "the test harness shows it beside the failure"
        )]
        {
            eprintln!("the last log lines of this cluster:\n{logs}");
        }
        for index in 0..self.nodes.len() {
            if let Ok(id) = self.node_id(index) {
                firewall::sweep(&id);
            }
        }
        let (docker, id) = (self.docker.clone(), std::mem::take(&mut self.id));
        if id.is_empty() {
            return;
        }
        // A runtime of its own, for a drop may happen in one that is ending; joined, for the test
        // program may end right after.
        let sweep = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(engine::sweep(&docker, &[("cless.cluster", &id)]))
        });
        let _ = sweep.join();
    }
}
