//! The raw side: direct engine calls, as fast as possible.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions};
use cless_tests::engine;
use cless_tests::http_client::get;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::SOON;

const PORT: u16 = 8080;
const PROBE_EVERY: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub(crate) struct Options {
    /// Options on the node's bridge.
    pub(crate) body: ContainerCreateBody,
    /// Options of the pause container whose network it joined; `None` if it joined none.
    pub(crate) sandbox: Option<ContainerCreateBody>,
}

impl Options {
    pub(crate) async fn of(docker: &Docker, id: &str) -> Result<Self> {
        let mut body = body_of(docker, id).await?;
        let Some(pause) = engine::sandbox_of(docker, id).await? else {
            return Ok(Self {
                body,
                sandbox: None,
            });
        };
        let sandbox = body_of(docker, &pause).await?;
        let network = sandbox
            .host_config
            .as_ref()
            .and_then(|host| host.network_mode.clone());
        if let Some(host) = &mut body.host_config {
            host.network_mode = network;
        }
        Ok(Self {
            body,
            sandbox: Some(sandbox),
        })
    }

    fn in_network_of(&self, pause: &str) -> ContainerCreateBody {
        let mut body = self.body.clone();
        // The engine rejects exposed ports on a container that joins another's network.
        body.exposed_ports = None;
        if let Some(host) = &mut body.host_config {
            host.network_mode = Some(format!("container:{pause}"));
        }
        body
    }
}

async fn body_of(docker: &Docker, id: &str) -> Result<ContainerCreateBody> {
    let found = docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await?;
    let (config, host) = (found.config.unwrap_or_default(), found.host_config);
    Ok(ContainerCreateBody {
        image: config.image,
        env: config.env,
        cmd: config.cmd,
        entrypoint: config.entrypoint,
        exposed_ports: config.exposed_ports,
        stop_signal: config.stop_signal,
        stop_timeout: config.stop_timeout,
        user: config.user,
        host_config: host,
        ..Default::default()
    })
}

#[derive(Default)]
pub(crate) struct Phases {
    pub(crate) create: Duration,
    pub(crate) start: Duration,
    pub(crate) ready: Duration,
    pub(crate) get: Duration,
    pub(crate) total: Duration,
}

/// Creates a container on the bridge and waits for its first response.
pub(crate) async fn on_the_bridge(docker: &Docker, options: &Options) -> Result<Phases> {
    let begin = Instant::now();
    let id = create(docker, options.body.clone()).await?;
    let create = begin.elapsed();
    let outcome = async {
        docker.start_container(&id, None).await?;
        let started = begin.elapsed();
        let address = engine::address(docker, &id, PORT).await?;
        wait_open(address).await?;
        let ready = begin.elapsed();
        check_response(address).await?;
        let total = begin.elapsed();
        Ok(Phases {
            create,
            start: started - create,
            ready: ready - started,
            get: total - ready,
            total,
        })
    }
    .await;
    engine::remove(docker, &id).await?;
    outcome
}

/// Creates a container in a prepared network and waits for its first response. Probes start
/// together with the start call.
pub(crate) async fn in_a_sandbox(docker: &Docker, options: &Options) -> Result<Phases> {
    let sandbox = options
        .sandbox
        .clone()
        .context("the options contain no sandbox")?;
    let pause = create(docker, sandbox).await?;
    let outcome = async {
        docker.start_container(&pause, None).await?;
        let address = engine::address(docker, &pause, PORT).await?;
        sleep(crate::SETTLE).await;
        start_joined(docker, options.in_network_of(&pause), address).await
    }
    .await;
    engine::remove(docker, &pause).await?;
    outcome
}

async fn start_joined(
    docker: &Docker,
    body: ContainerCreateBody,
    address: SocketAddr,
) -> Result<Phases> {
    let begin = Instant::now();
    let id = create(docker, body).await?;
    let create = begin.elapsed();
    let start = async {
        docker.start_container(&id, None).await?;
        Ok(begin.elapsed())
    };
    let response = async {
        wait_open(address).await?;
        let ready = begin.elapsed();
        check_response(address).await?;
        anyhow::Ok((ready, begin.elapsed()))
    };
    let outcome = tokio::try_join!(start, response);
    engine::remove(docker, &id).await?;
    let (started, (ready, total)) = outcome?;
    Ok(Phases {
        create,
        // The container may respond before the start call does.
        start: started.min(ready) - create,
        ready: ready.saturating_sub(started),
        get: total - ready,
        total,
    })
}

/// Starts a container on the bridge, waits for its first response and returns its id. Create and
/// start hold one of `permits`.
pub(crate) async fn start_limited(
    docker: &Docker,
    options: &Options,
    permits: &tokio::sync::Semaphore,
) -> Result<String> {
    let permit = permits.acquire().await?;
    let id = create(docker, options.body.clone()).await?;
    docker.start_container(&id, None).await?;
    drop(permit);
    let address = engine::address(docker, &id, PORT).await?;
    wait_open(address).await?;
    check_response(address).await?;
    Ok(id)
}

async fn create(docker: &Docker, body: ContainerCreateBody) -> Result<String> {
    let created = docker.create_container(None::<CreateContainerOptions>, body);
    Ok(created.await?.id)
}

async fn wait_open(address: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        ensure!(
            begin.elapsed() < SOON,
            "the raw container does not listen on its port"
        );
        sleep(PROBE_EVERY).await;
    }
    Ok(())
}

async fn check_response(address: SocketAddr) -> Result<()> {
    let response = get(address, "raw.localhost", "/").await?;
    ensure!(response.status == 200, "{response:?}");
    Ok(())
}
