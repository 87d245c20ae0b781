//! A control plane as a process: the real feed behind a transport, and somebody in the middle who
//! drops, repeats and changes messages.

use super::link::Path;
use super::store::Replica;
use super::tally::{Tally, Watcher};
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

/// As a control plane gives its calls.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What befalls the next message that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mischief {
    DropChunk,
    RepeatChunk,
    FlipChunk,
    SwapParts,
    DropCommit,
    RepeatCommit,
    WrongDigest,
    /// The first change of the stream again, in place of the next.
    ReplayOld,
    DropAnswer,
    RepeatAnswer,
}

pub(super) const MISCHIEF: [Mischief; 10] = [
    Mischief::DropChunk,
    Mischief::RepeatChunk,
    Mischief::FlipChunk,
    Mischief::SwapParts,
    Mischief::DropCommit,
    Mischief::RepeatCommit,
    Mischief::WrongDigest,
    Mischief::ReplayOld,
    Mischief::DropAnswer,
    Mischief::RepeatAnswer,
];

/// By the node's name.
pub(super) type Plans = Arc<Mutex<HashMap<String, Mischief>>>;

/// A running control plane.
pub(super) struct Plane {
    pub(super) feed: FeedPlane,
    incoming: mpsc::UnboundedSender<DuplexStream>,
    /// Breaks every connection there is.
    broken: CancellationToken,
    shutdown: CancellationToken,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    publisher: JoinHandle<()>,
}

impl Plane {
    /// `None` if the database does not answer.
    pub(super) async fn start(
        replica: Replica,
        plans: Plans,
        tally: Tally,
        rotates: Duration,
        rng: &mut SmallRng,
    ) -> Option<Self> {
        let shutdown = CancellationToken::new();
        let (feed, publisher) = FeedPlane::start(replica, shutdown.clone()).await.ok()?;
        let service = Service {
            feed: feed.clone(),
            plans,
            tally,
            rotates,
            rng: Arc::new(Mutex::new(SmallRng::from_rng(rng))),
        };
        let (incoming, accepted) = mpsc::unbounded_channel();
        let accepted = UnboundedReceiverStream::new(accepted).map(Ok::<_, io::Error>);
        let (stop, stopped) = oneshot::channel();
        let serving = simulation::transport()
            .add_service(RouteFeedServiceServer::new(service))
            .serve_with_incoming_shutdown(accepted, async {
                // Dropped without a word: killed.
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

    pub(super) async fn connect(
        path: &Path,
        incoming: mpsc::UnboundedSender<DuplexStream>,
        broken: CancellationToken,
    ) -> io::Result<DuplexStream> {
        path.connect(&incoming, broken).await
    }

    /// Where connections go, and what breaks one.
    pub(super) fn door(&self) -> (mpsc::UnboundedSender<DuplexStream>, CancellationToken) {
        (self.incoming.clone(), self.broken.child_token())
    }

    /// Ends as kill -9 does.
    pub(super) fn kill(self) {
        self.server.abort();
        self.publisher.abort();
        self.broken.cancel();
        self.shutdown.cancel();
    }

    /// Ends as SIGTERM does; it must not take longer than it says.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        let _ended = self.stop.send(());
        let _cut_off = tokio::time::timeout(STOP_WITHIN, self.server).await;
        self.broken.cancel();
        self.publisher.await.expect("the publisher ends well");
    }
}

struct Service {
    feed: FeedPlane,
    plans: Plans,
    tally: Tally,
    rotates: Duration,
    rng: Arc<Mutex<SmallRng>>,
}

#[tonic::async_trait]
impl RouteFeedService for Service {
    type StreamRoutesStream = ReceiverStream<Result<pb::StreamRoutesResponse, Status>>;
    type WatchRoutesStream = ReceiverStream<Result<pb::WatchRoutesResponse, Status>>;

    async fn stream_routes(
        &self,
        request: Request<Streaming<pb::StreamRoutesRequest>>,
    ) -> Result<Response<Self::StreamRoutesStream>, Status> {
        let (rotates, retry) = {
            let mut rng = self.rng.lock();
            let rotates = self.rotates.mul_f64(rng.random_range(0.8..=1.2));
            (rotates, Duration::from_millis(rng.random_range(0..=1000)))
        };
        let watcher = Arc::new(Mutex::new(Watcher::new(self.tally.clone())));
        let (up, inbound) = mpsc::channel(1);
        tokio::spawn(answers(
            request.into_inner(),
            up,
            Arc::clone(&watcher),
            Arc::clone(&self.plans),
        ));
        let outbound = self
            .feed
            .stream_routes(ReceiverStream::new(inbound), rotates, retry);
        let (down, responses) = mpsc::channel(1);
        tokio::spawn(changes(outbound, down, watcher, Arc::clone(&self.plans)));
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

/// What the node says, on its way to the plane.
async fn answers(
    mut from: Streaming<pb::StreamRoutesRequest>,
    to: mpsc::Sender<Result<pb::StreamRoutesRequest, Status>>,
    watcher: Arc<Mutex<Watcher>>,
    plans: Plans,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = to.closed() => return,
            next = from.message() => next,
        };
        let Ok(Some(message)) = next else {
            watcher.lock().half_closed();
            return;
        };
        let hello = matches!(
            message.message,
            Some(pb::stream_routes_request::Message::Hello(_))
        );
        let name = watcher.lock().request(&message);
        let repeats = match (
            hello,
            take(&plans, &name, |plan| {
                matches!(plan, Mischief::DropAnswer | Mischief::RepeatAnswer)
            }),
        ) {
            (false, Some(Mischief::DropAnswer)) => 0,
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

fn take(plans: &Plans, name: &str, fits: impl Fn(Mischief) -> bool) -> Option<Mischief> {
    let mut plans = plans.lock();
    let plan = *plans.get(name)?;
    if fits(plan) { plans.remove(name) } else { None }
}

/// What the plane says, on its way to the node.
async fn changes(
    mut from: impl Stream<Item = Result<pb::StreamRoutesResponse, Status>> + Unpin,
    to: mpsc::Sender<Result<pb::StreamRoutesResponse, Status>>,
    watcher: Arc<Mutex<Watcher>>,
    plans: Plans,
) {
    let mut middle = Middle::default();
    loop {
        let next = tokio::select! {
            biased;
            () = to.closed() => return,
            next = from.next() => next,
        };
        let Some(next) = next else {
            watcher.lock().ended();
            return;
        };
        let name = watcher.lock().response(&next);
        let passed = match next {
            Ok(message) => middle.pass(message, &plans, &name),
            Err(status) => vec![Err(status)],
        };
        for message in passed {
            if to.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Somebody in the middle, with what it has heard.
#[derive(Default)]
struct Middle {
    first: Vec<pb::StreamRoutesResponse>,
    first_is_whole: bool,
    /// What comes of a change is dropped up to its commit.
    replaced: bool,
    held: Option<pb::StreamRoutesResponse>,
}

impl Middle {
    fn pass(
        &mut self,
        message: pb::StreamRoutesResponse,
        plans: &Plans,
        name: &str,
    ) -> Vec<Result<pb::StreamRoutesResponse, Status>> {
        let mut message = message;
        if !self.first_is_whole && !matches!(message.message, Some(Message::Heartbeat(_))) {
            self.first.push(message.clone());
            self.first_is_whole = matches!(message.message, Some(Message::Commit(_)));
        }
        match &mut message.message {
            Some(Message::Begin(begin))
                if begin.txn > 1
                    && take(plans, name, |plan| plan == Mischief::ReplayOld).is_some() =>
            {
                self.replaced = true;
                return self.first.iter().cloned().map(Ok).collect();
            }
            Some(Message::Chunk(chunk)) => {
                if self.replaced {
                    return Vec::new();
                }
                let plan = take(plans, name, |plan| {
                    matches!(
                        plan,
                        Mischief::DropChunk
                            | Mischief::RepeatChunk
                            | Mischief::FlipChunk
                            | Mischief::SwapParts
                    )
                });
                match plan {
                    Some(Mischief::DropChunk) => return Vec::new(),
                    Some(Mischief::RepeatChunk) => return vec![Ok(message.clone()), Ok(message)],
                    Some(Mischief::FlipChunk) => flip(chunk),
                    // Comes after the message that follows it.
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
                let plan = take(plans, name, |plan| {
                    matches!(
                        plan,
                        Mischief::DropCommit | Mischief::RepeatCommit | Mischief::WrongDigest
                    )
                });
                match plan {
                    Some(Mischief::DropCommit) => return Vec::new(),
                    Some(Mischief::RepeatCommit) => return vec![Ok(message.clone()), Ok(message)],
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
