//! The raw side: engine calls by hand, as fast as they can be made.

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

/// What a container is created with.
#[derive(Clone)]
pub(crate) struct Options {
    /// On the node's bridge.
    pub(crate) body: ContainerCreateBody,
    /// The options of the pause container that it was in, if it was in one.
    pub(crate) sandbox: Option<ContainerCreateBody>,
}

impl Options {
    /// Those of a container that cless made.
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

    fn joining(&self, pause: &str) -> ContainerCreateBody {
        let mut body = self.body.clone();
        // The engine refuses ports on a container without a network of its own.
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

/// Where the time of one raw start went.
#[derive(Default)]
pub(crate) struct Phases {
    pub(crate) create: Duration,
    pub(crate) start: Duration,
    pub(crate) ready: Duration,
    pub(crate) get: Duration,
    pub(crate) total: Duration,
}

/// From nothing to an answer, on the bridge.
pub(crate) async fn on_the_bridge(docker: &Docker, options: &Options) -> Result<Phases> {
    let begin = Instant::now();
    let id = create(docker, options.body.clone()).await?;
    let create = begin.elapsed();
    let outcome = async {
        docker.start_container(&id, None).await?;
        let started = begin.elapsed();
        let address = engine::address(docker, &id, PORT).await?;
        until_open(address).await?;
        let ready = begin.elapsed();
        one_get(address).await?;
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

/// From nothing but a ready-made network to an answer: probed from the moment start is sent.
pub(crate) async fn in_a_sandbox(docker: &Docker, options: &Options) -> Result<Phases> {
    let sandbox = options
        .sandbox
        .clone()
        .context("there is no sandbox to copy")?;
    let pause = create(docker, sandbox).await?;
    let outcome = async {
        docker.start_container(&pause, None).await?;
        let address = engine::address(docker, &pause, PORT).await?;
        sleep(crate::SETTLE).await;
        joined(docker, options.joining(&pause), address).await
    }
    .await;
    engine::remove(docker, &pause).await?;
    outcome
}

async fn joined(docker: &Docker, body: ContainerCreateBody, address: SocketAddr) -> Result<Phases> {
    let begin = Instant::now();
    let id = create(docker, body).await?;
    let create = begin.elapsed();
    let start = async {
        docker.start_container(&id, None).await?;
        Ok(begin.elapsed())
    };
    let answered = async {
        until_open(address).await?;
        let ready = begin.elapsed();
        one_get(address).await?;
        anyhow::Ok((ready, begin.elapsed()))
    };
    let outcome = tokio::try_join!(start, answered);
    engine::remove(docker, &id).await?;
    let (started, (ready, total)) = outcome?;
    Ok(Phases {
        create,
        // It may answer before the engine does.
        start: started.min(ready) - create,
        ready: ready.saturating_sub(started),
        get: total - ready,
        total,
    })
}

/// From nothing to an answer, with one of `places` held while the engine is at work. Gives the id.
pub(crate) async fn within(
    docker: &Docker,
    options: &Options,
    places: &tokio::sync::Semaphore,
) -> Result<String> {
    let place = places.acquire().await?;
    let id = create(docker, options.body.clone()).await?;
    docker.start_container(&id, None).await?;
    drop(place);
    let address = engine::address(docker, &id, PORT).await?;
    until_open(address).await?;
    one_get(address).await?;
    Ok(id)
}

async fn create(docker: &Docker, body: ContainerCreateBody) -> Result<String> {
    let created = docker.create_container(None::<CreateContainerOptions>, body);
    Ok(created.await?.id)
}

async fn until_open(address: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        ensure!(begin.elapsed() < SOON, "the raw container does not listen");
        sleep(PROBE_EVERY).await;
    }
    Ok(())
}

async fn one_get(address: SocketAddr) -> Result<()> {
    let answer = get(address, "raw.localhost", "/").await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}
