//! The engine's events as an endless stream that reconnects.
//!
//! ```text
//!   Waiting ── ping answered ──► Connected ──► following ── ended, or silent and no ping ──► Disconnected
//!      ▲                              ▲            │ silent for long, and a ping is answered      │
//!      │                              └────────────┘                                              │
//!      └──────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Silence tells nothing: a stream whose other end is gone is as silent as an engine on which
//! nothing happens. So after a while of it the stream is opened anew, and `Connected` has everything
//! reread, which finds what the old stream did not tell.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tracing::{debug, warn};

use super::{Docker, READ, within};
use crate::runtime::Event;

/// Wait between attempts to follow events of an engine that is away.
const RETRY: Duration = Duration::from_millis(500);
/// After how long without any event the stream is opened anew: the longest that a death may go
/// unnoticed where the stream is dead without a sign. Three short calls to the engine each time.
const SILENCE: Duration = Duration::from_secs(30);

type Filters = HashMap<&'static str, Vec<String>>;
type EventStream = BoxStream<'static, Result<EventMessage, BollardError>>;

/// Where the endless stream is.
pub(super) struct Following {
    docker: Docker,
    filters: Filters,
    open: Option<EventStream>,
    /// Not at the first attempt.
    retries: bool,
}

impl Following {
    pub(super) fn new(docker: Docker, filters: Filters) -> Self {
        Self {
            docker,
            filters,
            open: None,
            retries: false,
        }
    }

    /// A new stream, if the engine answers. One that an absent engine refuses is only known by its
    /// first item, so the engine is asked first.
    async fn connect(docker: &Docker, filters: &Filters) -> Option<EventStream> {
        let client = match docker.client().await {
            Ok(client) => client,
            Err(error) => {
                debug!(%error, "waiting for the engine");
                return None;
            }
        };
        if let Err(error) = within(READ, client.ping()).await {
            debug!(%error, "waiting for the engine");
            return None;
        }
        let options = EventsOptionsBuilder::default().filters(filters).build();
        Some(client.events(Some(options)).boxed())
    }
}

/// One step of the endless stream.
pub(super) async fn follow_events(mut this: Following) -> Option<(Event, Following)> {
    let Some(events) = &mut this.open else {
        loop {
            if std::mem::replace(&mut this.retries, true) {
                tokio::time::sleep(RETRY).await;
            }
            if let Some(events) = Following::connect(&this.docker, &this.filters).await {
                this.open = Some(events);
                return Some((Event::Connected, this));
            }
        }
    };
    loop {
        match tokio::time::timeout(SILENCE, events.next()).await {
            Ok(Some(Ok(message))) => {
                if let Some(event) = read(message) {
                    return Some((event, this));
                }
            }
            Ok(ended) => {
                if let Some(Err(error)) = ended {
                    warn!(%error, "lost the engine's events, following again");
                }
                this.open = None;
                return Some((Event::Disconnected, this));
            }
            Err(_) => {
                this.open = Following::connect(&this.docker, &this.filters).await;
                let event = match &this.open {
                    Some(_) => Event::Connected,
                    None => Event::Disconnected,
                };
                return Some((event, this));
            }
        }
    }
}

fn read(message: EventMessage) -> Option<Event> {
    let labels: BTreeMap<String, String> = message.actor?.attributes?.into_iter().collect();
    let name = labels.get("name")?.clone();
    match message.action.as_deref()? {
        "die" => Some(Event::Died { name, labels }),
        "health_status: unhealthy" => Some(Event::Unhealthy { name, labels }),
        _ => None,
    }
}
