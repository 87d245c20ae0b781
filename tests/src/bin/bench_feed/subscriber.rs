//! A subscriber of the route feed that stores digests instead of routes.
//!
//! It speaks `StreamRoutes` over its own connection, like a proxy: it sends Hello, applies the
//! chunks of each change, verifies count and digest at Commit, and acknowledges. A wrong digest
//! ends the bench, because it violates an invariant.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cless_data_plane::route::Digest;
use cless_proto::tls;
use cless_proto::v1;
use cless_proto::v1::route_feed_service_client::RouteFeedServiceClient;
use cless_proto::v1::stream_routes_request::Message as Up;
use cless_proto::v1::stream_routes_response::Message as Down;
use rustls::ClientConfig;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Capacity for Hello and one Ack per change.
const REQUEST_QUEUE: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Numbers for uids, shared by all subscribers: a thousand copies of ten thousand uids would
/// dominate the memory and CPU of this program.
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

#[derive(Debug, Default)]
struct Progress {
    revision: AtomicI64,
    changes: AtomicUsize,
    /// Revision and time of each verified table since the last call of
    /// [`Subscriber::take_arrivals`].
    arrivals: parking_lot::Mutex<Vec<(i64, Instant)>>,
}

/// A running subscriber; dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Subscriber {
    progress: Arc<Progress>,
    /// While locked, the subscriber reads nothing, like a stalled node.
    gate: Arc<Mutex<()>>,
    task: JoinHandle<Result<()>>,
}

impl Subscriber {
    /// Connects, with TLS if there are settings for it, and sends Hello; does not wait for the
    /// snapshot.
    pub(crate) async fn join(
        plane: SocketAddr,
        name: String,
        tls: Option<Arc<ClientConfig>>,
        uids: Arc<Uids>,
    ) -> Result<Self> {
        let channel = match tls {
            None => {
                let endpoint = Endpoint::from_shared(format!("http://{plane}"))?;
                endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await?
            }
            Some(config) => {
                let endpoint = tls::endpoint(&format!("https://{plane}"))?;
                tls::connect(endpoint.connect_timeout(CONNECT_TIMEOUT), config, None).await?
            }
        };
        let (up, requests) = mpsc::channel(REQUEST_QUEUE);
        let hello = v1::Hello {
            protocol: 1,
            node: Some(v1::NodeIdentity {
                id: name.clone(),
                name,
                version: "bench".to_owned(),
            }),
            boot_id: "bench".to_owned(),
            have: None,
        };
        up.send(request(Up::Hello(hello))).await?;
        let mut client = RouteFeedServiceClient::new(channel);
        let responses = client.stream_routes(ReceiverStream::new(requests)).await?;
        let (progress, gate) = (Arc::<Progress>::default(), Arc::<Mutex<()>>::default());
        let follower = Follower {
            table: Table::new(uids),
            progress: progress.clone(),
            gate: gate.clone(),
            up,
        };
        let task = tokio::spawn(follower.follow(responses.into_inner()));
        Ok(Self {
            progress,
            gate,
            task,
        })
    }

    pub(crate) fn revision(&self) -> i64 {
        self.progress.revision.load(Ordering::Relaxed)
    }

    pub(crate) fn changes(&self) -> usize {
        self.progress.changes.load(Ordering::Relaxed)
    }

    /// Stalls the subscriber until the guard is dropped: it neither reads nor acknowledges.
    pub(crate) async fn stall(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.gate.clone().lock_owned().await
    }

    /// Returns and clears revision and time of the tables verified since the last call.
    pub(crate) fn take_arrivals(&self) -> Vec<(i64, Instant)> {
        std::mem::take(&mut self.progress.arrivals.lock())
    }

    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            !self.task.is_finished(),
            "the stream of a subscriber ended, or a digest was wrong"
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
    progress: Arc<Progress>,
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
                .context("the control plane ended a stream")?;
            match message.message.context("an empty message")? {
                Down::Begin(begin) => self.table.begin(&begin)?,
                Down::Chunk(chunk) => self.table.take(chunk),
                Down::Commit(commit) => {
                    let cursor = commit.to.context("a Commit without a cursor")?;
                    self.table.verify(&cursor, commit.count)?;
                    let revision = cursor.revision;
                    let arrival = (revision, Instant::now());
                    self.progress.arrivals.lock().push(arrival);
                    self.progress.changes.fetch_add(1, Ordering::Relaxed);
                    self.progress.revision.store(revision, Ordering::Relaxed);
                    let ack = v1::Ack {
                        cursor: Some(cursor),
                        quarantined: Vec::new(),
                    };
                    self.up.send(request(Up::Ack(ack))).await?;
                }
                Down::Heartbeat(_) => {}
                Down::GoAway(_) => bail!("the control plane sent GoAway"),
            }
        }
    }
}

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
            v1::begin::Kind::Unspecified => bail!("a change without a kind"),
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
            "the table at revision {} differs from the sent one",
            cursor.revision
        );
        Ok(())
    }
}
