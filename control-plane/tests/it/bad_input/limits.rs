//! Invalid probes and limits, and the complete list of container settings.

use super::versions::{BadSpec, bad};
use super::with;
use cless_proto::v1 as pb;
use prost::Message as _;

fn duration(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

pub(super) fn bad_probes() -> Vec<BadSpec> {
    use pb::readiness_probe::Kind;
    let probe = |field: &str, kind, change: fn(&mut pb::ReadinessProbe)| {
        let probe = pb::ReadinessProbe {
            kind: Some(kind),
            ..Default::default()
        };
        bad(field, |s| s.readiness = Some(with(probe, change)))
    };
    let tcp = |field: &str, change| {
        let kind = Kind::Tcp(pb::TcpProbe {});
        probe(&format!("readiness.{field}"), kind, change)
    };
    let grpc = |service: &str| {
        let service = service.into();
        let kind = Kind::Grpc(pb::GrpcProbe { service });
        probe("readiness.grpc.service", kind, |_| {})
    };
    vec![
        grpc("shop v1"),
        grpc(&"x".repeat(256)),
        tcp("period", |p| p.period = duration(0, 0)),
        tcp("period", |p| p.period = duration(0, -1)),
        tcp("timeout", |p| p.timeout = duration(61, 0)),
        tcp("initial_delay", |p| p.initial_delay = duration(601, 0)),
    ]
}

pub(super) fn bad_limits() -> Vec<BadSpec> {
    let mut specs = Vec::new();
    for image in [
        "--privileged",
        "hello:1 --privileged",
        "-v /:/host hello:1",
        "hello:1\n--device=/dev/sda",
    ] {
        specs.push(bad("image", |s| s.image = image.into()));
    }
    for limit in [1, 15, 32_769, u32::MAX] {
        specs.push(bad("pids_limit", |s| s.pids_limit = limit));
    }
    for (path, size) in [
        ("/", 0),
        ("relative", 0),
        ("/proc", 0),
        ("/sys/fs/cgroup", 0),
        ("/dev/shm", 0),
        ("/a/../proc", 0),
        ("/a,exec", 0),
        ("/tmp:rw", 0),
        ("/etc/hosts", 0),
        ("/tmp", 1),
        ("/tmp", (512 << 20) + 1),
    ] {
        let tmpfs = [(path.to_owned(), size)].into();
        specs.push(bad(&format!("tmpfs[{path}]"), |s| s.tmpfs = tmpfs));
    }
    let many = (0..17).map(|n| (format!("/m{n}"), 0)).collect();
    specs.push(bad("tmpfs", |s| s.tmpfs = many));
    for user in [
        "root:",
        ":0",
        "0:0:0",
        "a b",
        "--privileged",
        "root\n",
        "4294967295",
    ] {
        specs.push(bad("user", |s| s.user = user.into()));
    }
    for signal in ["SIGNONSENSE", "0", "65", "-9", "SIGSTOP", "TERM;id"] {
        specs.push(bad("stop_signal", |s| s.stop_signal = signal.into()));
    }
    for grace in [duration(-1, 0), duration(301, 0)] {
        specs.push(bad("stop_grace", |s| s.stop_grace = grace));
    }
    specs
}

/// Pins the settings of a container. A new field belongs here only if it reaches neither the host
/// nor another container: no privileged mode, host namespace, host path, device or capability.
#[test]
fn a_container_has_no_other_settings() {
    let set = prost_types::FileDescriptorSet::decode(cless_proto::FILE_DESCRIPTOR_SET);
    let messages: Vec<_> = set
        .expect("descriptors")
        .file
        .into_iter()
        .filter(|file| file.package() == "cless.v1")
        .flat_map(|file| file.message_type)
        .collect();
    let mut fields = std::collections::BTreeSet::new();
    let mut open = vec![(String::new(), ".cless.v1.VersionSpec".to_owned())];
    while let Some((path, name)) = open.pop() {
        let name = name.trim_start_matches(".cless.v1.");
        // Map entries are plain keys and values.
        let Some(message) = messages.iter().find(|message| message.name() == name) else {
            continue;
        };
        for field in &message.field {
            let path = format!("{path}{}", field.name());
            open.push((format!("{path}."), field.type_name().to_owned()));
            fields.insert(path);
        }
    }
    let known = [
        "args",
        "command",
        "cpu_millis",
        "env",
        "image",
        "memory_bytes",
        "pids_limit",
        "port",
        "protocol",
        "pull_policy",
        "read_only_root",
        "readiness",
        "readiness.grpc",
        "readiness.grpc.service",
        "readiness.healthcheck",
        "readiness.http",
        "readiness.http.path",
        "readiness.http.status_max",
        "readiness.http.status_min",
        "readiness.initial_delay",
        "readiness.period",
        "readiness.tcp",
        "readiness.timeout",
        "stop_grace",
        "stop_signal",
        "tmpfs",
        "user",
    ];
    assert_eq!(fields.iter().map(String::as_str).collect::<Vec<_>>(), known);
}
