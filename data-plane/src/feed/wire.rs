//! Conversion between the messages of `StreamRoutes` and protobuf. Total: invalid input becomes a
//! malformed message.

use super::message::{Begin, ChangeRefusal, Chunk, Commit, Head, Message, Reply};
use crate::route::{Cursor, Digest, Quarantined, Scope};
use cless_proto::{bounds, v1 as pb};
use std::time::Duration;

const PROTOCOL_VERSION: u32 = 1;

/// Bytes kept of a text of a refusal.
const TEXT: usize = 2000;

/// Upper bound of the delay that a `GoAway` may request.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Identification of this node in every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeInfo {
    /// The random id stored in the cache folder.
    pub(crate) id: String,
    pub(crate) name: String,
    /// An id drawn at each start of the process.
    pub(crate) boot_id: String,
}

impl NodeInfo {
    pub(crate) fn identity(&self) -> pb::NodeIdentity {
        pb::NodeIdentity {
            id: self.id.clone(),
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The first message of a stream.
pub(crate) fn hello(node: &NodeInfo, have: Option<&Cursor>) -> pb::StreamRoutesRequest {
    let hello = pb::Hello {
        protocol: PROTOCOL_VERSION,
        node: Some(node.identity()),
        boot_id: node.boot_id.clone(),
        have: have.map(encode_cursor),
    };
    request(pb::stream_routes_request::Message::Hello(hello))
}

pub(crate) fn encode_reply(reply: Reply) -> pb::StreamRoutesRequest {
    use pb::stream_routes_request::Message as Wire;
    request(match reply {
        Reply::Ack {
            cursor,
            quarantined,
        } => Wire::Ack(pb::Ack {
            cursor: Some(encode_cursor(&cursor)),
            quarantined: quarantined
                .iter()
                .take(bounds::max_items("cless.v1.Ack.quarantined"))
                .map(encode_quarantined)
                .collect(),
        }),
        Reply::Nack { cursor, refusal } => {
            let (kind, code, message) = match refusal {
                ChangeRefusal::Corrupt(reason) => {
                    (pb::nack::Kind::Corrupt, tonic::Code::DataLoss, reason)
                }
                ChangeRefusal::Rejected(reason) => (
                    pb::nack::Kind::Rejected,
                    tonic::Code::FailedPrecondition,
                    reason,
                ),
            };
            Wire::Nack(pb::Nack {
                cursor: cursor.as_ref().map(encode_cursor),
                kind: kind.into(),
                code: code.into(),
                message: bounds::sendable(&message, TEXT),
            })
        }
    })
}

pub(crate) fn decode_message(response: pb::StreamRoutesResponse) -> Message {
    use pb::stream_routes_response::Message as Wire;
    match response.message {
        None => Message::Unknown,
        Some(Wire::Begin(begin)) => decode_begin(begin),
        Some(Wire::Chunk(pb::Chunk {
            txn,
            part,
            upserts,
            removed,
        })) => {
            let upserts = upserts
                .into_iter()
                .map(|upsert| (upsert.service_uid, upsert.route))
                .collect();
            Message::Chunk(Chunk {
                txn,
                part,
                upserts,
                removed,
            })
        }
        Some(Wire::Commit(pb::Commit { txn, to, count })) => match to.and_then(decode_cursor) {
            Some(to) => Message::Commit(Commit { txn, to, count }),
            None => Message::Malformed {
                is_commit: true,
                reason: "commit.to is no cursor",
            },
        },
        Some(Wire::Heartbeat(pb::Heartbeat {
            head: Some(pb::Cursor {
                epoch, revision, ..
            }),
        })) => Message::Heartbeat {
            head: Head { epoch, revision },
        },
        Some(Wire::Heartbeat(pb::Heartbeat { head: None })) => Message::Unknown,
        Some(Wire::GoAway(pb::GoAway { retry_after })) => Message::GoAway {
            retry_after: retry_after
                .and_then(|after| Duration::try_from(after).ok())
                .unwrap_or_default()
                .min(MAX_RETRY_AFTER),
        },
    }
}

fn decode_begin(begin: pb::Begin) -> Message {
    let malformed = |reason| Message::Malformed {
        is_commit: false,
        reason,
    };
    let scope = match pb::begin::Kind::try_from(begin.kind) {
        Ok(pb::begin::Kind::Snapshot) => Scope::Snapshot,
        Ok(pb::begin::Kind::Delta) => Scope::Delta,
        Ok(pb::begin::Kind::Unspecified) | Err(_) => {
            return malformed("begin.kind is neither a snapshot nor a delta");
        }
    };
    let Some(to) = begin.to.and_then(decode_cursor) else {
        return malformed("begin.to is no cursor");
    };
    let from = begin.from.and_then(decode_cursor);
    Message::Begin(Begin {
        txn: begin.txn,
        cluster: begin.cluster,
        scope,
        from,
        to,
    })
}

fn decode_cursor(cursor: pb::Cursor) -> Option<Cursor> {
    let digest = Digest::from_bytes(<[u8; 32]>::try_from(&cursor.digest[..]).ok()?);
    let pb::Cursor {
        epoch, revision, ..
    } = cursor;
    (!epoch.is_empty()).then_some(Cursor {
        epoch,
        revision,
        digest,
    })
}

fn encode_cursor(cursor: &Cursor) -> pb::Cursor {
    pb::Cursor {
        epoch: cursor.epoch.clone(),
        revision: cursor.revision,
        digest: bytes::Bytes::copy_from_slice(cursor.digest.as_bytes()),
    }
}

fn encode_quarantined(held: &Quarantined) -> pb::QuarantinedRoute {
    pb::QuarantinedRoute {
        service_uid: bounds::sendable(&held.service_uid, TEXT),
        service: bounds::sendable(&held.service, TEXT),
        reason: bounds::sendable(&held.reason, TEXT),
    }
}

fn request(message: pb::stream_routes_request::Message) -> pb::StreamRoutesRequest {
    pb::StreamRoutesRequest {
        message: Some(message),
    }
}
