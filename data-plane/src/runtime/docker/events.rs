//! The engine's events as an endless stream that reconnects.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tracing::{debug, warn};

use super::{Docker, within};
use crate::runtime::Event;

/// Wait between attempts to follow events of an engine that is away.
const EVENTS_RETRY: Duration = Duration::from_millis(500);

pub(super) type EventStream = BoxStream<'static, Result<EventMessage, BollardError>>;
pub(super) type Following = (
    Docker,
    HashMap<&'static str, Vec<String>>,
    Option<EventStream>,
);

/// One step of the endless event stream: connect if need be, say so, then pass on what happens.
pub(super) async fn follow_events(
    (docker, filters, open): Following,
) -> Option<(Event, Following)> {
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
                if let Some(event) = read(message) {
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

fn read(message: EventMessage) -> Option<Event> {
    let labels: BTreeMap<String, String> = message.actor?.attributes?.into_iter().collect();
    let name = labels.get("name")?.clone();
    match message.action.as_deref()? {
        "die" => Some(Event::Died { name, labels }),
        "health_status: unhealthy" => Some(Event::Unhealthy { name, labels }),
        _ => None,
    }
}
