//! A control plane and any number of data planes, as processes on free ports, with all their files
//! in one temporary folder.
//!
//! ```text
//! let mut cluster = Cluster::start(2).await?;
//! let hello = cluster.serve("hello", &image, settings()).await?;   // service, version 1, 100 %
//! let answer = cluster.get("hello", "/").await?;                   // through node 0
//! cluster.finish().await?;                                         // SIGTERM; checks the clean-up
//! ```
//!
//! Dropping a cluster without [`Cluster::finish`] means that the test failed: the drop kills the
//! processes, prints their last log lines and removes the containers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_proto::v1;
use tempfile::TempDir;

use crate::access::{Access, Channel};
use crate::control_plane::any_port;
use crate::engine::{self, Container};
use crate::firewall;
use crate::http_client::{self, FullResponse};
use crate::process::Program;
use crate::wait;

mod api;
mod node;
mod processes;

pub use api::{Api, duration, settings};
pub use node::{Node, NodeSetup};

/// Time for a data plane to drain and to remove its containers.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// A change reaches a connected node within milliseconds; a disconnected one reconnects in seconds.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(30);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    docker: Docker,
    control_plane: Option<Program>,
    grpc: SocketAddr,
    nodes: Vec<Node>,
    /// Default set-up of added data planes.
    setup: NodeSetup,
    id: String,
    /// Whether everything listens on all addresses of the machine instead of loopback.
    exposed: bool,
    /// Whether the control plane encrypts and authenticates.
    trusted: bool,
    /// The access of an administrator.
    access: Access,
    finished: bool,
}

impl Cluster {
    /// Starts a control plane with an empty database and `nodes` data planes, and waits until all
    /// of them have the route table.
    pub async fn start(nodes: usize) -> Result<Self> {
        Self::start_with(nodes, NodeSetup::default()).await
    }

    /// Like [`Cluster::start`], with a set-up for the data planes.
    pub async fn start_with(nodes: usize, setup: NodeSetup) -> Result<Self> {
        Self::start_at(engine::connect().await?, nodes, setup, false, false).await
    }

    /// Like [`Cluster::start`], but the control plane encrypts and authenticates, and nodes join.
    pub async fn start_trusted(nodes: usize) -> Result<Self> {
        let setup = NodeSetup::default();
        Self::start_at(engine::connect().await?, nodes, setup, false, true).await
    }

    /// Like [`Cluster::start_trusted`], but everything listens on all addresses, reachable for containers.
    pub async fn start_exposed(nodes: usize) -> Result<Self> {
        let setup = NodeSetup::default();
        Self::start_at(engine::connect().await?, nodes, setup, true, true).await
    }

    /// Like [`Cluster::start_with`], with the engine that holds the containers.
    pub async fn start_on(docker: Docker, nodes: usize, setup: NodeSetup) -> Result<Self> {
        Self::start_at(docker, nodes, setup, false, false).await
    }

    async fn start_at(
        docker: Docker,
        nodes: usize,
        setup: NodeSetup,
        exposed: bool,
        trusted: bool,
    ) -> Result<Self> {
        let mut cluster = Self {
            dir: tempfile::Builder::new().prefix("cless-test-").tempdir()?,
            docker,
            control_plane: None,
            grpc: any_port(),
            nodes: Vec::new(),
            setup,
            id: String::new(),
            exposed,
            trusted,
            access: Access::Insecure,
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

    /// The cluster id in the labels of its containers.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// gRPC address of the control plane.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Process id of the control plane.
    pub fn control_plane_pid(&self) -> Result<u32> {
        let program = self.control_plane.as_ref();
        program.context("the control plane is down")?.pid()
    }

    /// The engine.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The temporary folder, also for files of a test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data plane at `index`, in the order of their start.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// All data planes, in the order of their start.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Like [`Cluster::node`], to change its set-up before its next start.
    pub fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// The random node id of a data plane.
    pub fn node_id(&self, index: usize) -> Result<String> {
        let file = self.dir().join(&self.nodes[index].name).join("node-id");
        let id = std::fs::read_to_string(&file);
        Ok(id
            .with_context(|| file.display().to_string())?
            .trim()
            .to_owned())
    }

    /// The address to listen on so that `address` can be connected to.
    fn listen_address(&self, address: SocketAddr) -> SocketAddr {
        match self.exposed {
            true => SocketAddr::from(([0, 0, 0, 0], address.port())),
            false => address,
        }
    }

    /// The access of an administrator.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The control plane's URL.
    pub fn url(&self) -> String {
        self.access.url(self.grpc)
    }

    /// The control plane's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// The control plane's API.
    pub fn api(&self) -> Result<Api> {
        Ok(Api::new(self.channel()?))
    }

    /// A channel to the control plane, which connects on first use and reconnects by itself.
    pub fn channel(&self) -> Result<Channel> {
        self.access.channel(self.grpc)
    }

    /// The default host of a service.
    pub fn host(service: &str) -> String {
        format!("{service}.localhost")
    }

    /// Sends a GET to a service through node 0.
    pub async fn get(&self, service: &str, path: &str) -> Result<FullResponse> {
        self.node(0).get(&Self::host(service), path).await
    }

    /// Creates a service with one version of `image` that gets all traffic, and waits until all
    /// nodes apply it.
    pub async fn serve(
        &self,
        service: &str,
        image: &str,
        settings: v1::ServiceSettings,
    ) -> Result<v1::Service> {
        self.serve_env(service, image, settings, &[("GREETING", "one")])
            .await
    }

    /// Like [`Cluster::serve`], with environment variables.
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

    /// Sets the traffic split and waits until all nodes apply it.
    pub async fn set_traffic(&self, service: &str, split: &[(i32, u32)]) -> Result<v1::Traffic> {
        let traffic = self.api()?.set_traffic(service, split).await?;
        self.wait_propagated(traffic.feed_revision).await?;
        Ok(traffic)
    }

    /// Waits until every running node has applied a feed revision; 0 means the newest.
    pub async fn wait_propagated(&self, revision: i64) -> Result<()> {
        let running = self
            .nodes
            .iter()
            .filter(|node| node.program.is_some())
            .count();
        let what = format!("{running} nodes apply revision {revision}");
        wait::until(&what, PROPAGATION_TIMEOUT, async || {
            let progress = self.api()?.check_propagation(revision).await?;
            let applied = progress.nodes_applied as usize;
            Ok((applied >= running && progress.pending.is_empty()).then_some(()))
        })
        .await
    }

    /// Waits until every running node has exactly `count` idle network sandboxes.
    pub async fn wait_sandboxes(&self, count: usize, within: Duration) -> Result<()> {
        let line = format!(r#"cless_sandboxes{{state="idle"}} {count}"#);
        for node in self.nodes.iter().filter(|node| node.program.is_some()) {
            let what = format!("{} has {count} idle sandboxes", node.name);
            wait::until(&what, within, async || {
                let metrics = http_client::get(node.admin, "admin", "/metrics").await?;
                Ok(metrics.text().lines().any(|one| one == line).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// All pause containers of this cluster, idle or in use.
    pub async fn sandboxes(&self) -> Result<Vec<Container>> {
        let labels = [
            ("cless.cluster", self.id.as_str()),
            ("cless.role", "sandbox"),
        ];
        engine::containers(&self.docker, &labels).await
    }

    /// All instances of this cluster: its containers except sandboxes.
    pub async fn instances(&self) -> Result<Vec<Container>> {
        let mut all = self.containers(None).await?;
        all.retain(|one| one.label("cless.role") != "sandbox");
        Ok(all)
    }

    /// All containers of this cluster including sandboxes, or those of one service.
    pub async fn containers(&self, service: Option<&str>) -> Result<Vec<Container>> {
        let mut labels = vec![("cless.cluster", self.id.as_str())];
        labels.extend(service.map(|service| ("cless.service", service)));
        engine::containers(&self.docker, &labels).await
    }

    /// Waits until the service has exactly `count` containers and returns them.
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

    /// Waits until the service has exactly one container, which is paused, and returns it.
    pub async fn wait_paused(&self, service: &str, within: Duration) -> Result<Container> {
        let what = format!("the container of {service} is paused");
        wait::until(&what, within, async || {
            let mut found = self.containers(Some(service)).await?;
            let is_paused = found.len() == 1 && found[0].state == "paused";
            Ok(is_paused.then(|| found.remove(0)))
        })
        .await
    }

    /// Stops everything with SIGTERM and checks that neither the engine nor the firewall keeps
    /// anything of this cluster.
    pub async fn finish(mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            if self.nodes[index].program.is_some() {
                self.stop_node(index).await?;
            }
        }
        if let Some(mut program) = self.control_plane.take() {
            program.stop_cleanly(STOP_TIMEOUT).await?;
        }
        let left = self.containers(None).await?;
        ensure!(left.is_empty(), "containers are left: {left:#?}");
        for index in 0..self.nodes.len() {
            let rules = firewall::rules(&self.node_id(index)?);
            let log = self.dir().join(format!("{}.log", self.nodes[index].name));
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(10).collect();
            ensure!(
                rules.is_empty(),
                "firewall rules are left: {rules:#?}; last log lines, newest first: {last:#?}"
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
            reason = "the test harness shows it with the failure"
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
        // The present runtime may be shutting down, and the test program may exit right after the
        // drop.
        let sweep = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(engine::sweep(&docker, &[("cless.cluster", &id)]))
        });
        let _ = sweep.join();
    }
}
