//! Drives one `StreamRoutes` call for the state machine in `feed/stream.rs`.
//!
//! One task per stream. It waits for a message of the node, a new head, the clock, the shutdown or
//! a newer stream of the same node. While it sends it waits for the transport only.

use crate::domain::{self, Violations};
use crate::feed::frames::Frames;
use crate::feed::stream::{
    Lifetime, RouteStream, STALL_LIMIT, StreamAction, StreamCloseReason, StreamEvent,
};
use crate::feed::{Cursor, Feed};
use crate::grpc::speaker::Speaker;
use crate::grpc::{convert, status, validated};
use crate::nodes::report::QuarantinedRoute;
use crate::nodes::{NodeConnection, Nodes, RESTORED};
use cless_proto::v1 as pb;
use rand::RngExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::{Stream as Messages, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::Instrument as _;

/// Frames queued ahead of the transport, enough to keep it busy.
const SEND_BUFFER: usize = 2;
/// Mean age at which a stream is rotated, so that streams spread over the replicas again.
const ROTATE_AFTER: Duration = Duration::from_secs(30 * 60);
/// Relative jitter of the rotation, so that streams opened together do not end together.
const ROTATE_JITTER: f64 = 0.2;
/// Upper bound of the reconnect delay after a rotation.
const RETRY_WITHIN_MS: u64 = 1000;
/// Time limit for the last message, so that a stuck transport does not delay the shutdown.
pub(crate) const FINAL_SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// The supported protocol version.
const PROTOCOL: u32 = 1;

/// Boxed, because a channel allocates blocks of many items, however few it ever holds.
type Outbound = mpsc::Sender<Box<ResponseItem>>;
type ResponseItem = Result<pb::StreamRoutesResponse, Status>;

/// The responses of the call.
#[derive(Debug)]
pub(crate) struct Responses(mpsc::Receiver<Box<ResponseItem>>);

impl Messages for Responses {
    type Item = ResponseItem;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<ResponseItem>> {
        self.0.poll_recv(context).map(|item| item.map(|item| *item))
    }
}

/// The requests of a streaming call.
pub(crate) trait Requests<M>:
    Messages<Item = Result<M, Status>> + Send + Unpin + 'static
{
}

impl<M, T> Requests<M> for T where T: Messages<Item = Result<M, Status>> + Send + Unpin + 'static {}

/// Whether a stream ended with a message that is refused, of which its client learns; else the
/// transport has ended.
pub(crate) fn is_refusal(end: &Status) -> bool {
    end.code() == Code::InvalidArgument
}

/// Serves a stream in a new task, which ends with the stream. `alone`: no other control plane writes
/// to the same database.
pub(crate) fn serve(
    inbound: impl Requests<pb::StreamRoutesRequest>,
    feed: &Feed,
    nodes: &Nodes,
    speaker: Speaker,
    lifetime: Lifetime,
    alone: bool,
    shutdown: CancellationToken,
) -> Responses {
    let (outbound, responses) = mpsc::channel(SEND_BUFFER);
    let driver = StreamDriver {
        feed: feed.clone(),
        nodes: nodes.clone(),
        speaker,
        node: None,
        opened: Instant::now(),
        stream: RouteStream::new(lifetime),
        alone,
        have: None,
        last_txn: 0,
        outbound,
    };
    // An error span, so that no filter removes the context of an error.
    let span = tracing::error_span!("route_stream", node = tracing::field::Empty);
    tokio::spawn(driver.run(inbound, shutdown).instrument(span));
    Responses(responses)
}

/// Draws the lifetime of a stream, so that streams opened together do not end together.
pub(crate) fn lifetime(rng: &mut impl rand::Rng) -> Lifetime {
    Lifetime {
        rotate_after: ROTATE_AFTER
            .mul_f64(rng.random_range(1.0 - ROTATE_JITTER..=1.0 + ROTATE_JITTER)),
        retry_after: Duration::from_millis(rng.random_range(0..=RETRY_WITHIN_MS)),
    }
}

struct StreamDriver {
    feed: Feed,
    nodes: Nodes,
    speaker: Speaker,
    node: Option<NodeConnection>,
    opened: Instant,
    stream: RouteStream,
    /// Whether no other control plane writes to the database: then no node can be ahead of it.
    alone: bool,
    /// The node's table at its Hello.
    have: Option<Cursor>,
    last_txn: u64,
    outbound: Outbound,
}

/// The stream ended; nothing can be sent.
struct StreamEnded;

impl StreamDriver {
    async fn run(
        mut self,
        mut inbound: impl Requests<pb::StreamRoutesRequest>,
        shutdown: CancellationToken,
    ) {
        let mut tables = self.feed.subscribe();
        let outbound = self.outbound.clone();
        loop {
            let (event, update) = tokio::select! {
                biased;
                () = shutdown.cancelled() => (StreamEvent::Shutdown, None),
                () = outbound.closed() => return,
                () = replaced(self.node.as_ref()) => {
                    return self.end(status::stream_replaced()).await;
                }
                message = inbound.next() => match message {
                    Some(Ok(message)) => match self.read(message) {
                        Ok(read) => read,
                        Err(status) => return self.end(status).await,
                    },
                    Some(Err(status)) if is_refusal(&status) => return self.end(status).await,
                    // Half-closed or broken: no more acknowledgements can come.
                    None | Some(Err(_)) => return,
                },
                moved = tables.changed() => match moved {
                    Ok(()) => (StreamEvent::HeadMoved, None),
                    Err(_publisher_ended) => (StreamEvent::Shutdown, None),
                },
                () = sleep_until(self.opened, self.stream.wake_at()) => (StreamEvent::Tick, None),
            };
            let (action, frames) = {
                let newest = tables.borrow_and_update().clone();
                let action = self.stream.on(event, self.opened.elapsed(), &newest.table);
                let frames = match &action {
                    Some(StreamAction::Snapshot(_)) => Some(newest.snapshot()),
                    Some(StreamAction::Delta(from, _)) => Some(newest.delta(from)),
                    _ => None,
                };
                // The table is released here: a stalled stream holds only its unsent frames.
                (action, frames)
            };
            if let (Some(node), Some(update)) = (&self.node, update)
                && !matches!(action, Some(StreamAction::Close(_)))
            {
                update.apply(node);
            }
            let sent = match action {
                None => Ok(()),
                Some(StreamAction::Heartbeat(head)) => {
                    self.send(convert::feed::heartbeat(&head)).await
                }
                Some(StreamAction::Snapshot(_) | StreamAction::Delta(..)) => {
                    self.send_change(frames, &shutdown).await
                }
                Some(StreamAction::GoAway(retry_after)) => {
                    let last = self
                        .outbound
                        .send(Box::new(Ok(convert::feed::go_away(retry_after))));
                    let _ = tokio::time::timeout(FINAL_SEND_TIMEOUT, last).await;
                    return;
                }
                Some(StreamAction::Close(StreamCloseReason::Behind)) if self.alone => {
                    return self.end_restored().await;
                }
                Some(StreamAction::Close(reason)) => {
                    return self.end(status::stream_closed(reason)).await;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    async fn send_change(
        &mut self,
        frames: Option<Frames>,
        shutdown: &CancellationToken,
    ) -> Result<(), StreamEnded> {
        self.last_txn += 1;
        for frame in frames.into_iter().flatten() {
            let message = convert::feed::frame(self.last_txn, &frame);
            drop(frame);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(StreamEnded),
                sent = self.send(message) => sent?,
            }
        }
        let now = self.opened.elapsed();
        let newest = self.feed.newest();
        // `Sent` starts the wait for the Ack and returns no action.
        let _none = self.stream.on(StreamEvent::Sent, now, &newest.table);
        Ok(())
    }

    async fn send(&self, message: pb::StreamRoutesResponse) -> Result<(), StreamEnded> {
        match tokio::time::timeout(STALL_LIMIT, self.outbound.send(Box::new(Ok(message)))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(StreamEnded),
            Err(_stalled) => {
                tracing::warn!("a route stream accepted no frame for 30 s and was dropped");
                Err(StreamEnded)
            }
        }
    }

    /// Ends the stream of a node whose table is newer than the database of the only control plane.
    async fn end_restored(self) {
        if let (Some(node), Some(have)) = (&self.node, self.have.clone()) {
            let revision = have.revision;
            if node.record_ahead(have) {
                let head = self.feed.revision();
                tracing::warn!(revision, head, "a node is not served: {RESTORED}");
            }
        }
        self.end(status::restored()).await;
    }

    /// Ends the stream with an error, if the node still reads.
    async fn end(&self, status: Status) {
        tracing::info!(rpc.code = ?status.code(), reason = status.message(), "route stream ended");
        let _ = tokio::time::timeout(
            FINAL_SEND_TIMEOUT,
            self.outbound.send(Box::new(Err(status))),
        )
        .await;
    }

    /// Converts a message into an event and an update of the node's registry entry.
    fn read(
        &mut self,
        message: pb::StreamRoutesRequest,
    ) -> Result<(StreamEvent, Option<NodeUpdate>), Status> {
        use pb::stream_routes_request::Message;
        match message.message {
            Some(Message::Hello(hello)) => {
                if hello.protocol != PROTOCOL {
                    let reason = format!("{} is not supported: use {PROTOCOL}", hello.protocol);
                    return Err(status::invalid(&domain::Error::invalid(
                        "hello.protocol",
                        reason,
                    )));
                }
                let mut violations = Violations::new();
                let hello = convert::feed::read_hello(hello, &mut violations);
                let (identity, boot_id, have) = validated(hello, violations)?;
                if self.node.is_some() {
                    return Err(status::stream_closed(StreamCloseReason::Protocol));
                }
                let name = identity.name.clone();
                self.speaker.check(&identity.id, name.as_str())?;
                let connection = self
                    .nodes
                    .connect(identity, boot_id)
                    .map_err(|taken| status::name_taken(&taken))?;
                tracing::Span::current().record("node", tracing::field::display(name));
                tracing::info!("node connected");
                connection.record_certificate(self.speaker.certificate_expire_time());
                self.node = Some(connection);
                self.have.clone_from(&have);
                Ok((StreamEvent::Hello(have), None))
            }
            Some(Message::Ack(ack)) => {
                let mut violations = Violations::new();
                let ack = convert::feed::read_ack(ack, &mut violations);
                let (cursor, quarantined) = validated(ack, violations)?;
                let update = NodeUpdate::Applied(cursor.clone(), quarantined);
                Ok((StreamEvent::Ack(cursor), Some(update)))
            }
            Some(Message::Nack(nack)) => {
                let mut violations = Violations::new();
                let nack = convert::feed::read_nack(nack, &mut violations);
                let (serving, kind, reason) = validated(nack, violations)?;
                let update = NodeUpdate::Rejected(serving.clone(), reason);
                Ok((StreamEvent::Nack(serving, kind), Some(update)))
            }
            None => Err(status::stream_closed(StreamCloseReason::Protocol)),
        }
    }
}

/// An update of the node's registry entry, applied once the state machine accepts the message.
enum NodeUpdate {
    Applied(Cursor, Vec<QuarantinedRoute>),
    Rejected(Option<Cursor>, String),
}

impl NodeUpdate {
    fn apply(self, node: &NodeConnection) {
        match self {
            Self::Applied(cursor, quarantined) => node.record_applied(cursor, quarantined),
            Self::Rejected(serving, reason) => node.record_rejected(serving, reason),
        }
    }
}

async fn replaced(node: Option<&NodeConnection>) {
    match node {
        Some(node) => node.replaced().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(opened: Instant, at: Option<Duration>) {
    match at {
        Some(at) => tokio::time::sleep_until(opened + at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
