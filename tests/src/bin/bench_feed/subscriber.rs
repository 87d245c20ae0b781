//! A proxy's end of the route feed that keeps digests and no routes.
//!
//! It speaks `StreamRoutes` over a connection of its own, as a proxy does: Hello, then for each change
//! it takes every chunk, checks count and digest at Commit, acknowledges. A digest that does not fit
//! ends the bench: it is a broken law, not a slow answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cless_data_plane::route::Digest;
use cless_proto::v1;
use cless_proto::v1::route_feed_service_client::RouteFeedServiceClient;
use cless_proto::v1::stream_routes_request::Message as Up;
use cless_proto::v1::stream_routes_response::Message as Down;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Nothing but Hello and one Ack a change goes up.
const UPWARD: usize = 2;
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Numbers for uids, shared by all subscribers: a thousand copies of ten thousand uids would measure
/// this program.
#[derive(Debug, Default)]
pub(crate) struct Uids(parking_lot::RwLock<HashMap<String, usize>>);

impl Uids {
    fn number(&self, uid: &str) -> usize {
        if let Some(number) = self.0.read().get(uid) {
            return *number;
        }
        let mut known = self.0.write();
        let next = known.len();
        *known.entry(uid.to_owned()).or_insert(next)
    }
}

/// What is seen of one subscriber while it runs.
#[derive(Debug, Default)]
struct Seen {
    revision: AtomicI64,
    changes: AtomicUsize,
    /// When each table was whole and verified, while that is asked for.
    arrivals: parking_lot::Mutex<Vec<(i64, Instant)>>,
}

/// A running subscriber; dropped, its connection closes.
#[derive(Debug)]
pub(crate) struct Subscriber {
    seen: Arc<Seen>,
    /// Held to keep it from answering: a node that has stalled.
    gate: Arc<Mutex<()>>,
    task: JoinHandle<Result<()>>,
}

impl Subscriber {
    /// Connects and says Hello; the snapshot arrives in its own time.
    pub(crate) async fn join(plane: SocketAddr, name: String, uids: Arc<Uids>) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{plane}"))?;
        let channel = endpoint.connect_timeout(CONNECT_WITHIN).connect().await?;
        let (up, requests) = mpsc::channel(UPWARD);
        let hello = v1::Hello {
            protocol: 1,
            node: Some(v1::NodeIdentity {
                id: format!("bench-{name}"),
                name,
                version: "bench".to_owned(),
            }),
            boot_id: "bench".to_owned(),
            have: None,
        };
        up.send(request(Up::Hello(hello))).await?;
        let mut client = RouteFeedServiceClient::new(channel);
        let responses = client.stream_routes(ReceiverStream::new(requests)).await?;
        let (seen, gate) = (Arc::<Seen>::default(), Arc::<Mutex<()>>::default());
        let follower = Follower {
            table: Table::new(uids),
            seen: seen.clone(),
            gate: gate.clone(),
            up,
        };
        let task = tokio::spawn(follower.follow(responses.into_inner()));
        Ok(Self { seen, gate, task })
    }

    /// The revision it has verified last.
    pub(crate) fn revision(&self) -> i64 {
        self.seen.revision.load(Ordering::Relaxed)
    }

    /// Changes it has verified.
    pub(crate) fn changes(&self) -> usize {
        self.seen.changes.load(Ordering::Relaxed)
    }

    /// Stalls it until the returned guard is dropped: it reads nothing and answers nothing.
    pub(crate) async fn stall(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.gate.clone().lock_owned().await
    }

    /// When each revision was verified, since this was last asked.
    pub(crate) fn take_arrivals(&self) -> Vec<(i64, Instant)> {
        std::mem::take(&mut self.seen.arrivals.lock())
    }

    /// Fails if its stream has ended.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            !self.task.is_finished(),
            "a subscriber's stream ended, or its digest did not fit"
        );
        Ok(())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn request(message: Up) -> v1::StreamRoutesRequest {
    v1::StreamRoutesRequest {
        message: Some(message),
    }
}

struct Follower {
    table: Table,
    seen: Arc<Seen>,
    gate: Arc<Mutex<()>>,
    up: mpsc::Sender<v1::StreamRoutesRequest>,
}

impl Follower {
    async fn follow(mut self, mut stream: Streaming<v1::StreamRoutesResponse>) -> Result<()> {
        loop {
            drop(self.gate.lock().await);
            let message = stream
                .message()
                .await?
                .context("the plane ended a stream")?;
            match message.message.context("an empty message")? {
                Down::Begin(begin) => self.table.begin(&begin)?,
                Down::Chunk(chunk) => self.table.take(chunk),
                Down::Commit(commit) => {
                    let cursor = commit.to.context("a Commit without a cursor")?;
                    self.table.verify(&cursor, commit.count)?;
                    let revision = cursor.revision;
                    let arrival = (revision, Instant::now());
                    self.seen.arrivals.lock().push(arrival);
                    self.seen.changes.fetch_add(1, Ordering::Relaxed);
                    self.seen.revision.store(revision, Ordering::Relaxed);
                    let ack = v1::Ack {
                        cursor: Some(cursor),
                        quarantined: Vec::new(),
                    };
                    self.up.send(request(Up::Ack(ack))).await?;
                }
                Down::Heartbeat(_) => {}
                Down::GoAway(_) => bail!("the plane sent a stream away"),
            }
        }
    }
}

/// The digest of each route, and their sum.
struct Table {
    uids: Arc<Uids>,
    routes: Vec<Option<Digest>>,
    count: u64,
    sum: Digest,
}

impl Table {
    fn new(uids: Arc<Uids>) -> Self {
        Self {
            uids,
            routes: Vec::new(),
            count: 0,
            sum: Digest::ZERO,
        }
    }

    fn begin(&mut self, begin: &v1::Begin) -> Result<()> {
        match begin.kind() {
            v1::begin::Kind::Snapshot => *self = Self::new(self.uids.clone()),
            v1::begin::Kind::Delta => {}
            v1::begin::Kind::Unspecified => bail!("a change of no kind"),
        }
        Ok(())
    }

    fn take(&mut self, chunk: v1::Chunk) {
        for route in chunk.upserts {
            let digest = Digest::of(&route.route);
            self.set(&route.service_uid, Some(digest));
        }
        for uid in chunk.removed {
            self.set(&uid, None);
        }
    }

    fn set(&mut self, uid: &str, digest: Option<Digest>) {
        let number = self.uids.number(uid);
        if self.routes.len() <= number {
            self.routes.resize(number + 1, None);
        }
        if let Some(new) = digest {
            self.sum = self.sum.plus(new);
            self.count += 1;
        }
        if let Some(old) = std::mem::replace(&mut self.routes[number], digest) {
            self.sum = self.sum.minus(old);
            self.count -= 1;
        }
    }

    fn verify(&self, cursor: &v1::Cursor, count: u64) -> Result<()> {
        ensure!(
            self.count == count && self.sum.as_bytes()[..] == cursor.digest[..],
            "the table at revision {} is not the one that was sent",
            cursor.revision
        );
        Ok(())
    }
}
