//! What the engine really holds, by the labels that cless puts on its containers.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder,
};

/// A container, as far as tests care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// `running`, `exited` and so on.
    pub state: String,
    /// All labels.
    pub labels: HashMap<String, String>,
}

impl Container {
    /// A label's value; empty if it is not there.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The engine that the environment names.
pub async fn connect() -> Result<Docker> {
    Docker::connect_with_defaults()?
        .negotiate_version()
        .await
        .context("no Docker engine answers: `make engine` starts one")
}

/// Every container, running or not, that has all these labels.
pub async fn containers(docker: &Docker, labels: &[(&str, &str)]) -> Result<Vec<Container>> {
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filter(labels))
        .build();
    let list = docker.list_containers(Some(options)).await?;
    Ok(list.into_iter().map(from_summary).collect())
}

/// The id of the sandbox whose network a container uses, if it uses one.
pub async fn sandbox_of(docker: &Docker, id: &str) -> Result<Option<String>> {
    let found = docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await?;
    Ok(joined(&found))
}

fn joined(found: &ContainerInspectResponse) -> Option<String> {
    let mode = found.host_config.as_ref()?.network_mode.as_ref()?;
    Some(mode.strip_prefix("container:")?.to_owned())
}

/// Where a container can be dialled: its own address or that of its sandbox, and the port its app
/// listens on.
pub async fn address(docker: &Docker, id: &str, port: u16) -> Result<SocketAddr> {
    let mut found = docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await?;
    if let Some(sandbox) = joined(&found) {
        found = docker
            .inspect_container(&sandbox, None::<InspectContainerOptions>)
            .await?;
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

/// The first process of a running container, as this machine numbers it.
pub async fn pid(docker: &Docker, id: &str) -> Result<u32> {
    let found = docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await?;
    let pid = found.state.and_then(|state| state.pid);
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    pid.filter(|pid| *pid > 0)
        .context("the container does not run")
}

/// How many networks have all these labels.
pub async fn networks(docker: &Docker, labels: &[(&str, &str)]) -> Result<usize> {
    let options = ListNetworksOptionsBuilder::default()
        .filters(&filter(labels))
        .build();
    Ok(docker.list_networks(Some(options)).await?.len())
}

/// Removes a container by force; a missing one is no error.
pub async fn remove(docker: &Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        // 409: its removal is already in progress.
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes all containers and networks that have these labels: the sweep after a test that failed.
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
