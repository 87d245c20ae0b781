//! A route as proxies get it, encoded once when it changes.

use super::{settings::settings, timestamp, write::spec};
use crate::domain::{Route, RouteVersion, Slots, TagRoute};
use cless_proto::v1 as pb;
use prost::Message as _;

/// The bytes of a route: what is stored, summed into the digest, and sent. Equal routes have equal
/// bytes: maps are encoded in the order of their keys.
pub(crate) fn encode(route: &Route) -> Vec<u8> {
    to_pb(route).encode_to_vec()
}

fn to_pb(route: &Route) -> pb::Route {
    pb::Route {
        service: route.service.to_string(),
        service_uid: route.service_uid.to_string(),
        hosts: route.hosts.iter().map(ToString::to_string).collect(),
        tags: route.tags.iter().map(tag).collect(),
        settings: Some(settings(&route.settings)),
        versions: route.versions.iter().map(version).collect(),
        slots: route.slots.as_ref().map(slots).unwrap_or_default(),
    }
}

fn tag(tag: &TagRoute) -> pb::TagRoute {
    pb::TagRoute {
        tag: tag.tag.to_string(),
        host: tag.host.to_string(),
        version: tag.version.get(),
    }
}

fn version(version: &RouteVersion) -> pb::RouteVersion {
    pb::RouteVersion {
        number: version.number.get(),
        uid: version.uid.to_string(),
        spec: Some(spec(&version.spec)),
        image_digest: version
            .image_digest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        verify: version.verify.as_ref().map(|order| pb::VerifyOrder {
            id: order.id.clone(),
            deadline: Some(timestamp(order.deadline)),
        }),
    }
}

fn slots(slots: &Slots) -> Vec<i32> {
    slots
        .as_slice()
        .iter()
        .map(|version| version.get())
        .collect()
}
