//! The encoded route of a service, made once when the route changes.

use super::{resources::spec, settings::settings, timestamp};
use crate::domain::spec::{PIDS_DEFAULT, STOP_GRACE_DEFAULT};
use crate::domain::{ProbeTimings, Protocol, Route, RouteVersion, Slots, TagRoute, VersionSpec};
use cless_proto::v1 as pb;
use prost::Message as _;

/// The bytes of a route, which are stored, hashed into the digest and sent. Equal routes have equal
/// bytes, because maps are encoded in key order.
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
        spec: Some(without_later_defaults(&version.spec)),
        image_digest: version
            .image_digest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        verify: version.verify.as_ref().map(|order| pb::VerifyOrder {
            id: order.id.clone(),
            deadline: Some(timestamp(order.deadline)),
        }),
        // Empty and 0 for most versions, so that routes stored before keep their bytes.
        image_id: version
            .image_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        image_generation: version.image_generation,
    }
}

/// A specification without the defaults of fields added after the first release. Routes stored
/// before keep their bytes, so that no upgrade needs a new epoch. Nodes know the defaults
/// (`resources.proto`).
fn without_later_defaults(of: &VersionSpec) -> pb::VersionSpec {
    let mut sent = spec(of);
    if of.pids_limit() == PIDS_DEFAULT {
        sent.pids_limit = 0;
    }
    if of.stop_grace() == STOP_GRACE_DEFAULT {
        sent.stop_grace = None;
    }
    if of.protocol() == Protocol::default() {
        sent.protocol = pb::version_spec::Protocol::Unspecified.into();
    }
    let default = ProbeTimings::default();
    if let Some(probe) = &mut sent.readiness {
        let timings = of.probe();
        for (span, is_default) in [
            (&mut probe.period, timings.period() == default.period()),
            (&mut probe.timeout, timings.timeout() == default.timeout()),
            (
                &mut probe.initial_delay,
                timings.initial_delay() == default.initial_delay(),
            ),
        ] {
            if is_default {
                *span = None;
            }
        }
    }
    sent
}

fn slots(slots: &Slots) -> Vec<i32> {
    slots
        .as_slice()
        .iter()
        .map(|version| version.get())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The bytes of this specification in the first release.
    const FIRST_RELEASE: &[u8] =
        b"\x0a\x07hello:1\x30\xe8\x07\x38\x80\x80\x80\x80\x02\x42\x02\x0a\x00\x48\x01";

    fn stored(more: &str) -> VersionSpec {
        let text = format!(
            r#"{{"image":"hello:1","port":null,"cpu_millis":1000,"memory_bytes":536870912{more}}}"#
        );
        serde_json::from_str(&text).expect("a specification")
    }

    #[test]
    fn a_specification_without_later_fields_has_the_bytes_of_the_first_release() {
        assert_eq!(
            without_later_defaults(&stored("")).encode_to_vec(),
            FIRST_RELEASE
        );
    }

    #[test]
    fn the_fields_of_containers_are_sent_if_they_are_used() {
        let sent = without_later_defaults(&stored(
            r#","no_init":true,"cap_add":["NET_RAW"],"tmpfs_exec":["/x"],"shm_bytes":65536,"ulimits":[{"name":"core","soft":0,"hard":0}],"extra_hosts":{"db":"10.0.0.5"},"dns":["10.0.0.53"],"egress":["db:5432"]"#,
        ));
        assert!(sent.no_init);
        assert_eq!(sent.cap_add, ["NET_RAW"]);
        assert_eq!((sent.tmpfs_exec.len(), sent.shm_bytes), (1, 65_536));
        assert_eq!((sent.ulimits.len(), sent.extra_hosts.len()), (1, 1));
        assert_eq!(
            (&sent.dns[0][..], &sent.egress[0][..]),
            ("10.0.0.53", "db:5432")
        );
    }

    #[test]
    fn values_other_than_the_default_are_sent() {
        let sent = without_later_defaults(&stored(
            r#","pids_limit":64,"protocol":"H2c","stop_grace":{"secs":0,"nanos":0},"probe":{"period":{"secs":1,"nanos":0}}"#,
        ));
        assert_eq!(sent.pids_limit, 64);
        assert_eq!(sent.protocol(), pb::version_spec::Protocol::H2c);
        assert_eq!(sent.stop_grace, Some(prost_types::Duration::default()));
        let probe = sent.readiness.expect("a probe");
        let period = probe.period.map(Duration::try_from);
        assert_eq!(period, Some(Ok(Duration::from_secs(1))));
        assert_eq!((probe.timeout, probe.initial_delay), (None, None));
    }
}
