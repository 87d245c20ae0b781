//! Docker (or whatever speaks its API) through bollard.
//!
//! The connection is lazy: an engine that is not there at start is found when it comes, because
//! every call goes through [`Docker::client`], which negotiates the API version once it can.

mod events;
mod pause_image;
mod sandbox;
mod translate;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::OnceCell;
use tracing::debug;

use super::{Container, ContainerSpec, Error, Event, Image, Runtime, SandboxSpec, label};
use events::follow_events;
use translate::{body, from_inspect, from_summary, last_lines};

/// How long an ordinary call may take before the engine counts as not answering. A start on a
/// machine with twenty others starting took 3 s where measured, so this is an order above.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest a pull may go without any word of progress.
const PULL_SILENCE: Duration = Duration::from_secs(120);

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

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error> {
        sandbox::create(self.client().await?, spec).await
    }

    async fn remove_sandbox_image(&self) -> Result<(), Error> {
        sandbox::remove_image(self.client().await?).await
    }

    async fn start(&self, name: &str) -> Result<(), Error> {
        within(self.client().await?.start_container(name, None)).await
    }

    async fn pause(&self, name: &str) -> Result<(), Error> {
        match within(self.client().await?.pause_container(name)).await {
            Err(Error::Refused(message)) if message.contains("already paused") => Ok(()),
            other => other,
        }
    }

    async fn unpause(&self, name: &str) -> Result<(), Error> {
        match within(self.client().await?.unpause_container(name)).await {
            // 20.10 answers 500 to that, later ones 409.
            Err(Error::Refused(message) | Error::Unavailable(message))
                if message.contains("is not paused") =>
            {
                Ok(())
            }
            other => other,
        }
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
