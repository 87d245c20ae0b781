//! A simulated control plane: the real feed behind a transport, with a fault injector that drops,
//! repeats and alters messages.

use super::coverage::{Coverage, StreamObserver};
use super::store::Replica;
use cless_control_plane::simulation::{self, FeedPlane};
use cless_proto::v1 as pb;
use parking_lot::Mutex;
use pb::route_feed_service_server::{RouteFeedService, RouteFeedServiceServer};
use pb::stream_routes_response::Message;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Time limit of open calls at shutdown, as in the real control plane.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A fault of the next applicable message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageFault {
    DropChunk,
    RepeatChunk,
    FlipChunk,
    SwapParts,
    DropCommit,
    RepeatCommit,
    WrongDigest,
    /// Replaces the next change by the first one of the stream.
    ReplayOld,
    DropRequest,
    RepeatRequest,
}

pub(super) const MESSAGE_FAULTS: [MessageFault; 10] = [
    MessageFault::DropChunk,
    MessageFault::RepeatChunk,
    MessageFault::FlipChunk,
    MessageFault::SwapParts,
    MessageFault::DropCommit,
    MessageFault::RepeatCommit,
    MessageFault::WrongDigest,
    MessageFault::ReplayOld,
    MessageFault::DropRequest,
    MessageFault::RepeatRequest,
];

/// Planned faults by node name.
pub(super) type PlannedFaults = Arc<Mutex<HashMap<String, MessageFault>>>;

/// A running control plane.
pub(super) struct SimControlPlane {
    pub(super) feed: FeedPlane,
    incoming: mpsc::UnboundedSender<DuplexStream>,
    /// Breaks all connections.
    broken: CancellationToken,
    shutdown: CancellationToken,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    publisher: JoinHandle<()>,
}

impl SimControlPlane {
    /// Starts a control plane; `None` if the database does not respond.
    pub(super) async fn start(
        replica: Replica,
        planned: PlannedFaults,
        coverage: Coverage,
        max_age: Duration,
        rng: &mut SmallRng,
    ) -> Option<Self> {
        let shutdown = CancellationToken::new();
        let (feed, publisher) = FeedPlane::start(replica, shutdown.clone()).await.ok()?;
        let service = Service {
            feed: feed.clone(),
            planned,
            coverage,
            max_age,
            rng: Arc::new(Mutex::new(SmallRng::from_rng(rng))),
        };
        let (incoming, accepted) = mpsc::unbounded_channel();
        let accepted = UnboundedReceiverStream::new(accepted).map(Ok::<_, io::Error>);
        let (stop, stopped) = oneshot::channel();
        let serving = simulation::transport()
            .add_service(RouteFeedServiceServer::new(service))
            .serve_with_incoming_shutdown(accepted, async {
                // The sender is dropped without a message by a kill.
                let _ = stopped.await;
            });
        let server = tokio::spawn(async move {
            serving.await.expect("the server ends well");
        });
        Some(Self {
            feed,
            incoming,
            broken: CancellationToken::new(),
            shutdown,
            stop,
            server,
            publisher,
        })
    }

    /// Its listener, and a token that breaks its connections.
    pub(super) fn listener(&self) -> (mpsc::UnboundedSender<DuplexStream>, CancellationToken) {
        (self.incoming.clone(), self.broken.child_token())
    }

    /// Ends without cleanup, like kill -9.
    pub(super) fn kill(self) {
        self.server.abort();
        self.publisher.abort();
        self.broken.cancel();
        self.shutdown.cancel();
    }

    /// Shuts down within the time limit, like SIGTERM.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        let _ended = self.stop.send(());
        let _cut_off = tokio::time::timeout(STOP_TIMEOUT, self.server).await;
        self.broken.cancel();
        self.publisher.await.expect("the publisher ends well");
    }
}

struct Service {
    feed: FeedPlane,
    planned: PlannedFaults,
    coverage: Coverage,
    max_age: Duration,
    rng: Arc<Mutex<SmallRng>>,
}

#[tonic::async_trait]
impl RouteFeedService for Service {
    type StreamRoutesStream = ReceiverStream<Result<pb::StreamRoutesResponse, Status>>;
    type WatchRoutesStream = ReceiverStream<Result<pb::WatchRoutesResponse, Status>>;
    type StreamControlStream = ReceiverStream<Result<pb::StreamControlResponse, Status>>;

    async fn stream_control(
        &self,
        _: Request<Streaming<pb::StreamControlRequest>>,
    ) -> Result<Response<Self::StreamControlStream>, Status> {
        Err(Status::unimplemented("no questions here"))
    }

    async fn stream_routes(
        &self,
        request: Request<Streaming<pb::StreamRoutesRequest>>,
    ) -> Result<Response<Self::StreamRoutesStream>, Status> {
        let (max_age, retry) = {
            let mut rng = self.rng.lock();
            let max_age = self.max_age.mul_f64(rng.random_range(0.8..=1.2));
            (max_age, Duration::from_millis(rng.random_range(0..=1000)))
        };
        let observer = Arc::new(Mutex::new(StreamObserver::new(self.coverage.clone())));
        let (up, inbound) = mpsc::channel(1);
        tokio::spawn(forward_requests(
            request.into_inner(),
            up,
            Arc::clone(&observer),
            Arc::clone(&self.planned),
        ));
        let outbound = self
            .feed
            .stream_routes(ReceiverStream::new(inbound), max_age, retry);
        let (down, responses) = mpsc::channel(1);
        tokio::spawn(forward_responses(
            outbound,
            down,
            observer,
            Arc::clone(&self.planned),
        ));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn watch_routes(
        &self,
        _: Request<pb::WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        Err(Status::unimplemented("not simulated"))
    }

    async fn report_node_status(
        &self,
        request: Request<pb::ReportNodeStatusRequest>,
    ) -> Result<Response<()>, Status> {
        self.feed.report(request.into_inner()).map(Response::new)
    }

    async fn list_retained_images(
        &self,
        _: Request<pb::ListRetainedImagesRequest>,
    ) -> Result<Response<pb::ListRetainedImagesResponse>, Status> {
        Err(Status::unimplemented("not simulated"))
    }
}

/// Forwards the messages of a node.
async fn forward_requests(
    mut from: Streaming<pb::StreamRoutesRequest>,
    to: mpsc::Sender<Result<pb::StreamRoutesRequest, Status>>,
    observer: Arc<Mutex<StreamObserver>>,
    planned: PlannedFaults,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = to.closed() => return,
            next = from.message() => next,
        };
        let Ok(Some(message)) = next else {
            observer.lock().half_closed();
            return;
        };
        let hello = matches!(
            message.message,
            Some(pb::stream_routes_request::Message::Hello(_))
        );
        let name = observer.lock().request(&message);
        let repeats = match (
            hello,
            take(&planned, &name, |fault| {
                matches!(
                    fault,
                    MessageFault::DropRequest | MessageFault::RepeatRequest
                )
            }),
        ) {
            (false, Some(MessageFault::DropRequest)) => 0,
            (false, Some(_)) => 2,
            _ => 1,
        };
        for _ in 0..repeats {
            if to.send(Ok(message.clone())).await.is_err() {
                return;
            }
        }
    }
}

fn take(
    planned: &PlannedFaults,
    name: &str,
    applies: impl Fn(MessageFault) -> bool,
) -> Option<MessageFault> {
    let mut planned = planned.lock();
    let fault = *planned.get(name)?;
    if applies(fault) {
        planned.remove(name)
    } else {
        None
    }
}

/// Forwards the messages of the control plane.
async fn forward_responses(
    mut from: impl Stream<Item = Result<pb::StreamRoutesResponse, Status>> + Unpin,
    to: mpsc::Sender<Result<pb::StreamRoutesResponse, Status>>,
    observer: Arc<Mutex<StreamObserver>>,
    planned: PlannedFaults,
) {
    let mut injector = FaultInjector::default();
    loop {
        let next = tokio::select! {
            biased;
            () = to.closed() => return,
            next = from.next() => next,
        };
        let Some(next) = next else {
            observer.lock().ended();
            return;
        };
        let name = observer.lock().response(&next);
        let passed = match next {
            Ok(message) => injector.apply(message, &planned, &name),
            Err(status) => vec![Err(status)],
        };
        for message in passed {
            if to.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Injects faults into the responses of one stream.
#[derive(Default)]
struct FaultInjector {
    /// Messages of the first change.
    first: Vec<pb::StreamRoutesResponse>,
    first_is_complete: bool,
    /// Whether messages are dropped up to the next Commit.
    replaced: bool,
    /// A message to send after the next one.
    held: Option<pb::StreamRoutesResponse>,
}

impl FaultInjector {
    fn apply(
        &mut self,
        message: pb::StreamRoutesResponse,
        planned: &PlannedFaults,
        name: &str,
    ) -> Vec<Result<pb::StreamRoutesResponse, Status>> {
        let mut message = message;
        if !self.first_is_complete && !matches!(message.message, Some(Message::Heartbeat(_))) {
            self.first.push(message.clone());
            self.first_is_complete = matches!(message.message, Some(Message::Commit(_)));
        }
        match &mut message.message {
            Some(Message::Begin(begin))
                if begin.txn > 1
                    && take(planned, name, |fault| fault == MessageFault::ReplayOld).is_some() =>
            {
                self.replaced = true;
                return self.first.iter().cloned().map(Ok).collect();
            }
            Some(Message::Chunk(chunk)) => {
                if self.replaced {
                    return Vec::new();
                }
                let fault = take(planned, name, |fault| {
                    matches!(
                        fault,
                        MessageFault::DropChunk
                            | MessageFault::RepeatChunk
                            | MessageFault::FlipChunk
                            | MessageFault::SwapParts
                    )
                });
                match fault {
                    Some(MessageFault::DropChunk) => return Vec::new(),
                    Some(MessageFault::RepeatChunk) => {
                        return vec![Ok(message.clone()), Ok(message)];
                    }
                    Some(MessageFault::FlipChunk) => flip(chunk),
                    // The next message overtakes this one.
                    Some(_) => {
                        self.held = Some(message);
                        return Vec::new();
                    }
                    None => {}
                }
            }
            Some(Message::Commit(commit)) => {
                if std::mem::take(&mut self.replaced) {
                    return Vec::new();
                }
                let fault = take(planned, name, |fault| {
                    matches!(
                        fault,
                        MessageFault::DropCommit
                            | MessageFault::RepeatCommit
                            | MessageFault::WrongDigest
                    )
                });
                match fault {
                    Some(MessageFault::DropCommit) => return Vec::new(),
                    Some(MessageFault::RepeatCommit) => {
                        return vec![Ok(message.clone()), Ok(message)];
                    }
                    Some(_) => {
                        if let Some(to) = &mut commit.to {
                            to.digest = vec![7; 32].into();
                        }
                    }
                    None => {}
                }
            }
            _ => {}
        }
        let mut passed = vec![Ok(message)];
        passed.extend(self.held.take().map(Ok));
        passed
    }
}

fn flip(chunk: &mut pb::Chunk) {
    if let Some(route) = chunk.upserts.first_mut() {
        let mut bytes = route.route.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        route.route = bytes.into();
    } else {
        chunk.removed.clear();
    }
}
