//! The actual containers and networks of the engine, by the labels of cless.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder,
};

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// State such as `running` or `exited`.
    pub state: String,
    /// All labels.
    pub labels: HashMap<String, String>,
}

impl Container {
    /// The value of a label; empty if it is missing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Connects to the engine that the environment names.
pub async fn connect() -> Result<Docker> {
    Docker::connect_with_defaults()?
        .negotiate_version()
        .await
        .context("no Docker engine responds; `make engine` starts one")
}

/// All containers with these labels, running or not.
pub async fn containers(docker: &Docker, labels: &[(&str, &str)]) -> Result<Vec<Container>> {
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filter(labels))
        .build();
    let list = docker.list_containers(Some(options)).await?;
    Ok(list.into_iter().map(from_summary).collect())
}

/// The engine's description of a container.
pub async fn inspect(docker: &Docker, id: &str) -> Result<ContainerInspectResponse> {
    let options = None::<InspectContainerOptions>;
    Ok(docker.inspect_container(id, options).await?)
}

/// The id of the sandbox whose network a container uses; `None` if it uses none.
pub async fn sandbox_of(docker: &Docker, id: &str) -> Result<Option<String>> {
    let found = inspect(docker, id).await?;
    Ok(joined_sandbox(&found))
}

fn joined_sandbox(found: &ContainerInspectResponse) -> Option<String> {
    let mode = found.host_config.as_ref()?.network_mode.as_ref()?;
    Some(mode.strip_prefix("container:")?.to_owned())
}

/// The address of a container, or of its sandbox, with the port of its app.
pub async fn address(docker: &Docker, id: &str, port: u16) -> Result<SocketAddr> {
    let mut found = inspect(docker, id).await?;
    if let Some(sandbox) = joined_sandbox(&found) {
        found = inspect(docker, &sandbox).await?;
    }
    let networks = found
        .network_settings
        .and_then(|n| n.networks)
        .unwrap_or_default();
    let address = networks
        .into_values()
        .find_map(|n| n.ip_address.filter(|ip| !ip.is_empty()));
    Ok(SocketAddr::new(
        address.context("the container has no address")?.parse()?,
        port,
    ))
}

/// The host's process id of a running container's first process.
pub async fn pid(docker: &Docker, id: &str) -> Result<u32> {
    let found = inspect(docker, id).await?;
    let pid = found.state.and_then(|state| state.pid);
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    pid.filter(|pid| *pid > 0)
        .context("the container is not running")
}

/// The number of networks with these labels.
pub async fn networks(docker: &Docker, labels: &[(&str, &str)]) -> Result<usize> {
    let options = ListNetworksOptionsBuilder::default()
        .filters(&filter(labels))
        .build();
    Ok(docker.list_networks(Some(options)).await?.len())
}

/// Removes a container by force; a missing container is not an error.
pub async fn remove(docker: &Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        // 409: a removal is in progress.
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes all containers and networks with these labels, after a failed test.
pub async fn sweep(docker: &Docker, labels: &[(&str, &str)]) -> Result<()> {
    for container in containers(docker, labels).await? {
        remove(docker, &container.id).await?;
    }
    let options = ListNetworksOptionsBuilder::default()
        .filters(&filter(labels))
        .build();
    for network in docker.list_networks(Some(options)).await? {
        if let Some(id) = network.id {
            docker.remove_network(&id).await?;
        }
    }
    Ok(())
}

fn filter(labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    let labels = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    [("label".to_owned(), labels)].into()
}

fn from_summary(summary: ContainerSummary) -> Container {
    Container {
        id: summary.id.unwrap_or_default(),
        state: summary
            .state
            .map(|state| state.to_string())
            .unwrap_or_default(),
        labels: summary.labels.unwrap_or_default(),
    }
}
