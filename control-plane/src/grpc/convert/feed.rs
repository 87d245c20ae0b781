//! Reads and writes the messages of the route feed.

use super::duration;
use crate::domain::{NodeName, Violations};
use crate::feed::frames::Frame;
use crate::feed::stream::NackKind;
use crate::feed::table::{EncodedRoute, TableChange};
use crate::feed::{Cursor, Digest};
use crate::nodes::report::{NodeIdentity, QuarantinedRoute};
use crate::store::RetainedImage;
use cless_proto::v1 as pb;
use pb::stream_routes_response::Message;
use prost::Message as _;
use std::time::Duration;

/// Maximum length of an id. Ids are UUIDs in practice; the limit bounds the memory of any caller.
const ID_MAX: usize = 128;
/// Maximum length of program versions and rejection messages, for the same reason.
const TEXT_MAX: usize = 2000;
/// Maximum size of a `WatchRoutes` message, well below the 4 MiB that clients accept.
const WATCH_MESSAGE_MAX: usize = 2 * 1024 * 1024;
/// Maximum number of quarantined routes kept per node.
const QUARANTINED_MAX: usize = 1000;

pub(crate) fn retained_image(retained: &RetainedImage) -> pb::RetainedImage {
    let digest = retained.digest.as_ref();
    pb::RetainedImage {
        image: retained.image.to_string(),
        image_digest: digest.map(ToString::to_string).unwrap_or_default(),
        version_uid: retained.version.to_string(),
        image_generation: retained.image_generation,
        image_id: retained
            .image_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

/// The node identity at `field`.
pub(crate) fn read_identity(
    field: &str,
    node: Option<pb::NodeIdentity>,
    violations: &mut Violations,
) -> Option<NodeIdentity> {
    let Some(node) = node else {
        violations.push(field, "is missing: give the id and name of the node");
        return None;
    };
    let name = violations.take(format!("{field}.name"), NodeName::parse(node.name));
    let id = read_id(&format!("{field}.id"), node.id, violations);
    let version = clipped(node.version);
    Some(NodeIdentity {
        id: id?,
        name: name?,
        version,
    })
}

/// An id made by a client.
pub(crate) fn read_id(field: &str, id: String, violations: &mut Violations) -> Option<String> {
    if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
        violations.push(
            field,
            format!("give 1 to {ID_MAX} visible ASCII characters"),
        );
        return None;
    }
    Some(id)
}

/// A Hello: the node's identity, its boot id and the cursor of its table, if any.
pub(crate) fn read_hello(
    hello: pb::Hello,
    violations: &mut Violations,
) -> Option<(NodeIdentity, String, Option<Cursor>)> {
    let identity = read_identity("hello.node", hello.node, violations);
    let boot_id = read_id("hello.boot_id", hello.boot_id, violations);
    let have = match hello.have {
        Some(have) => Some(read_cursor("hello.have", have, violations)?),
        None => None,
    };
    Some((identity?, boot_id?, have))
}

/// An Ack: the node's cursor and its quarantined routes.
pub(crate) fn read_ack(
    ack: pb::Ack,
    violations: &mut Violations,
) -> Option<(Cursor, Vec<QuarantinedRoute>)> {
    let Some(cursor) = ack.cursor else {
        violations.push("ack.cursor", "is missing: name the cursor of the Commit");
        return None;
    };
    let cursor = read_cursor("ack.cursor", cursor, violations)?;
    let quarantined = ack
        .quarantined
        .into_iter()
        .take(QUARANTINED_MAX)
        .map(|route| QuarantinedRoute {
            service_uid: clipped(route.service_uid),
            service: clipped(route.service),
            reason: clipped(route.reason),
        });
    Some((cursor, quarantined.collect()))
}

/// A Nack: the node's cursor, if any, the kind of rejection and its reason.
pub(crate) fn read_nack(
    nack: pb::Nack,
    violations: &mut Violations,
) -> Option<(Option<Cursor>, NackKind, String)> {
    let kind = match pb::nack::Kind::try_from(nack.kind) {
        Ok(pb::nack::Kind::Corrupt) => NackKind::Corrupt,
        Ok(pb::nack::Kind::Rejected) => NackKind::Rejected,
        Ok(pb::nack::Kind::Unspecified) | Err(_) => {
            violations.push("nack.kind", "give KIND_CORRUPT or KIND_REJECTED");
            return None;
        }
    };
    let serving = match nack.cursor {
        Some(cursor) => Some(read_cursor("nack.cursor", cursor, violations)?),
        None => None,
    };
    let code = tonic::Code::from(nack.code);
    Some((
        serving,
        kind,
        format!("{code:?}: {}", clipped(nack.message)),
    ))
}

fn read_cursor(field: &str, cursor: pb::Cursor, violations: &mut Violations) -> Option<Cursor> {
    let Ok(digest) = <[u8; 32]>::try_from(&*cursor.digest) else {
        let reason = format!("has {} bytes: give the 32 of the sum", cursor.digest.len());
        violations.push(format!("{field}.digest"), reason);
        return None;
    };
    let epoch = read_id(&format!("{field}.epoch"), cursor.epoch, violations)?;
    Some(Cursor::new(epoch, cursor.revision, Digest::from(digest)))
}

pub(crate) fn cursor(cursor: &Cursor) -> pb::Cursor {
    pb::Cursor {
        epoch: cursor.epoch.to_string(),
        revision: cursor.revision,
        digest: cursor.digest.to_bytes().to_vec().into(),
    }
}

/// One message of a change with the transaction number `txn`.
pub(crate) fn frame(txn: u64, frame: &Frame) -> pb::StreamRoutesResponse {
    message(match frame {
        Frame::Begin { cluster, from, to } => Message::Begin(pb::Begin {
            txn,
            cluster: cluster.to_string(),
            kind: match from {
                None => pb::begin::Kind::Snapshot,
                Some(_) => pb::begin::Kind::Delta,
            }
            .into(),
            from: from.as_ref().map(cursor),
            to: Some(cursor(to)),
        }),
        Frame::Chunk {
            part,
            upserts,
            removed,
        } => Message::Chunk(pb::Chunk {
            txn,
            part: *part,
            upserts: upserts.iter().map(|route| encoded(route)).collect(),
            removed: removed.iter().map(ToString::to_string).collect(),
        }),
        Frame::Commit { to, count } => Message::Commit(pb::Commit {
            txn,
            to: Some(cursor(to)),
            count: *count,
        }),
    })
}

fn encoded(route: &EncodedRoute) -> pb::EncodedRoute {
    pb::EncodedRoute {
        service_uid: route.uid.to_string(),
        route: route.bytes.clone(),
    }
}

pub(crate) fn heartbeat(head: &Cursor) -> pb::StreamRoutesResponse {
    message(Message::Heartbeat(pb::Heartbeat {
        head: Some(cursor(head)),
    }))
}

/// The end of a stream without an error.
pub(crate) fn go_away(retry_after: Duration) -> pb::StreamRoutesResponse {
    message(Message::GoAway(pb::GoAway {
        retry_after: Some(duration(retry_after)),
    }))
}

fn message(message: Message) -> pb::StreamRoutesResponse {
    pb::StreamRoutesResponse {
        message: Some(message),
    }
}

/// A change as `WatchRoutes` messages of limited size, with decoded routes. `only` selects one
/// service. The first message of a snapshot is marked; the others add to it.
pub(crate) fn watch_responses(
    change: &TableChange,
    selected: impl Fn(&str) -> bool,
) -> Vec<pb::WatchRoutesResponse> {
    let empty = |snapshot| pb::WatchRoutesResponse {
        revision: change.to.revision,
        epoch: change.to.epoch.to_string(),
        cluster: change.cluster.to_string(),
        snapshot,
        routes: Vec::new(),
        removed: Vec::new(),
    };
    let mut full = Vec::new();
    let mut message = empty(change.from.is_none());
    message.removed = change.removed.iter().map(ToString::to_string).collect();
    let mut bytes = 0;
    for encoded in &change.upserts {
        // Routes are encoded by this program. Nodes quarantine and report one that does not decode.
        let Ok(route) = pb::Route::decode(encoded.bytes.clone()) else {
            continue;
        };
        if !selected(&route.service) {
            continue;
        }
        bytes += encoded.bytes.len();
        if bytes > WATCH_MESSAGE_MAX && !message.routes.is_empty() {
            full.push(std::mem::replace(&mut message, empty(false)));
            bytes = encoded.bytes.len();
        }
        message.routes.push(route);
    }
    full.push(message);
    full
}

/// Limits a text of a node in size.
pub(super) fn clipped(text: String) -> String {
    if text.len() <= TEXT_MAX {
        text
    } else {
        text.chars().take(TEXT_MAX).collect()
    }
}
