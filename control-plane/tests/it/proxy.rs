//! A proxy as strict as a real one: it checks the order of frames, counts routes, and computes the
//! digest of what it holds with arithmetic of its own.

use crate::harness::{Harness, SOON, identity};
use cless_proto::v1 as pb;
use pb::stream_routes_request::Message as Say;
use pb::stream_routes_response::Message as Heard;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// One stream and the table it keeps.
pub(crate) struct Proxy {
    say: mpsc::Sender<pb::StreamRoutesRequest>,
    hear: Streaming<pb::StreamRoutesResponse>,
    pub(crate) routes: BTreeMap<String, Vec<u8>>,
    pub(crate) cursor: Option<pb::Cursor>,
}

/// A change that arrived whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) kind: pb::begin::Kind,
    pub(crate) from: Option<pb::Cursor>,
    pub(crate) to: pb::Cursor,
    pub(crate) upserts: usize,
    pub(crate) removed: usize,
    pub(crate) chunks: usize,
}

impl Proxy {
    /// Opens a stream without a word.
    pub(crate) async fn silent(harness: &Harness) -> Self {
        let (say, words) = mpsc::channel(4);
        let hear = harness
            .feed()
            .stream_routes(ReceiverStream::new(words))
            .await;
        let hear = hear.expect("a stream").into_inner();
        Self {
            say,
            hear,
            routes: BTreeMap::new(),
            cursor: None,
        }
    }

    /// Opens a stream and says Hello, with the table this proxy had before, if any.
    pub(crate) async fn connect(harness: &Harness, name: &str, had: Option<&Self>) -> Self {
        let mut proxy = Self::silent(harness).await;
        if let Some(had) = had {
            proxy.routes = had.routes.clone();
            proxy.cursor = had.cursor.clone();
        }
        proxy.hello(name, proxy.cursor.clone()).await;
        proxy
    }

    pub(crate) async fn hello(&self, name: &str, have: Option<pb::Cursor>) {
        let node = Some(identity(name));
        let hello = pb::Hello {
            protocol: 1,
            node,
            boot_id: "boot-1".into(),
            have,
        };
        self.say(Say::Hello(hello)).await;
    }

    pub(crate) async fn say(&self, message: Say) {
        let message = pb::StreamRoutesRequest {
            message: Some(message),
        };
        self.say.send(message).await.expect("the stream is open");
    }

    /// Says that the table it has is in force.
    pub(crate) async fn ack(&self) {
        let ack = pb::Ack {
            cursor: self.cursor.clone(),
            quarantined: Vec::new(),
        };
        self.say(Say::Ack(ack)).await;
    }

    /// Refuses the last change; `serving` is what it keeps.
    pub(crate) async fn nack(&self, kind: pb::nack::Kind, serving: Option<pb::Cursor>) {
        let nack = pb::Nack {
            cursor: serving,
            kind: kind.into(),
            code: tonic::Code::DataLoss.into(),
            message: "on purpose".into(),
        };
        self.say(Say::Nack(nack)).await;
    }

    /// The next message.
    pub(crate) async fn heard(&mut self) -> Result<Option<Heard>, Status> {
        let message = tokio::time::timeout(SOON, self.hear.message())
            .await
            .expect("in time")?;
        Ok(message.map(|message| message.message.expect("a known message")))
    }

    /// The next whole change, applied and checked.
    pub(crate) async fn change(&mut self) -> Change {
        let begin = loop {
            match self.heard().await.expect("no error").expect("no end") {
                Heard::Begin(begin) => break begin,
                Heard::Heartbeat(_) => {}
                other => panic!("not the beginning of a change: {other:?}"),
            }
        };
        let mut change = Change {
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
                assert_eq!(begin.from, self.cursor, "a delta from what is in force");
                self.routes.clone()
            }
            pb::begin::Kind::Unspecified => panic!("a change without a kind"),
        };
        loop {
            match self.heard().await.expect("no error").expect("no end") {
                Heard::Chunk(chunk) => {
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
                Heard::Commit(commit) => {
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

    /// Reads changes, acknowledging each, until the table has `revision`.
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
