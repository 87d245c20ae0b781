//! The engine's events as an endless stream that reconnects.
//!
//! ```text
//!   Waiting ── ping ok ──► Connected ──► following ── end, or silence and no ping ──► Disconnected
//!      ▲                         ▲            │ silence and ping ok                       │
//!      │                         └────────────┘                                           │
//!      └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Events of networks have no labels to filter by, so the stream has those of all containers, and
//! [`read`] chooses. A rename needs no event: containers are known by id and label.
//!
//! A dead stream is as silent as an idle engine. After a period of silence the stream is therefore
//! reopened, and `Connected` makes the reader reread everything, which finds missed events.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tracing::{debug, warn};

use super::{Docker, READ_TIMEOUT, with_timeout};
use crate::runtime::{EngineEvent, label};

/// Delay between attempts to connect to an unavailable engine.
const RETRY: Duration = Duration::from_millis(500);
/// Silence after which the stream is reopened. It bounds the time that a death goes unnoticed on a
/// dead stream, and costs three short engine calls.
const SILENCE: Duration = Duration::from_secs(30);

/// The followed actions. `destroy` is that of a network.
pub(super) const FOLLOWED: [&str; 6] = [
    "die",
    "health_status",
    "pause",
    "unpause",
    "disconnect",
    "destroy",
];

type Filters = HashMap<&'static str, Vec<&'static str>>;
type EventStream = BoxStream<'static, Result<EventMessage, BollardError>>;

/// State of the endless stream.
pub(super) struct EventFollower {
    docker: Docker,
    filters: Filters,
    /// The node whose containers are followed.
    node: String,
    open: Option<EventStream>,
    /// Whether to delay the next attempt; false for the first.
    delay_next: bool,
}

impl EventFollower {
    pub(super) fn new(docker: Docker, filters: Filters, node: String) -> Self {
        Self {
            docker,
            filters,
            node,
            open: None,
            delay_next: false,
        }
    }

    /// Opens a stream if the engine responds to a ping. Bollard reports an unreachable engine only
    /// with the first item, which may take arbitrarily long.
    async fn connect(docker: &Docker, filters: &Filters) -> Option<EventStream> {
        let client = match docker.client().await {
            Ok(client) => client,
            Err(error) => {
                debug!(%error, "waiting for the engine");
                return None;
            }
        };
        if let Err(error) = with_timeout(READ_TIMEOUT, client.ping()).await {
            debug!(%error, "waiting for the engine");
            return None;
        }
        let options = EventsOptionsBuilder::default().filters(filters).build();
        Some(client.events(Some(options)).boxed())
    }
}

/// Advances the endless stream by one event.
pub(super) async fn next_event(mut state: EventFollower) -> Option<(EngineEvent, EventFollower)> {
    let Some(events) = &mut state.open else {
        loop {
            if std::mem::replace(&mut state.delay_next, true) {
                tokio::time::sleep(RETRY).await;
            }
            if let Some(events) = EventFollower::connect(&state.docker, &state.filters).await {
                state.open = Some(events);
                return Some((EngineEvent::Connected, state));
            }
        }
    };
    loop {
        match tokio::time::timeout(SILENCE, events.next()).await {
            Ok(Some(Ok(message))) => {
                if let Some(event) = read(message, &state.node) {
                    return Some((event, state));
                }
            }
            Ok(ended) => {
                if let Some(Err(error)) = ended {
                    warn!(%error, "the engine's event stream ended; reconnecting");
                }
                state.open = None;
                return Some((EngineEvent::Disconnected, state));
            }
            Err(_) => {
                state.open = EventFollower::connect(&state.docker, &state.filters).await;
                let event = match &state.open {
                    Some(_) => EngineEvent::Connected,
                    None => EngineEvent::Disconnected,
                };
                return Some((event, state));
            }
        }
    }
}

/// The event about a container of the node or about any network; `None` for others.
fn read(message: EventMessage, node: &str) -> Option<EngineEvent> {
    let action = message.action?;
    let actor = message.actor?;
    let labels: BTreeMap<String, String> = actor.attributes?.into_iter().collect();
    if message.typ == Some(EventMessageTypeEnum::NETWORK) {
        return match action.as_str() {
            "disconnect" => Some(EngineEvent::NetworkLeft {
                container: labels.get("container")?.clone(),
            }),
            "destroy" => Some(EngineEvent::NetworkRemoved {
                name: labels.get("name")?.clone(),
            }),
            _ => None,
        };
    }
    if labels.get(label::NODE)? != node {
        return None;
    }
    let name = labels.get(label::INSTANCE).or_else(|| labels.get("name"))?;
    let name = name.clone();
    match action.as_str() {
        "die" => Some(EngineEvent::Died {
            exit_code: labels.get("exitCode").and_then(|code| code.parse().ok()),
            name,
            labels,
        }),
        "health_status: unhealthy" => Some(EngineEvent::Unhealthy { name, labels }),
        "pause" | "unpause" => Some(EngineEvent::PauseChanged {
            paused: action == "pause",
            name,
            labels,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::EventActor;

    fn event(typ: EventMessageTypeEnum, action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let owned = attributes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        EventMessage {
            typ: Some(typ),
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                attributes: Some(owned.collect()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_renamed_container_keeps_its_name_and_those_of_others_are_ignored() {
        let attributes = [
            ("name", "renamed"),
            ("cless.instance", "cless-hello-v1-1"),
            ("cless.node", "n1"),
            ("exitCode", "3"),
        ];
        let died = event(EventMessageTypeEnum::CONTAINER, "die", &attributes);
        let Some(EngineEvent::Died {
            name, exit_code, ..
        }) = read(died.clone(), "n1")
        else {
            panic!("no event");
        };
        assert_eq!((name.as_str(), exit_code), ("cless-hello-v1-1", Some(3)));
        assert_eq!(read(died, "n2"), None);
        let other = event(EventMessageTypeEnum::CONTAINER, "die", &[("name", "x")]);
        assert_eq!(read(other, "n1"), None);
    }

    #[test]
    fn events_of_networks_name_the_container_or_the_network() {
        let typ = EventMessageTypeEnum::NETWORK;
        let attributes = [("container", "0123"), ("name", "cless-n1")];
        let container = "0123".to_owned();
        assert_eq!(
            read(event(typ, "disconnect", &attributes), "n1"),
            Some(EngineEvent::NetworkLeft { container })
        );
        let name = "cless-n1".to_owned();
        assert_eq!(
            read(event(typ, "destroy", &attributes), "n1"),
            Some(EngineEvent::NetworkRemoved { name })
        );
        assert_eq!(
            read(
                event(
                    EventMessageTypeEnum::CONTAINER,
                    "destroy",
                    &[("cless.node", "n1"), ("name", "x")]
                ),
                "n1"
            ),
            None
        );
    }
}
