//! Drives one `StreamRoutes` call: the shell around `feed/stream.rs`, which decides.
//!
//! One task a stream. It waits for the proxy, the head, the clock, the process's end or a newer
//! stream of the same node, whichever is first; and while it sends it waits for the transport only.

use crate::domain::{self, Violations};
use crate::feed::frames::Frames;
use crate::feed::stream::{
    CloseReason, Lifetime, RouteStream, STALL_LIMIT, StreamAction, StreamEvent,
};
use crate::feed::{Cursor, Feed};
use crate::grpc::{convert, read, status};
use crate::nodes::report::QuarantinedRoute;
use crate::nodes::{NodeConnection, Nodes};
use cless_proto::v1 as pb;
use rand::RngExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::{Stream as Messages, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Frames handed to the transport ahead of what it has taken: enough to keep it busy.
const AHEAD: usize = 2;
/// Streams move to another connection about this often, so that they spread over replicas again.
const ROTATE_AFTER: Duration = Duration::from_secs(30 * 60);
/// Either way, so that streams opened together do not end together.
const ROTATE_JITTER: f64 = 0.2;
/// A proxy told to go connects again within this time.
const RETRY_WITHIN_MS: u64 = 1000;
/// A transport that is stuck does not hold up the end of its stream, or of the process.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// The one protocol there is.
const PROTOCOL: u32 = 1;

/// Boxed: a channel keeps room for some sixty items, however few are ever in it.
type Outbound = mpsc::Sender<Box<Answer>>;
type Answer = Result<pb::StreamRoutesResponse, Status>;

/// What the caller of the method reads from.
#[derive(Debug)]
pub(crate) struct Responses(mpsc::Receiver<Box<Answer>>);

impl Messages for Responses {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.0
            .poll_recv(context)
            .map(|answer| answer.map(|answer| *answer))
    }
}

/// What a proxy sends.
pub(crate) trait Requests:
    Messages<Item = Result<pb::StreamRoutesRequest, Status>> + Send + Unpin + 'static
{
}

impl<T> Requests for T where
    T: Messages<Item = Result<pb::StreamRoutesRequest, Status>> + Send + Unpin + 'static
{
}

/// Serves a stream in a task of its own; it ends with the stream.
pub(crate) fn serve(
    inbound: impl Requests,
    feed: &Feed,
    nodes: &Nodes,
    lifetime: Lifetime,
    shutdown: CancellationToken,
) -> Responses {
    let (outbound, responses) = mpsc::channel(AHEAD);
    let session = Session {
        feed: feed.clone(),
        nodes: nodes.clone(),
        node: None,
        opened: Instant::now(),
        stream: RouteStream::new(lifetime),
        last_txn: 0,
        outbound,
    };
    tokio::spawn(session.run(inbound, shutdown));
    Responses(responses)
}

/// How long a stream is kept, drawn so that those opened together do not end together.
pub(crate) fn lifetime(rng: &mut impl rand::Rng) -> Lifetime {
    Lifetime {
        rotate_after: ROTATE_AFTER
            .mul_f64(rng.random_range(1.0 - ROTATE_JITTER..=1.0 + ROTATE_JITTER)),
        retry_after: Duration::from_millis(rng.random_range(0..=RETRY_WITHIN_MS)),
    }
}

struct Session {
    feed: Feed,
    nodes: Nodes,
    node: Option<NodeConnection>,
    opened: Instant,
    stream: RouteStream,
    last_txn: u64,
    outbound: Outbound,
}

/// The stream is over; there is nobody left to tell.
struct Ended;

impl Session {
    async fn run(mut self, mut inbound: impl Requests, shutdown: CancellationToken) {
        let mut tables = self.feed.subscribe();
        let outbound = self.outbound.clone();
        loop {
            let (event, told) = tokio::select! {
                biased;
                () = shutdown.cancelled() => (StreamEvent::Shutdown, None),
                () = outbound.closed() => return,
                () = replaced(self.node.as_ref()) => {
                    let newer = status::stream_replaced();
                    return self.end(newer).await;
                }
                message = inbound.next() => match message {
                    Some(Ok(message)) => match self.read(message) {
                        Ok(read) => read,
                        Err(refusal) => return self.end(refusal).await,
                    },
                    // Half-closed or broken: nobody will acknowledge any more.
                    None | Some(Err(_)) => return,
                },
                moved = tables.changed() => match moved {
                    Ok(()) => (StreamEvent::HeadMoved, None),
                    Err(_publisher_ended) => (StreamEvent::Shutdown, None),
                },
                () = wake(self.opened, self.stream.wake_at()) => (StreamEvent::Tick, None),
            };
            let (action, frames) = {
                let newest = tables.borrow_and_update().clone();
                let action = self.stream.on(event, self.opened.elapsed(), &newest.table);
                let frames = match &action {
                    Some(StreamAction::Snapshot(_)) => Some(newest.snapshot()),
                    Some(StreamAction::Delta(from, _)) => Some(newest.delta(from)),
                    _ => None,
                };
                // A stream that stalls keeps what it has yet to send, not the table.
                (action, frames)
            };
            if let (Some(node), Some(told)) = (&self.node, told)
                && !matches!(action, Some(StreamAction::Close(_)))
            {
                told.enter(node);
            }
            let done = match action {
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
                    let _ = tokio::time::timeout(LAST_WORDS, last).await;
                    return;
                }
                Some(StreamAction::Close(reason)) => {
                    return self.end(status::stream_closed(reason)).await;
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn send_change(
        &mut self,
        frames: Option<Frames>,
        shutdown: &CancellationToken,
    ) -> Result<(), Ended> {
        self.last_txn += 1;
        for frame in frames.into_iter().flatten() {
            let message = convert::feed::frame(self.last_txn, &frame);
            drop(frame);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Ended),
                sent = self.send(message) => sent?,
            }
        }
        let now = self.opened.elapsed();
        let newest = self.feed.newest();
        // `Sent` starts the wait for the answer and calls for nothing else.
        let _none = self.stream.on(StreamEvent::Sent, now, &newest.table);
        Ok(())
    }

    async fn send(&self, message: pb::StreamRoutesResponse) -> Result<(), Ended> {
        match tokio::time::timeout(STALL_LIMIT, self.outbound.send(Box::new(Ok(message)))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Ended),
            Err(_stalled) => {
                tracing::warn!("a route stream took nothing for 30 s and was dropped");
                Err(Ended)
            }
        }
    }

    /// Ends the stream with an error, if the proxy still reads.
    async fn end(&self, status: Status) {
        tracing::info!(rpc.code = ?status.code(), reason = status.message(), "route stream ended");
        let _ = tokio::time::timeout(LAST_WORDS, self.outbound.send(Box::new(Err(status)))).await;
    }

    /// Reads a message into an event, and what it tells of the node.
    fn read(
        &mut self,
        message: pb::StreamRoutesRequest,
    ) -> Result<(StreamEvent, Option<Told>), Status> {
        use pb::stream_routes_request::Message;
        match message.message {
            Some(Message::Hello(hello)) => {
                if hello.protocol != PROTOCOL {
                    let reason = format!("{} is not spoken here: speak {PROTOCOL}", hello.protocol);
                    return Err(status::invalid(&domain::Error::invalid(
                        "hello.protocol",
                        reason,
                    )));
                }
                let mut wrong = Violations::new();
                let hello = convert::feed::read_hello(hello, &mut wrong);
                let (identity, boot_id, have) = read(hello, wrong)?;
                if self.node.is_some() {
                    return Err(status::stream_closed(CloseReason::Protocol));
                }
                let name = identity.name.clone();
                let connection = self
                    .nodes
                    .connect(identity, boot_id)
                    .map_err(|taken| status::name_taken(&taken))?;
                tracing::info!(node = %name, "node connected");
                self.node = Some(connection);
                Ok((StreamEvent::Hello(have), None))
            }
            Some(Message::Ack(ack)) => {
                let mut wrong = Violations::new();
                let ack = convert::feed::read_ack(ack, &mut wrong);
                let (cursor, quarantined) = read(ack, wrong)?;
                let told = Told::Applied(cursor.clone(), quarantined);
                Ok((StreamEvent::Ack(cursor), Some(told)))
            }
            Some(Message::Nack(nack)) => {
                let mut wrong = Violations::new();
                let nack = convert::feed::read_nack(nack, &mut wrong);
                let (serving, kind, reason) = read(nack, wrong)?;
                let told = Told::Refused(serving.clone(), reason);
                Ok((StreamEvent::Nack(serving, kind), Some(told)))
            }
            None => Err(status::stream_closed(CloseReason::Protocol)),
        }
    }
}

/// What an answer tells of the node, once the state machine has found it in order.
enum Told {
    Applied(Cursor, Vec<QuarantinedRoute>),
    Refused(Option<Cursor>, String),
}

impl Told {
    fn enter(self, node: &NodeConnection) {
        match self {
            Self::Applied(cursor, quarantined) => node.record_applied(cursor, quarantined),
            Self::Refused(serving, reason) => node.record_rejected(serving, reason),
        }
    }
}

async fn replaced(node: Option<&NodeConnection>) {
    match node {
        Some(node) => node.replaced().await,
        None => std::future::pending().await,
    }
}

async fn wake(opened: Instant, at: Option<Duration>) {
    match at {
        Some(at) => tokio::time::sleep_until(opened + at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
