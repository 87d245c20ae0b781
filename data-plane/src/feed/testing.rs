//! Routes in protobuf for tests.

use bytes::Bytes;
use cless_proto::v1 as pb;
use prost::Message as _;

/// A valid route of `uid` with one version that receives all traffic.
pub(crate) fn route(uid: &str, hosts: &[&str]) -> pb::Route {
    pb::Route {
        service: format!("s-{uid}"),
        service_uid: uid.to_owned(),
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        tags: Vec::new(),
        settings: Some(pb::ServiceSettings::default()),
        versions: vec![version(1)],
        slots: vec![1; 100],
    }
}

pub(crate) fn version(number: i32) -> pb::RouteVersion {
    pb::RouteVersion {
        number,
        uid: format!("v-{number}"),
        spec: Some(pb::VersionSpec {
            image: "hello:1".to_owned(),
            ..pb::VersionSpec::default()
        }),
        ..pb::RouteVersion::default()
    }
}

pub(crate) fn bytes(route: &pb::Route) -> Bytes {
    route.encode_to_vec().into()
}
