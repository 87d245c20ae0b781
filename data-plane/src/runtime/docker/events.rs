//! The engine's events as an endless stream that reconnects.
//!
//! ```text
//!   Waiting ── ping ok ──► Connected ──► following ── end, or silence and no ping ──► Disconnected
//!      ▲                         ▲            │ silence and ping ok                       │
//!      │                         └────────────┘                                           │
//!      └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A dead stream is as silent as an idle engine. After a period of silence the stream is therefore
//! reopened, and `Connected` makes the reader reread everything, which finds missed events.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tracing::{debug, warn};

use super::{Docker, READ_TIMEOUT, with_timeout};
use crate::runtime::EngineEvent;

/// Delay between attempts to connect to an unavailable engine.
const RETRY: Duration = Duration::from_millis(500);
/// Silence after which the stream is reopened. It bounds the time that a death goes unnoticed on a
/// dead stream, and costs three short engine calls.
const SILENCE: Duration = Duration::from_secs(30);

type Filters = HashMap<&'static str, Vec<String>>;
type EventStream = BoxStream<'static, Result<EventMessage, BollardError>>;

/// State of the endless stream.
pub(super) struct EventFollower {
    docker: Docker,
    filters: Filters,
    open: Option<EventStream>,
    /// Whether to delay the next attempt; false for the first.
    delay_next: bool,
}

impl EventFollower {
    pub(super) fn new(docker: Docker, filters: Filters) -> Self {
        Self {
            docker,
            filters,
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
                if let Some(event) = read(message) {
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

fn read(message: EventMessage) -> Option<EngineEvent> {
    let labels: BTreeMap<String, String> = message.actor?.attributes?.into_iter().collect();
    let name = labels.get("name")?.clone();
    match message.action.as_deref()? {
        "die" => Some(EngineEvent::Died { name, labels }),
        "health_status: unhealthy" => Some(EngineEvent::Unhealthy { name, labels }),
        _ => None,
    }
}
