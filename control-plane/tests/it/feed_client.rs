//! A feed client as strict as a data plane: checks the frame order and the route count, and
//! computes the digest with its own arithmetic.

use crate::harness::{Harness, SOON, identity};
use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use pb::stream_routes_request::Message as Request;
use pb::stream_routes_response::Message as Response;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// A node's stream and its table.
pub(crate) struct FeedClient {
    requests: mpsc::Sender<pb::StreamRoutesRequest>,
    responses: Streaming<pb::StreamRoutesResponse>,
    pub(crate) routes: BTreeMap<String, Vec<u8>>,
    pub(crate) cursor: Option<pb::Cursor>,
}

/// A complete received change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReceivedChange {
    pub(crate) kind: pb::begin::Kind,
    pub(crate) from: Option<pb::Cursor>,
    pub(crate) to: pb::Cursor,
    pub(crate) upserts: usize,
    pub(crate) removed: usize,
    pub(crate) chunks: usize,
}

impl FeedClient {
    /// Opens a stream without sending Hello.
    pub(crate) async fn open(harness: &Harness) -> Self {
        let (requests, inbound) = mpsc::channel(4);
        let mut feed = RouteFeedServiceClient::new(harness.channel.clone());
        let responses = feed.stream_routes(ReceiverStream::new(inbound)).await;
        let responses = responses.expect("a stream").into_inner();
        Self {
            requests,
            responses,
            routes: BTreeMap::new(),
            cursor: None,
        }
    }

    /// Opens a stream and sends Hello, with the table of `previous` if given.
    pub(crate) async fn connect(harness: &Harness, name: &str, previous: Option<&Self>) -> Self {
        let mut client = Self::open(harness).await;
        if let Some(previous) = previous {
            client.routes = previous.routes.clone();
            client.cursor = previous.cursor.clone();
        }
        client.hello(name, client.cursor.clone()).await;
        client
    }

    pub(crate) async fn hello(&self, name: &str, have: Option<pb::Cursor>) {
        self.send(Request::Hello(hello(name, have))).await;
    }

    pub(crate) async fn send(&self, message: Request) {
        let message = pb::StreamRoutesRequest {
            message: Some(message),
        };
        self.requests
            .send(message)
            .await
            .expect("the stream is open");
    }

    /// Acknowledges the current table.
    pub(crate) async fn ack(&self) {
        let ack = pb::Ack {
            cursor: self.cursor.clone(),
            quarantined: Vec::new(),
        };
        self.send(Request::Ack(ack)).await;
    }

    /// Rejects the last change; `serving` is the table it keeps.
    pub(crate) async fn nack(&self, kind: pb::nack::Kind, serving: Option<pb::Cursor>) {
        let nack = pb::Nack {
            cursor: serving,
            kind: kind.into(),
            code: tonic::Code::DataLoss.into(),
            message: "on purpose".into(),
        };
        self.send(Request::Nack(nack)).await;
    }

    /// Receives the next message.
    pub(crate) async fn receive(&mut self) -> Result<Option<Response>, Status> {
        let message = tokio::time::timeout(SOON, self.responses.message())
            .await
            .expect("in time")?;
        Ok(message.map(|message| message.message.expect("a known message")))
    }

    /// Receives the next message of an open stream.
    async fn next(&mut self) -> Response {
        let message = self.receive().await.expect("no error");
        message.expect("an open stream")
    }

    /// Receives, checks and applies the next change.
    pub(crate) async fn change(&mut self) -> ReceivedChange {
        let begin = loop {
            match self.next().await {
                Response::Begin(begin) => break begin,
                Response::Heartbeat(_) => {}
                other => panic!("not the start of a change: {other:?}"),
            }
        };
        let mut change = ReceivedChange {
            kind: begin.kind(),
            from: begin.from.clone(),
            to: begin.to.clone().expect("a target"),
            upserts: 0,
            removed: 0,
            chunks: 0,
        };
        let mut routes = match change.kind {
            pb::begin::Kind::Snapshot => BTreeMap::new(),
            pb::begin::Kind::Delta => {
                assert_eq!(begin.from, self.cursor, "a delta from the current table");
                self.routes.clone()
            }
            pb::begin::Kind::Unspecified => panic!("a change without a kind"),
        };
        loop {
            match self.next().await {
                Response::Chunk(chunk) => {
                    assert_eq!(chunk.txn, begin.txn);
                    assert_eq!(usize::try_from(chunk.part), Ok(change.chunks));
                    assert!(
                        chunk.encoded_len() <= 64 * 1024 + 1024,
                        "{}",
                        chunk.encoded_len()
                    );
                    change.chunks += 1;
                    change.upserts += chunk.upserts.len();
                    change.removed += chunk.removed.len();
                    for uid in chunk.removed {
                        routes.remove(&uid);
                    }
                    for route in chunk.upserts {
                        let decoded = pb::Route::decode(route.route.clone()).expect("a route");
                        assert_eq!(decoded.service_uid, route.service_uid);
                        routes.insert(route.service_uid, route.route.to_vec());
                    }
                }
                Response::Commit(commit) => {
                    assert_eq!(commit.txn, begin.txn);
                    assert_eq!(commit.to.as_ref(), Some(&change.to));
                    assert_eq!(usize::try_from(commit.count), Ok(routes.len()));
                    assert_eq!(change.to.digest, digest(&routes).to_vec(), "the digest");
                    self.routes = routes;
                    self.cursor = commit.to;
                    return change;
                }
                other => panic!("not part of a change: {other:?}"),
            }
        }
    }

    /// The decoded route of a service.
    pub(crate) fn route(&self, service: &str) -> Option<pb::Route> {
        let mut routes = self
            .routes
            .values()
            .map(|bytes| pb::Route::decode(&**bytes).expect("a route"));
        routes.find(|route| route.service == service)
    }

    /// Applies and acknowledges changes until the table is at `revision` or later.
    pub(crate) async fn reach(&mut self, revision: i64) {
        while self
            .cursor
            .as_ref()
            .is_none_or(|cursor| cursor.revision < revision)
        {
            self.change().await;
            self.ack().await;
        }
    }
}

pub(crate) fn hello(name: &str, have: Option<pb::Cursor>) -> pb::Hello {
    pb::Hello {
        protocol: 1,
        node: Some(identity(name)),
        boot_id: "boot-1".into(),
        have,
    }
}

/// Sum modulo 2^256 of the SHA-256 of each route, byte by byte.
fn digest(routes: &BTreeMap<String, Vec<u8>>) -> [u8; 32] {
    let mut sum = [0u8; 32];
    for bytes in routes.values() {
        let mut carry = 0u16;
        for (into, add) in sum.iter_mut().zip(Sha256::digest(bytes)).rev() {
            let total = u16::from(*into) + u16::from(add) + carry;
            *into = total as u8;
            carry = total >> 8;
        }
    }
    sum
}
