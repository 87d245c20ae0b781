//! Docker (or whatever speaks its API) through bollard.
//!
//! The connection is lazy: an engine that is not there at start is found when it comes, because
//! every call goes through [`Docker::client`], which negotiates the API version once it can.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, EventMessage, HostConfig, HostConfigLogConfig, NetworkCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use super::{Container, ContainerSpec, ContainerState, Error, Event, Exit, Image, Runtime, label};

/// How long an ordinary call may take before the engine counts as not answering. A start on a
/// machine with twenty others starting took 3 s where measured, so this is an order above.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest a pull may go without any word of progress.
const PULL_SILENCE: Duration = Duration::from_secs(120);

/// Wait between attempts to follow events of an engine that is away.
const EVENTS_RETRY: Duration = Duration::from_millis(500);

/// The longest line kept of a container's output.
const LOG_LINE_BYTES: usize = 512;

/// What a container may do beyond nothing: what web servers' images need to drop to their own user
/// and bind low ports.
const CAPABILITIES: [&str; 6] = [
    "CHOWN",
    "SETUID",
    "SETGID",
    "DAC_OVERRIDE",
    "NET_BIND_SERVICE",
    "KILL",
];

/// The most processes in a container.
const PIDS_LIMIT: i64 = 512;

/// A Docker engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    host: Option<String>,
    client: OnceCell<bollard::Docker>,
}

impl Docker {
    /// The engine at `host` (`unix:///…`, `tcp://…`), or where `DOCKER_HOST` points, or at the usual
    /// socket. Does not connect yet.
    pub fn new(host: Option<String>) -> Self {
        Self {
            host,
            client: OnceCell::new(),
        }
    }

    async fn client(&self) -> Result<&bollard::Docker, Error> {
        self.client
            .get_or_try_init(|| async {
                let client = match &self.host {
                    Some(host) => bollard::Docker::connect_with_host(host),
                    None => bollard::Docker::connect_with_defaults(),
                }
                .map_err(unavailable)?;
                within(client.negotiate_version()).await
            })
            .await
    }
}

/// Bounds a call and sorts its failure.
async fn within<T>(call: impl Future<Output = Result<T, BollardError>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result.map_err(sort_error),
        Err(_) => Err(Error::Unavailable(format!(
            "no answer within {} s",
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

fn unavailable(error: BollardError) -> Error {
    Error::Unavailable(error.to_string())
}

fn sort_error(error: BollardError) -> Error {
    match error {
        BollardError::DockerResponseServerError {
            status_code: 404,
            message,
        } => Error::NotFound(message),
        BollardError::DockerResponseServerError {
            status_code: 400..500,
            message,
        } => Error::Refused(message),
        other => unavailable(other),
    }
}

/// What is gone already needs no removing.
fn gone_is_done(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

#[async_trait::async_trait]
impl Runtime for Docker {
    async fn engine(&self) -> Result<String, Error> {
        let version = within(self.client().await?.version()).await?;
        Ok(format!(
            "docker {}",
            version.version.as_deref().unwrap_or("of unknown version")
        ))
    }

    async fn image(&self, image: &str) -> Result<Image, Error> {
        let found = match within(self.client().await?.inspect_image(image)).await {
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
            repo_digests: found.repo_digests.unwrap_or_default(),
        })
    }

    async fn pull(
        &self,
        image: &str,
        progress: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<(), Error> {
        let failed = |message: String| Error::Pull {
            image: image.to_owned(),
            message,
        };
        // Without a tag the engine would fetch every tag of the repository.
        let name = image.rsplit('/').next().unwrap_or(image);
        let reference = if name.contains(':') || name.contains('@') {
            image.to_owned()
        } else {
            format!("{image}:latest")
        };
        let options = CreateImageOptionsBuilder::default()
            .from_image(&reference)
            .build();
        let mut steps = Box::pin(self.client().await?.create_image(Some(options), None, None));
        loop {
            let step = match tokio::time::timeout(PULL_SILENCE, steps.next()).await {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(()),
                Err(_) => {
                    return Err(failed(format!(
                        "no progress for {} s",
                        PULL_SILENCE.as_secs()
                    )));
                }
            };
            match step {
                Ok(info) => {
                    if let Some(detail) = info.error_detail.and_then(|error| error.message) {
                        return Err(failed(detail));
                    }
                    if let Some(status) = info.status {
                        match info.id {
                            Some(layer) => progress(&format!("{layer}: {status}")),
                            None => progress(&status),
                        }
                    }
                }
                Err(BollardError::DockerStreamError { error }) => return Err(failed(error)),
                Err(BollardError::DockerResponseServerError { message, .. }) => {
                    return Err(failed(message));
                }
                Err(other) => return Err(unavailable(other)),
            }
        }
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let options = CreateContainerOptionsBuilder::default()
            .name(&spec.name)
            .build();
        let created = within(
            self.client()
                .await?
                .create_container(Some(options), body(spec)),
        )
        .await;
        match created {
            Ok(answer) => {
                for warning in answer.warnings {
                    debug!(
                        container = spec.name,
                        warning, "the engine warns of a container"
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

    async fn start(&self, name: &str) -> Result<(), Error> {
        within(self.client().await?.start_container(name, None)).await
    }

    async fn inspect(&self, name: &str) -> Result<Container, Error> {
        within(self.client().await?.inspect_container(name, None))
            .await
            .map(from_inspect)
    }

    async fn list(&self, node: &str) -> Result<Vec<Container>, Error> {
        let filters = HashMap::from([("label", vec![format!("{}={node}", label::NODE)])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = within(self.client().await?.list_containers(Some(options))).await?;
        Ok(found.into_iter().map(from_summary).collect())
    }

    async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let client = self.client().await?;
        let call = client.stop_container(name, Some(options));
        match tokio::time::timeout(grace + CALL_TIMEOUT, call).await {
            Ok(result) => gone_is_done(result.map_err(sort_error)),
            Err(_) => Err(Error::Unavailable(format!("stop of {name} does not end"))),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        match within(self.client().await?.remove_container(name, Some(options))).await {
            // 409: another removal of it is under way.
            Err(Error::Refused(message)) if message.contains("already in progress") => Ok(()),
            other => gone_is_done(other),
        }
    }

    async fn log_tail(&self, name: &str, lines: usize) -> Result<Vec<String>, Error> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(&lines.to_string())
            .build();
        let chunks: Vec<LogOutput> =
            within(self.client().await?.logs(name, Some(options)).try_collect()).await?;
        let mut text = Vec::new();
        for chunk in chunks {
            text.extend_from_slice(&chunk.into_bytes());
        }
        Ok(last_lines(&text, lines))
    }

    fn events(&self, node: &str) -> BoxStream<'static, Event> {
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("event", vec!["die".to_owned()]),
            ("label", vec![format!("{}={node}", label::NODE)]),
        ]);
        let docker = self.clone();
        stream::unfold((docker, filters, None), follow_events).boxed()
    }

    async fn ensure_network(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let client = self.client().await?;
        match within(client.inspect_network(name, None)).await {
            Ok(_) => return Ok(()),
            Err(Error::NotFound(_)) => {}
            Err(other) => return Err(other),
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            options: Some(HashMap::from([(
                // Containers on this bridge reach the host and the world, not each other.
                "com.docker.network.bridge.enable_icc".to_owned(),
                "false".to_owned(),
            )])),
            labels: Some(labels.clone().into_iter().collect()),
            ..Default::default()
        };
        within(client.create_network(request)).await.map(|_| ())
    }

    async fn remove_network(&self, name: &str) -> Result<(), Error> {
        gone_is_done(within(self.client().await?.remove_network(name)).await)
    }
}

type EventStream = BoxStream<'static, Result<EventMessage, BollardError>>;
type Following = (
    Docker,
    HashMap<&'static str, Vec<String>>,
    Option<EventStream>,
);

/// One step of the endless event stream: connect if need be, say so, then pass on what happens.
async fn follow_events((docker, filters, open): Following) -> Option<(Event, Following)> {
    let Some(mut events) = open else {
        loop {
            match docker.client().await {
                Ok(client) => {
                    let options = EventsOptionsBuilder::default().filters(&filters).build();
                    // A stream that an absent engine refuses is only known by its first item, so
                    // the engine is asked first.
                    if within(client.ping()).await.is_ok() {
                        let events = client.events(Some(options)).boxed();
                        return Some((Event::Connected, (docker, filters, Some(events))));
                    }
                }
                Err(error) => debug!(%error, "waiting for the engine"),
            }
            tokio::time::sleep(EVENTS_RETRY).await;
        }
    };
    loop {
        match events.next().await {
            Some(Ok(message)) => {
                if let Some(event) = died(message) {
                    return Some((event, (docker, filters, Some(events))));
                }
            }
            ended => {
                if let Some(Err(error)) = ended {
                    warn!(%error, "lost the engine's events, following again");
                }
                tokio::time::sleep(EVENTS_RETRY).await;
                return Box::pin(follow_events((docker, filters, None))).await;
            }
        }
    }
}

fn died(message: EventMessage) -> Option<Event> {
    if message.action.as_deref() != Some("die") {
        return None;
    }
    let labels: BTreeMap<String, String> = message.actor?.attributes?.into_iter().collect();
    Some(Event::Died {
        name: labels.get("name")?.clone(),
        labels,
    })
}

/// The engine's terms for a [`ContainerSpec`], with the security defaults of DESIGN.md section 5.
fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    let some_unless_empty = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        env: Some(spec.env.clone()),
        entrypoint: some_unless_empty(&spec.command),
        cmd: some_unless_empty(&spec.args),
        labels: Some(spec.labels.clone().into_iter().collect()),
        host_config: Some(HostConfig {
            network_mode: Some(spec.network.clone()),
            memory: i64::try_from(spec.memory).ok(),
            nano_cpus: Some(i64::from(spec.cpu_millis) * 1_000_000),
            pids_limit: Some(PIDS_LIMIT),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            init: Some(true),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "10m".to_owned()),
                    ("max-file".to_owned(), "2".to_owned()),
                ])),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn from_inspect(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    let networks = found.network_settings.and_then(|net| net.networks);
    Container {
        id: found.id.unwrap_or_default(),
        name: trim_name(found.name.as_deref().unwrap_or_default()),
        labels: labels(found.config.and_then(|config| config.labels)),
        state: match state.status {
            Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
            Some(ContainerStateStatusEnum::RUNNING) => ContainerState::Running,
            Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
            _ => ContainerState::Exited,
        },
        address: networks.and_then(first_address),
        exit: Exit {
            code: state
                .exit_code
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(-1),
            oom_killed: state.oom_killed.unwrap_or(false),
        },
    }
}

fn from_summary(found: ContainerSummary) -> Container {
    let networks = found.network_settings.and_then(|net| net.networks);
    let names = found.names.unwrap_or_default();
    Container {
        id: found.id.unwrap_or_default(),
        name: trim_name(names.first().map_or("", String::as_str)),
        labels: labels(found.labels),
        state: match found.state {
            Some(ContainerSummaryStateEnum::CREATED) => ContainerState::Created,
            Some(ContainerSummaryStateEnum::RUNNING) => ContainerState::Running,
            Some(ContainerSummaryStateEnum::PAUSED) => ContainerState::Paused,
            _ => ContainerState::Exited,
        },
        address: networks.and_then(first_address),
        exit: Exit::default(),
    }
}

fn trim_name(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

fn labels(found: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    found.unwrap_or_default().into_iter().collect()
}

fn first_address(
    networks: HashMap<String, bollard::models::EndpointSettings>,
) -> Option<std::net::IpAddr> {
    networks
        .into_values()
        .find_map(|endpoint| endpoint.ip_address?.parse().ok())
}

/// The last `count` non-empty lines of raw output, each cut at [`LOG_LINE_BYTES`].
fn last_lines(text: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| {
            let end = line.floor_char_boundary(LOG_LINE_BYTES);
            line[..end].to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_in_order_and_cuts_long_ones() {
        let long = "x".repeat(2 * LOG_LINE_BYTES);
        let text = format!("one\n\ntwo\nthree\n{long}\n");
        let tail = last_lines(text.as_bytes(), 3);
        assert_eq!(tail[..2], ["two", "three"]);
        assert_eq!(tail[2].len(), LOG_LINE_BYTES);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_harm_the_tail() {
        assert_eq!(last_lines(b"\xff\xfe ok\n", 20).len(), 1);
    }

    #[test]
    fn a_container_drops_all_but_a_few_capabilities() {
        let spec = ContainerSpec {
            name: "n".into(),
            image: "i".into(),
            env: vec![],
            command: vec![],
            args: vec![],
            labels: BTreeMap::new(),
            memory: 512 << 20,
            cpu_millis: 1500,
            network: "net".into(),
        };
        let host = body(&spec).host_config.unwrap_or_default();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.privileged, None);
        assert_eq!(host.binds, None);
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.memory, Some(512 << 20));
        assert_eq!(body(&spec).entrypoint, None, "the image's own is kept");
    }
}
