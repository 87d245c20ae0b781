//! Connects to the control plane, performs the actions of [`Session`] and reconnects.
//!
//! After a renewal of the node's certificate a new connection is dialled and the stream opened on it
//! while the old one is still followed; the old connection is dropped with the first message of the
//! new stream.

use super::epochs::PastEpochs;
use super::session::{Session, SessionAction, SessionCloseReason};
use super::{Connector, FeedState, Plane, Renewals, wire};
use crate::backoff::Backoff;
use crate::error_chain;
use crate::route::Table;
use cless_proto::v1 as pb;
use futures_util::future::BoxFuture;
use pb::route_feed_service_client::RouteFeedServiceClient;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::{Instrument as _, Span, field};

/// Replies that the control plane has not read yet. One is due per commit, so a full queue means a
/// stalled peer.
const MAX_UNREAD_REPLIES: usize = 8;

/// The lifetime of a stream is drawn from 0.8 to 1.2 times the configured one, so that nodes which
/// connected together do not reconnect together.
const LIFETIME_FROM: f64 = 0.8;

pub(super) struct Client {
    shared: Arc<FeedState>,
    planes: Vec<Plane>,
    connect: Connector,
    /// The connection of the current stream; reports use it too.
    connection: watch::Sender<Option<Channel>>,
    backoff: Backoff,
    rng: SmallRng,
    /// Epochs left on any stream of this process.
    past_epochs: PastEpochs,
    /// Certificates that no stream presents yet.
    renewals: Renewals,
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
    #[error("the stream continues on a new connection")]
    Moved(Box<OpenStream>),
}

/// A stream whose Hello is sent.
struct OpenStream {
    channel: Channel,
    /// The table that the Hello names.
    serving: Arc<Table>,
    replies: mpsc::Sender<pb::StreamRoutesRequest>,
    incoming: Streaming<pb::StreamRoutesResponse>,
    /// The stream that this one replaces, kept until the first message.
    previous: Option<Previous>,
}

/// A stream that is not read any more, with its connection.
type Previous = (
    Streaming<pb::StreamRoutesResponse>,
    mpsc::Sender<pb::StreamRoutesRequest>,
);

impl std::fmt::Debug for OpenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenStream")
    }
}

/// A connection that is being dialled beside the current one; pending if there is none.
type Dialling = BoxFuture<'static, Result<Channel, tonic::transport::Error>>;

fn none() -> Dialling {
    Box::pin(std::future::pending())
}

impl Client {
    pub(super) fn new(
        shared: Arc<FeedState>,
        planes: Vec<Plane>,
        connect: Connector,
        connection: watch::Sender<Option<Channel>>,
        rng: SmallRng,
    ) -> Self {
        let timing = &shared.timing;
        let backoff = Backoff::new(timing.backoff_floor, timing.backoff_ceiling);
        let renewals = shared.renewals();
        Self {
            shared,
            planes,
            connect,
            connection,
            backoff,
            rng,
            past_epochs: PastEpochs::default(),
            renewals,
            last_error: None,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        // Nodes with the same list of addresses spread over it.
        let mut at = self.rng.random_range(0..self.planes.len());
        loop {
            let plane = self.planes[at].clone();
            let span = self.span(&plane);
            let wait = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                wait = self.follow(&plane).instrument(span) => wait,
            };
            at = (at + 1) % self.planes.len();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = sleep(wait) => {}
                () = self.renewals.next() => {}
            }
        }
        self.disconnected();
    }

    /// The span of one stream. At the level of errors, so that no log filter removes its fields.
    fn span(&self, plane: &Plane) -> Span {
        let span = tracing::error_span!(
            "feed",
            node = self.shared.node.name,
            feed.control_plane = %plane.address,
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
    async fn follow(&mut self, plane: &Plane) -> Duration {
        let mut end = self.begin(plane).await;
        while let StreamEnd::Moved(open) = end {
            end = self.stream(plane, *open).await;
        }
        if let StreamEnd::Refused(status) = &end {
            self.shared.stream_refused(status);
        }
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

    /// Connects and opens a stream. The result is the reason of its end, as [`StreamEnd::Moved`] if
    /// it has begun.
    async fn begin(&mut self, plane: &Plane) -> StreamEnd {
        self.renewals.skip();
        let channel = match (self.connect)(plane.clone()).await {
            Ok(channel) => channel,
            Err(error) => return StreamEnd::Connect(error_chain::text(&error)),
        };
        match self.open(channel).await {
            Ok(open) => StreamEnd::Moved(Box::new(open)),
            Err(end) => end,
        }
    }

    /// Opens a stream on a connection.
    async fn open(&self, channel: Channel) -> Result<OpenStream, StreamEnd> {
        let serving = self.shared.table.load_full();
        let (replies, outgoing) = mpsc::channel(MAX_UNREAD_REPLIES);
        let have = (!serving.is_initial()).then(|| serving.cursor());
        // The channel is new and empty.
        replies
            .try_send(wire::hello(&self.shared.node, have))
            .map_err(|_| StreamEnd::Stalled)?;
        let mut client = RouteFeedServiceClient::new(channel.clone());
        let opening = client.stream_routes(ReceiverStream::new(outgoing));
        let patience = self.shared.timing.first_message;
        let incoming = timeout(patience, opening)
            .await
            .map_err(|_| SessionCloseReason::Unanswered(patience))?
            .map_err(StreamEnd::Refused)?
            .into_inner();
        Ok(OpenStream {
            channel,
            serving,
            replies,
            incoming,
            previous: None,
        })
    }

    /// Follows a stream to its end.
    async fn stream(&mut self, plane: &Plane, open: OpenStream) -> StreamEnd {
        match self.follow_open(plane, open).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn follow_open(
        &mut self,
        plane: &Plane,
        open: OpenStream,
    ) -> Result<std::convert::Infallible, StreamEnd> {
        let OpenStream {
            channel,
            serving,
            replies,
            mut incoming,
            mut previous,
        } = open;
        let timing = self.shared.timing.clone();
        let confirmed = self.shared.status.borrow().synced;
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
        let mut dialling = none();
        let mut redial_at: Option<Instant> = None;
        loop {
            let received = tokio::select! {
                biased;
                received = incoming.message() => received.map_err(StreamEnd::Refused)?,
                () = self.renewals.next() => {
                    dialling = (self.connect)(plane.clone());
                    continue;
                }
                () = sleep_until(redial_at.unwrap_or_else(Instant::now)), if redial_at.is_some() => {
                    redial_at = None;
                    dialling = (self.connect)(plane.clone());
                    continue;
                }
                // A change in transit is finished first.
                dialled = &mut dialling, if session.is_idle() => {
                    dialling = none();
                    let opened = match dialled {
                        Ok(channel) => self.open(channel).await,
                        Err(error) => Err(StreamEnd::Connect(error_chain::text(&error))),
                    };
                    match opened {
                        Ok(mut next) => {
                            next.previous = Some((incoming, replies));
                            return Err(StreamEnd::Moved(Box::new(next)));
                        }
                        Err(error) => {
                            tracing::warn!(
                                %error,
                                "no stream with the new certificate yet; the present one goes on"
                            );
                            redial_at = Some(Instant::now() + self.backoff.next(&mut self.rng));
                        }
                    }
                    continue;
                }
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
                match previous.take() {
                    Some(_) => tracing::info!("following the route feed with the new certificate"),
                    None => tracing::info!("following the route feed"),
                }
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
