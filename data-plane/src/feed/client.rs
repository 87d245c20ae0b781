//! Connects, follows, reconnects: the loop around [`Session`]. It decides nothing itself.

use super::backoff::Backoff;
use super::epochs::Epochs;
use super::session::{Action, Leave, Session};
use super::{Dial, Shared, wire};
use crate::route::Table;
use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Answers that the plane has not read yet; one is due per commit, so more is a plane that stalls.
const UNREAD_ANSWERS: usize = 8;

/// A stream's lifetime is drawn from this part of the configured one up to its mirror, so that
/// nodes which connected together do not reconnect together.
const LIFETIME_FROM: f64 = 0.8;

/// Follows the feed.
pub(super) struct Client {
    shared: Arc<Shared>,
    endpoints: Vec<Endpoint>,
    dial: Dial,
    /// The connection of the stream, while it answers; reports use it too.
    link: watch::Sender<Option<Channel>>,
    backoff: Backoff,
    rng: SmallRng,
    /// Over all streams.
    left: Epochs,
    /// What was logged last, so that one trouble is logged once.
    trouble: Option<String>,
}

/// How a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the control plane refused: {} ({})", .0.message(), .0.code())]
    Refused(tonic::Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane does not read its answers")]
    Stalled,
    #[error(transparent)]
    Left(#[from] Leave),
}

impl Client {
    pub(super) fn new(
        shared: Arc<Shared>,
        endpoints: Vec<Endpoint>,
        dial: Dial,
        link: watch::Sender<Option<Channel>>,
        rng: SmallRng,
    ) -> Self {
        let timing = &shared.timing;
        let backoff = Backoff::new(timing.backoff_floor, timing.backoff_ceiling);
        Self {
            shared,
            endpoints,
            dial,
            link,
            backoff,
            rng,
            left: Epochs::default(),
            trouble: None,
        }
    }

    /// Runs until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        // Nodes that are given the same list spread over it.
        let mut at = self.rng.random_range(0..self.endpoints.len());
        loop {
            let endpoint = self.endpoints[at].clone();
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                ended = self.follow(&endpoint) => ended,
            };
            self.link.send_replace(None);
            self.shared
                .status
                .send_modify(|status| status.connected = false);
            let wait = self.wait_after(&ended);
            self.log(&endpoint, &ended, wait);
            at = (at + 1) % self.endpoints.len();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = sleep(wait) => {}
            }
        }
        self.link.send_replace(None);
        self.shared
            .status
            .send_modify(|status| status.connected = false);
    }

    /// One stream, from connecting to its end.
    async fn follow(&mut self, endpoint: &Endpoint) -> Ended {
        match self.stream(endpoint).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn stream(&mut self, endpoint: &Endpoint) -> Result<std::convert::Infallible, Ended> {
        let timing = self.shared.timing.clone();
        let channel = (self.dial)(endpoint.clone())
            .await
            .map_err(|error| Ended::Connect(full_message(&error)))?;
        let serving = self.shared.table.load_full();
        let committed = self.shared.status.borrow().synced;
        let (answers, outgoing) = mpsc::channel(UNREAD_ANSWERS);
        let have = (!serving.is_initial()).then(|| serving.cursor());
        // The channel was made above and is empty.
        answers
            .try_send(wire::hello(&self.shared.node, have))
            .map_err(|_| Ended::Stalled)?;

        let mut client = RouteFeedServiceClient::new(channel.clone());
        let opening = client.stream_routes(ReceiverStream::new(outgoing));
        let mut incoming = timeout(timing.first_message, opening)
            .await
            .map_err(|_| Leave::Unanswered(timing.first_message))?
            .map_err(Ended::Refused)?
            .into_inner();
        let lifetime = timing
            .lifetime
            .mul_f64(self.rng.random_range(LIFETIME_FROM..=2.0 - LIFETIME_FROM));
        let mut session = Session::new(
            serving,
            committed,
            self.left.clone(),
            timing,
            lifetime,
            Instant::now(),
        );
        let mut answered = false;
        loop {
            let received = tokio::select! {
                biased;
                received = incoming.message() => received.map_err(Ended::Refused)?,
                () = sleep_until(session.deadline()) => match session.overdue(Instant::now()) {
                    Some(leave) => return Err(leave.into()),
                    None => continue,
                },
            };
            let message = wire::decode_message(received.ok_or(Ended::Closed)?);
            let now = Instant::now();
            if !std::mem::replace(&mut answered, true) {
                self.backoff.reset();
                self.link.send_replace(Some(channel.clone()));
                self.connected(endpoint);
            }
            let actions = session.step(message, now);
            self.shared.status.send_modify(|status| {
                status.connected = true;
                status.last_contact = Some(now);
            });
            for action in actions {
                self.perform(action, &answers)?;
            }
            // Asked here too: a plane that never falls silent must not put the deadline off for ever.
            if let Some(leave) = session.overdue(now) {
                return Err(leave.into());
            }
        }
    }

    fn perform(
        &mut self,
        action: Action,
        answers: &mpsc::Sender<pb::StreamRoutesRequest>,
    ) -> Result<(), Ended> {
        match action {
            Action::Install(table) => {
                self.log_table(&table);
                self.left.leave(&self.shared.table.load(), table.cursor());
                self.shared.install(table);
            }
            Action::Send(reply) => {
                if let super::message::Reply::Nack { refusal, .. } = &reply {
                    tracing::warn!(
                        feed.refusal = %refusal,
                        "a change of the route table was refused; the one before it serves on"
                    );
                }
                answers
                    .try_send(wire::encode_reply(reply))
                    .map_err(|_| Ended::Stalled)?;
            }
            Action::Confirmed => self
                .shared
                .status
                .send_modify(|status| status.synced = true),
            Action::Head(head) => self.shared.status.send_modify(|status| status.head = head),
            Action::Leave(leave) => return Err(leave.into()),
        }
        Ok(())
    }

    fn wait_after(&mut self, ended: &Ended) -> Duration {
        match ended {
            Ended::Left(Leave::Expired) => Duration::ZERO,
            // All nodes of a plane that stops are asked at once: half as much again spreads them.
            Ended::Left(Leave::GoAway(after)) => after.mul_f64(self.rng.random_range(1.0..=1.5)),
            _ => self.backoff.next(&mut self.rng),
        }
    }

    fn connected(&mut self, endpoint: &Endpoint) {
        self.trouble = None;
        tracing::info!(feed.control_plane = %endpoint.uri(), "following the route feed");
    }

    fn log(&mut self, endpoint: &Endpoint, ended: &Ended, wait: Duration) {
        let control_plane = endpoint.uri();
        if matches!(ended, Ended::Left(Leave::Expired | Leave::GoAway(_))) {
            tracing::info!(feed.control_plane = %control_plane, reason = %ended, "reconnecting");
            return;
        }
        let error = ended.to_string();
        if self.trouble.as_ref() == Some(&error) {
            tracing::debug!(feed.control_plane = %control_plane, error, ?wait, "trying again");
        } else {
            tracing::warn!(
                feed.control_plane = %control_plane,
                error,
                "the route feed is interrupted; the table that this node has serves on"
            );
            self.trouble = Some(error);
        }
    }

    fn log_table(&self, table: &Table) {
        tracing::debug!(
            feed.revision = table.cursor().revision,
            feed.routes = table.len(),
            "the route table is replaced"
        );
        let before = self.shared.table.load();
        for held in table.quarantined() {
            if !before.quarantined().contains(held) {
                tracing::warn!(
                    service.name = %held.service,
                    service.uid = %held.service_uid,
                    reason = %held.reason,
                    "a route cannot be used; its last good value serves on, if it has one"
                );
            }
        }
    }
}

/// The error with its causes: tonic's own says only "transport error".
fn full_message(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}
