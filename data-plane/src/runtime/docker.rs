//! Docker and API-compatible engines, through bollard.
//!
//! The connection is lazy: each call goes through [`Docker::client`], which negotiates the API
//! version once the engine is reachable. The engine may therefore start after the node.
//!
//! Containers are addressed by their id, which no other program can change, and found by the label
//! of their name: another container may have taken the name.

mod container;
mod create_body;
mod error;
mod events;
mod exec;
mod file_capabilities;
mod pause_image;
mod pull;
mod sandbox;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::models::{ContainerCreateResponse, NetworkCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, StopContainerOptionsBuilder,
};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tracing::{debug, info, warn};

use super::credentials::RegistryConfig;
use super::{
    Container, ContainerSpec, EngineEvent, Error, Executed, Image, PullStep, Runtime, Runtimes,
    SandboxSpec, label,
};
use container::{from_inspect, from_summary, last_lines};
use create_body::{
    DESCRIPTORS, container_body, is_layer_limit_refused, layer_limit, may_limit_layers,
    whole_seconds,
};
use error::{CREATE_TIMEOUT, PAUSE_TIMEOUT, READ_TIMEOUT, REMOVE_TIMEOUT, classify, with_timeout};
use events::{EventFollower, next_event};

/// Option of a bridge network that names its interface.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// Part of the engine's error for a bridge that belongs to another network.
const BRIDGE_TAKEN: &str = "networks have same bridge name";

/// A Docker engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    host: Option<String>,
    client: OnceCell<bollard::Docker>,
    registries: RegistryConfig,
    /// Ids of containers by their name, until their removal.
    ids: Arc<Mutex<HashMap<String, String>>>,
    /// Limit of a container's open descriptors; 0: the engine's default.
    descriptors: Arc<AtomicU64>,
    /// Whether the engine's storage may be able to bound the writable layer of a container.
    limits_layers: Arc<AtomicBool>,
    /// Whether it has refused to.
    layers_refused: Arc<AtomicBool>,
}

impl Docker {
    /// The engine at `host` (`unix:///…`, `tcp://…`), otherwise at `DOCKER_HOST` or the standard
    /// socket. Does not connect yet.
    pub fn new(host: Option<String>) -> Self {
        Self {
            host,
            client: OnceCell::new(),
            registries: RegistryConfig::default(),
            ids: Arc::default(),
            descriptors: Arc::new(AtomicU64::new(descriptors())),
            limits_layers: Arc::default(),
            layers_refused: Arc::default(),
        }
    }

    /// Uses the credentials of this file for registries.
    #[must_use]
    pub fn with_registries(self, registries: RegistryConfig) -> Self {
        Self { registries, ..self }
    }

    async fn client(&self) -> Result<&bollard::Docker, Error> {
        self.client
            .get_or_try_init(|| async {
                let client = match &self.host {
                    Some(host) => bollard::Docker::connect_with_host(host),
                    None => bollard::Docker::connect_with_defaults(),
                }
                .map_err(classify)?
                .with_request_modifier(pull::url_safe_credentials);
                with_timeout(READ_TIMEOUT, client.negotiate_version()).await
            })
            .await
    }
}

/// The limit of a container's open descriptors. An engine can set no more than its own hard limit,
/// which on the same machine is usually that of this process.
fn descriptors() -> u64 {
    let own = getrlimit(Resource::RLIMIT_NOFILE).map_or(DESCRIPTORS, |(_, hard)| hard);
    own.min(DESCRIPTORS)
}

impl Docker {
    fn learn(&self, name: &str, id: &str) {
        self.ids.lock().insert(name.to_owned(), id.to_owned());
    }

    fn forget(&self, name: &str) {
        self.ids.lock().remove(name);
    }

    /// The id of a container. It is looked up if the response to the creation was lost, or if an
    /// earlier process created it. `name` may also be an id.
    async fn id(&self, name: &str) -> Result<String, Error> {
        let known = self.ids.lock().get(name).cloned();
        if let Some(id) = known {
            return Ok(id);
        }
        let found = self.find(&format!("{}={name}", label::INSTANCE)).await?;
        if let Some(one) = found.into_iter().next() {
            self.learn(name, &one.id);
            return Ok(one.id);
        }
        // An id, or a container that an earlier build created without the label.
        let call = self.client().await?.inspect_container(name, None);
        let found = from_inspect(with_timeout(READ_TIMEOUT, call).await?);
        match found.labels.contains_key(label::INSTANCE) && found.id != name {
            true => Err(Error::NotFound(name.to_owned())),
            false => Ok(found.id),
        }
    }

    async fn create_once(&self, spec: &ContainerSpec) -> Result<ContainerCreateResponse, Error> {
        let options = CreateContainerOptionsBuilder::default()
            .name(&spec.name)
            .build();
        let descriptors = Some(self.descriptors.load(Ordering::Relaxed));
        let mut body = container_body(spec, descriptors.filter(|limit| *limit > 0));
        if self.limits_layers.load(Ordering::Relaxed)
            && let Some(host) = &mut body.host_config
        {
            host.storage_opt = Some(layer_limit());
        }
        let call = self.client().await?.create_container(Some(options), body);
        with_timeout(CREATE_TIMEOUT, call).await
    }

    /// All containers with a label, running or not.
    async fn find(&self, label: &str) -> Result<Vec<Container>, Error> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let client = self.client().await?;
        let found = with_timeout(READ_TIMEOUT, client.list_containers(Some(options))).await?;
        Ok(found.into_iter().map(from_summary).collect())
    }
}

/// A bridge whose containers cannot reach each other; `bridge` names its interface.
fn network(
    name: &str,
    bridge: Option<&str>,
    labels: &BTreeMap<String, String>,
) -> NetworkCreateRequest {
    let closed = ("com.docker.network.bridge.enable_icc", "false");
    let named = bridge.map(|bridge| (BRIDGE_NAME, bridge));
    let options = [closed].into_iter().chain(named);
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        options: Some(options.map(owned).collect()),
        labels: Some(labels.clone().into_iter().collect()),
        ..Default::default()
    }
}

/// Parses a build time. `None` also for the year 1 of images that do not say it.
fn build_time(text: &str) -> Option<SystemTime> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let seconds = u64::try_from(time.as_second()).ok().filter(|at| *at > 0)?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Treats a missing object as removed.
fn ok_if_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

#[async_trait::async_trait]
impl Runtime for Docker {
    async fn engine(&self) -> Result<String, Error> {
        let version = with_timeout(READ_TIMEOUT, self.client().await?.version()).await?;
        Ok(format!(
            "docker {}",
            version.version.as_deref().unwrap_or("of unknown version")
        ))
    }

    async fn runtimes(&self) -> Result<Runtimes, Error> {
        let info = with_timeout(READ_TIMEOUT, self.client().await?.info()).await?;
        let driver = info.driver.unwrap_or_default();
        let status = info.driver_status.unwrap_or_default();
        let may =
            may_limit_layers(&driver, &status) && !self.layers_refused.load(Ordering::Relaxed);
        self.limits_layers.store(may, Ordering::Relaxed);
        let mut offered: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        offered.sort_unstable();
        Ok(Runtimes {
            offered,
            default: info.default_runtime.unwrap_or_default(),
        })
    }

    async fn image(&self, image: &str) -> Result<Image, Error> {
        let found =
            match with_timeout(READ_TIMEOUT, self.client().await?.inspect_image(image)).await {
                Err(Error::NotFound(_)) => {
                    return Err(Error::ImageMissing {
                        image: image.to_owned(),
                    });
                }
                other => other?,
            };
        let mut exposed: Vec<u16> = found
            .config
            .and_then(|config| config.exposed_ports)
            .unwrap_or_default()
            .iter()
            .filter_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok())
            .collect();
        exposed.sort_unstable();
        Ok(Image {
            id: found.id.unwrap_or_default(),
            exposed,
            tags: found.repo_tags.unwrap_or_default(),
            repo_digests: found.repo_digests.unwrap_or_default(),
            created: found.created.and_then(|text| build_time(&text)),
        })
    }

    async fn pull(
        &self,
        image: &str,
        progress: &(dyn Fn(PullStep) + Send + Sync),
    ) -> Result<Option<String>, Error> {
        pull::pull(self.client().await?, &self.registries, image, progress).await
    }

    async fn registry_digest(&self, image: &str) -> Result<String, Error> {
        pull::registry_digest(self.client().await?, &self.registries, image).await
    }

    async fn images_in_use(&self) -> Result<BTreeSet<String>, Error> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let found = with_timeout(
            READ_TIMEOUT,
            self.client().await?.list_containers(Some(options)),
        )
        .await?;
        Ok(found.into_iter().filter_map(|one| one.image_id).collect())
    }

    async fn remove_image(&self, name: &str) -> Result<(), Error> {
        let client = self.client().await?;
        let removed = client.remove_image(name, None::<RemoveImageOptions>, None);
        let removed = with_timeout(REMOVE_TIMEOUT, removed);
        ok_if_missing(removed.await.map(|_| ()))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let mut created = self.create_once(spec).await;
        if let Err(error) = &created
            && is_layer_limit_refused(error)
            && self.limits_layers.swap(false, Ordering::Relaxed)
        {
            self.layers_refused.store(true, Ordering::Relaxed);
            info!(%error, "the engine cannot bound the writable layers of containers");
            created = self.create_once(spec).await;
        }
        match created {
            Ok(answer) => {
                self.learn(&spec.name, &answer.id);
                for warning in answer.warnings {
                    debug!(
                        container = spec.name,
                        warning, "the engine returned a warning for a container"
                    );
                }
                Ok(answer.id)
            }
            Err(Error::NotFound(message)) if message.contains("No such image") => {
                Err(Error::ImageMissing {
                    image: spec.image.clone(),
                })
            }
            Err(other) => Err(other),
        }
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error> {
        let id = sandbox::create(self.client().await?, spec).await?;
        self.learn(&spec.name, &id);
        Ok(id)
    }

    async fn remove_sandbox_image(&self) -> Result<(), Error> {
        sandbox::remove_image(self.client().await?).await
    }

    async fn start(&self, name: &str) -> Result<(), Error> {
        let id = self.id(name).await?;
        let call = self.client().await?.start_container(&id, None);
        let started = with_timeout(CREATE_TIMEOUT, call).await;
        // An engine of another machine may allow fewer descriptors. The next container has its
        // default.
        if let Err(Error::Failed(message) | Error::Refused(message)) = &started
            && message.contains("setting rlimit")
            && self.descriptors.swap(0, Ordering::Relaxed) > 0
        {
            warn!(
                message,
                "the engine cannot set the limit of open descriptors"
            );
        }
        started
    }

    async fn pause(&self, name: &str) -> Result<(), Error> {
        let id = self.id(name).await?;
        match with_timeout(PAUSE_TIMEOUT, self.client().await?.pause_container(&id)).await {
            Err(Error::Refused(message)) if message.contains("already paused") => Ok(()),
            other => other,
        }
    }

    async fn unpause(&self, name: &str) -> Result<(), Error> {
        let id = self.id(name).await?;
        match with_timeout(PAUSE_TIMEOUT, self.client().await?.unpause_container(&id)).await {
            // Docker 20.10 returns 500, later versions 409.
            Err(Error::Refused(message) | Error::Failed(message))
                if message.contains("is not paused") =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn inspect(&self, name: &str) -> Result<Container, Error> {
        with_timeout(
            READ_TIMEOUT,
            self.client()
                .await?
                .inspect_container(&self.id(name).await?, None),
        )
        .await
        .map(from_inspect)
    }

    async fn list(&self, node: &str) -> Result<Vec<Container>, Error> {
        let found = self.find(&format!("{}={node}", label::NODE)).await?;
        for one in &found {
            self.learn(&one.name, &one.id);
        }
        Ok(found)
    }

    async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error> {
        let seconds = i32::try_from(whole_seconds(grace)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        // Bollard's timeout of two minutes would end a longer grace period, and a retry would send
        // the signal again, which many programs treat as an immediate stop.
        let client = self.client().await?.clone();
        let client = client.with_timeout(grace + CREATE_TIMEOUT);
        let id = match self.id(name).await {
            Err(Error::NotFound(_)) => return Ok(()),
            id => id?,
        };
        let call = client.stop_container(&id, Some(options));
        match tokio::time::timeout(grace + CREATE_TIMEOUT, call).await {
            Ok(result) => ok_if_missing(result.map_err(classify)),
            Err(_) => Err(Error::NoResponse(format!("stopping {name} timed out"))),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let id = match self.id(name).await {
            Err(Error::NotFound(_)) => return Ok(()),
            id => id?,
        };
        let call = self.client().await?.remove_container(&id, Some(options));
        let removed = match with_timeout(REMOVE_TIMEOUT, call).await {
            // 409: another removal is in progress.
            Err(Error::Refused(message)) if message.contains("already in progress") => Ok(()),
            other => ok_if_missing(other),
        };
        if removed.is_ok() {
            self.forget(name);
        }
        removed
    }

    async fn exec(&self, name: &str, command: &[String]) -> Result<Executed, Error> {
        exec::run(self.client().await?, name, command).await
    }

    async fn file_capabilities(&self, name: &str, path: &str) -> Result<u64, Error> {
        file_capabilities::read(self.client().await?, name, path).await
    }

    async fn log_tail(&self, name: &str, lines: usize) -> Result<Vec<String>, Error> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(&lines.to_string())
            .build();
        let chunks: Vec<LogOutput> = with_timeout(
            READ_TIMEOUT,
            self.client()
                .await?
                .logs(&self.id(name).await?, Some(options))
                .try_collect(),
        )
        .await?;
        let mut text = Vec::new();
        for chunk in chunks {
            text.extend_from_slice(&chunk.into_bytes());
        }
        Ok(last_lines(&text, lines))
    }

    fn events(&self, node: &str) -> BoxStream<'static, EngineEvent> {
        let filters = HashMap::from([
            ("type", vec!["container", "network"]),
            ("event", events::FOLLOWED.to_vec()),
        ]);
        let follower = EventFollower::new(self.clone(), filters, node.to_owned());
        stream::unfold(follower, next_event).boxed()
    }

    async fn ensure_network(
        &self,
        name: &str,
        bridge: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<String, Error> {
        match self.bridge(name).await {
            Err(Error::NotFound(_)) => {}
            found => return found,
        }
        let client = self.client().await?;
        let create = |bridge| {
            with_timeout(
                CREATE_TIMEOUT,
                client.create_network(network(name, bridge, labels)),
            )
        };
        match create(Some(bridge)).await {
            Ok(_) => Ok(bridge.to_owned()),
            // An engine that could not store a network, for example on a full disk, keeps its
            // bridge reserved until it restarts.
            Err(Error::Refused(message)) if message.contains(BRIDGE_TAKEN) => {
                create(None).await?;
                self.bridge(name).await
            }
            Err(error) => Err(error),
        }
    }

    async fn bridge(&self, network: &str) -> Result<String, Error> {
        let found = with_timeout(
            READ_TIMEOUT,
            self.client().await?.inspect_network(network, None),
        )
        .await?;
        let named = found.options.unwrap_or_default().remove(BRIDGE_NAME);
        // The engine's default name of a bridge.
        let unnamed = || {
            format!(
                "br-{}",
                found.id.unwrap_or_default().get(..12).unwrap_or_default()
            )
        };
        Ok(named.unwrap_or_else(unnamed))
    }

    async fn remove_network(&self, name: &str) -> Result<(), Error> {
        ok_if_missing(with_timeout(REMOVE_TIMEOUT, self.client().await?.remove_network(name)).await)
    }
}
