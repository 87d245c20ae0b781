//! Invalid probes and limits, and the complete list of container settings.

use super::versions::good;
use cless_proto::v1 as pb;
use prost::Message as _;

fn duration(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

pub(super) fn bad_probes() -> Vec<(pb::VersionSpec, &'static str)> {
    use pb::readiness_probe::Kind;
    let tcp = || pb::ReadinessProbe {
        kind: Some(Kind::Tcp(pb::TcpProbe {})),
        ..Default::default()
    };
    let grpc = |service: &str| pb::ReadinessProbe {
        kind: Some(Kind::Grpc(pb::GrpcProbe {
            service: service.into(),
        })),
        ..Default::default()
    };
    let probes = [
        (grpc("shop v1"), "version.spec.readiness.grpc.service"),
        (
            grpc(&"x".repeat(256)),
            "version.spec.readiness.grpc.service",
        ),
        (
            pb::ReadinessProbe {
                period: duration(0, 0),
                ..tcp()
            },
            "version.spec.readiness.period",
        ),
        (
            pb::ReadinessProbe {
                period: duration(0, -1),
                ..tcp()
            },
            "version.spec.readiness.period",
        ),
        (
            pb::ReadinessProbe {
                timeout: duration(61, 0),
                ..tcp()
            },
            "version.spec.readiness.timeout",
        ),
        (
            pb::ReadinessProbe {
                initial_delay: duration(601, 0),
                ..tcp()
            },
            "version.spec.readiness.initial_delay",
        ),
    ];
    let spec = |readiness| pb::VersionSpec {
        readiness: Some(readiness),
        ..good()
    };
    probes.map(|(probe, field)| (spec(probe), field)).into()
}

pub(super) fn bad_limits() -> Vec<(pb::VersionSpec, &'static str)> {
    let mut specs = Vec::new();
    for image in [
        "--privileged",
        "hello:1 --privileged",
        "-v /:/host hello:1",
        "hello:1\n--device=/dev/sda",
    ] {
        let spec = pb::VersionSpec {
            image: image.into(),
            ..good()
        };
        specs.push((spec, "version.spec.image"));
    }
    for pids_limit in [1, 15, 32_769, u32::MAX] {
        let spec = pb::VersionSpec {
            pids_limit,
            ..good()
        };
        specs.push((spec, "version.spec.pids_limit"));
    }
    for (path, size, field) in [
        ("/", 0, "version.spec.tmpfs[/]"),
        ("relative", 0, "version.spec.tmpfs[relative]"),
        ("/proc", 0, "version.spec.tmpfs[/proc]"),
        ("/sys/fs/cgroup", 0, "version.spec.tmpfs[/sys/fs/cgroup]"),
        ("/dev/shm", 0, "version.spec.tmpfs[/dev/shm]"),
        ("/a/../proc", 0, "version.spec.tmpfs[/a/../proc]"),
        ("/a,exec", 0, "version.spec.tmpfs[/a,exec]"),
        ("/tmp:rw", 0, "version.spec.tmpfs[/tmp:rw]"),
        ("/etc/hosts", 0, "version.spec.tmpfs[/etc/hosts]"),
        ("/tmp", 1, "version.spec.tmpfs[/tmp]"),
        ("/tmp", (512 << 20) + 1, "version.spec.tmpfs[/tmp]"),
    ] {
        let spec = pb::VersionSpec {
            tmpfs: [(path.to_owned(), size)].into(),
            ..good()
        };
        specs.push((spec, field));
    }
    let many = (0..17).map(|n| (format!("/m{n}"), 0)).collect();
    specs.push((
        pb::VersionSpec {
            tmpfs: many,
            ..good()
        },
        "version.spec.tmpfs",
    ));
    for user in [
        "root:",
        ":0",
        "0:0:0",
        "a b",
        "--privileged",
        "root\n",
        "4294967295",
    ] {
        let spec = pb::VersionSpec {
            user: user.into(),
            ..good()
        };
        specs.push((spec, "version.spec.user"));
    }
    for stop_signal in ["SIGNONSENSE", "0", "65", "-9", "SIGSTOP", "TERM;id"] {
        let spec = pb::VersionSpec {
            stop_signal: stop_signal.into(),
            ..good()
        };
        specs.push((spec, "version.spec.stop_signal"));
    }
    for stop_grace in [duration(-1, 0), duration(301, 0)] {
        let spec = pb::VersionSpec {
            stop_grace,
            ..good()
        };
        specs.push((spec, "version.spec.stop_grace"));
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
