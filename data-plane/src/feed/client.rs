//! Connects to the control plane, performs the actions of [`Session`] and reconnects.

use super::backoff::Backoff;
use super::epochs::PastEpochs;
use super::session::{Session, SessionAction, SessionCloseReason};
use super::{Connector, FeedState, wire};
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
use tracing::{Instrument as _, Span, field};

/// Replies that the control plane has not read yet. One is due per commit, so a full queue means a
/// stalled peer.
const MAX_UNREAD_REPLIES: usize = 8;

/// The lifetime of a stream is drawn from 0.8 to 1.2 times the configured one, so that nodes which
/// connected together do not reconnect together.
const LIFETIME_FROM: f64 = 0.8;

pub(super) struct Client {
    shared: Arc<FeedState>,
    endpoints: Vec<Endpoint>,
    connect: Connector,
    /// The connection of the current stream; reports use it too.
    connection: watch::Sender<Option<Channel>>,
    backoff: Backoff,
    rng: SmallRng,
    /// Epochs left on any stream of this process.
    past_epochs: PastEpochs,
    /// The error logged last; an identical one is not logged as a warning again.
    last_error: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the control plane refused: {} ({})", .0.message(), .0.code())]
    Refused(tonic::Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane does not read its replies")]
    Stalled,
    #[error(transparent)]
    ClosedByNode(#[from] SessionCloseReason),
}

impl Client {
    pub(super) fn new(
        shared: Arc<FeedState>,
        endpoints: Vec<Endpoint>,
        connect: Connector,
        connection: watch::Sender<Option<Channel>>,
        rng: SmallRng,
    ) -> Self {
        let timing = &shared.timing;
        let backoff = Backoff::new(timing.backoff_floor, timing.backoff_ceiling);
        Self {
            shared,
            endpoints,
            connect,
            connection,
            backoff,
            rng,
            past_epochs: PastEpochs::default(),
            last_error: None,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        // Nodes with the same list of addresses spread over it.
        let mut at = self.rng.random_range(0..self.endpoints.len());
        loop {
            let endpoint = self.endpoints[at].clone();
            let span = self.span(&endpoint);
            let wait = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                wait = self.follow(&endpoint).instrument(span) => wait,
            };
            at = (at + 1) % self.endpoints.len();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = sleep(wait) => {}
            }
        }
        self.disconnected();
    }

    /// The span of one stream. At the level of errors, so that no log filter removes its fields.
    fn span(&self, endpoint: &Endpoint) -> Span {
        let span = tracing::error_span!(
            "feed",
            node = self.shared.node.name,
            feed.control_plane = %endpoint.uri(),
            feed.cluster = field::Empty,
            feed.epoch = field::Empty,
        );
        let table = self.shared.table.load();
        if !table.is_initial() {
            record_origin(&span, &table);
        }
        span
    }

    /// Follows one stream to its end. Returns the delay before the next one.
    async fn follow(&mut self, endpoint: &Endpoint) -> Duration {
        let end = match self.stream(endpoint).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.disconnected();
        let wait = self.wait_after(&end);
        self.log_end(&end, wait);
        wait
    }

    fn disconnected(&self) {
        self.connection.send_replace(None);
        let status = &self.shared.status;
        status.send_modify(|status| status.connected = false);
    }

    async fn stream(&mut self, endpoint: &Endpoint) -> Result<std::convert::Infallible, StreamEnd> {
        let timing = self.shared.timing.clone();
        let channel = (self.connect)(endpoint.clone())
            .await
            .map_err(|error| StreamEnd::Connect(full_message(&error)))?;
        let serving = self.shared.table.load_full();
        let confirmed = self.shared.status.borrow().synced;
        let (replies, outgoing) = mpsc::channel(MAX_UNREAD_REPLIES);
        let have = (!serving.is_initial()).then(|| serving.cursor());
        // The channel is new and empty.
        replies
            .try_send(wire::hello(&self.shared.node, have))
            .map_err(|_| StreamEnd::Stalled)?;

        let mut client = RouteFeedServiceClient::new(channel.clone());
        let opening = client.stream_routes(ReceiverStream::new(outgoing));
        let mut incoming = timeout(timing.first_message, opening)
            .await
            .map_err(|_| SessionCloseReason::Unanswered(timing.first_message))?
            .map_err(StreamEnd::Refused)?
            .into_inner();
        let lifetime = timing
            .lifetime
            .mul_f64(self.rng.random_range(LIFETIME_FROM..=2.0 - LIFETIME_FROM));
        let mut session = Session::new(
            serving,
            confirmed,
            self.past_epochs.clone(),
            timing,
            lifetime,
            Instant::now(),
        );
        let mut responded = false;
        loop {
            let received = tokio::select! {
                biased;
                received = incoming.message() => received.map_err(StreamEnd::Refused)?,
                () = sleep_until(session.deadline()) => match session.close_reason(Instant::now()) {
                    Some(reason) => return Err(reason.into()),
                    None => continue,
                },
            };
            let message = wire::decode_message(received.ok_or(StreamEnd::Closed)?);
            let now = Instant::now();
            if !std::mem::replace(&mut responded, true) {
                self.backoff.reset();
                self.connection.send_replace(Some(channel.clone()));
                self.last_error = None;
                tracing::info!("following the route feed");
            }
            let actions = session.step(message, now);
            self.shared.status.send_modify(|status| {
                status.connected = true;
                status.last_contact = Some(now);
            });
            for action in actions {
                self.perform(action, &replies)?;
            }
            // A peer that never pauses would otherwise postpone the deadline forever.
            if let Some(reason) = session.close_reason(now) {
                return Err(reason.into());
            }
        }
    }

    fn perform(
        &mut self,
        action: SessionAction,
        replies: &mpsc::Sender<pb::StreamRoutesRequest>,
    ) -> Result<(), StreamEnd> {
        match action {
            SessionAction::Install(table) => {
                self.log_table(&table);
                let previous = self.shared.table.load();
                if previous.is_initial() || previous.cursor().epoch != table.cursor().epoch {
                    record_origin(&Span::current(), &table);
                }
                self.past_epochs.record(&previous, table.cursor());
                self.shared.install(table);
            }
            SessionAction::Send(reply) => {
                if let super::message::Reply::Nack { refusal, .. } = &reply {
                    tracing::warn!(
                        feed.refusal = %refusal,
                        "a change of the route table was refused; the previous table keeps serving"
                    );
                }
                replies
                    .try_send(wire::encode_reply(reply))
                    .map_err(|_| StreamEnd::Stalled)?;
            }
            SessionAction::Confirmed => self
                .shared
                .status
                .send_modify(|status| status.synced = true),
            SessionAction::Head(head) => {
                self.shared.status.send_modify(|status| status.head = head)
            }
            SessionAction::Close(reason) => return Err(reason.into()),
        }
        Ok(())
    }

    fn wait_after(&mut self, end: &StreamEnd) -> Duration {
        match end {
            StreamEnd::ClosedByNode(SessionCloseReason::Expired) => Duration::ZERO,
            // A stopping control plane sends the same delay to all nodes: up to half more spreads
            // them.
            StreamEnd::ClosedByNode(SessionCloseReason::GoAway(after)) => {
                after.mul_f64(self.rng.random_range(1.0..=1.5))
            }
            _ => self.backoff.next(&mut self.rng),
        }
    }

    fn log_end(&mut self, end: &StreamEnd, wait: Duration) {
        use SessionCloseReason::{Expired, GoAway};
        if matches!(end, StreamEnd::ClosedByNode(Expired | GoAway(_))) {
            tracing::info!(reason = %end, "reconnecting");
            return;
        }
        let error = end.to_string();
        if self.last_error.as_ref() == Some(&error) {
            tracing::debug!(error, ?wait, "retrying");
        } else {
            tracing::warn!(
                error,
                "the route feed is interrupted; the current table keeps serving"
            );
            self.last_error = Some(error);
        }
    }

    fn log_table(&self, table: &Table) {
        tracing::debug!(
            feed.revision = table.cursor().revision,
            feed.routes = table.len(),
            "replaced the route table"
        );
        let before = self.shared.table.load();
        for held in table.quarantined() {
            if !before.quarantined().contains(held) {
                tracing::warn!(
                    service.name = %held.service,
                    service.uid = %held.service_uid,
                    reason = %held.reason,
                    "a route is unusable; its last good value, if any, keeps serving"
                );
            }
        }
    }
}

/// Records the cluster and epoch of a table in the span of its stream.
fn record_origin(span: &Span, table: &Table) {
    span.record("feed.cluster", field::display(table.cluster()));
    span.record("feed.epoch", &*table.cursor().epoch);
}

/// The error with its causes; `tonic` displays only "transport error".
fn full_message(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}
