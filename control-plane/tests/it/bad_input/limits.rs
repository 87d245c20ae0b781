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
    specs.extend(bad_options());
    specs
}

fn bad_options() -> Vec<BadSpec> {
    let many = |text: &str, count| (0..count).map(|n| format!("{text}{n}")).collect::<Vec<_>>();
    let limit = |name: &str, soft, hard| pb::Ulimit {
        name: name.into(),
        soft,
        hard,
    };
    let host = |text: &str| {
        let http = pb::HttpProbe {
            path: "/".into(),
            host: text.into(),
            ..Default::default()
        };
        let probe = pb::ReadinessProbe {
            kind: Some(pb::readiness_probe::Kind::Http(http)),
            ..Default::default()
        };
        bad("readiness.http.host", |s| s.readiness = Some(probe))
    };
    let mut specs = vec![
        host("shop.example.org/up"),
        host("a\r\nx: y"),
        bad("cap_add", |s| s.cap_add = many("NET_RAW", 17)),
        bad("dns", |s| s.dns = many("10.0.0.", 4)),
        bad("egress", |s| s.egress = many("db:500", 17)),
        bad("tmpfs_exec[0]", |s| s.tmpfs_exec = vec!["/x".into()]),
        bad("shm_bytes", |s| s.shm_bytes = 1),
        bad("shm_bytes", |s| s.shm_bytes = (512 << 20) + 1),
    ];
    for name in ["ALL", "", "NET_RAW --privileged"] {
        specs.push(bad("cap_add[0]", |s| s.cap_add = vec![name.into()]));
    }
    for one in [limit("rtprio", 1, 1), limit("nofile", 2, 1)] {
        specs.push(bad("ulimits[0]", |s| s.ulimits = vec![one]));
    }
    for (name, address) in [
        ("db", "db2"),
        ("a b", "10.0.0.5"),
        ("db", "10.0.0.5\n::1 x"),
    ] {
        let lines = [(name.to_owned(), address.to_owned())].into();
        let field = format!("extra_hosts[{name}]");
        specs.push(bad(&field, |s| s.extra_hosts = lines));
    }
    for address in ["127.0.0.1", "dns.example.org", "10.0.0.53\noptions x"] {
        specs.push(bad("dns[0]", |s| s.dns = vec![address.into()]));
    }
    for to in ["localhost:5432", "10.0.0.0/8:5432", "db", "[::1]:5432"] {
        specs.push(bad("egress[0]", |s| s.egress = vec![to.into()]));
    }
    specs
}

/// Pins the settings of a container. A new field belongs here only if it reaches neither the host
/// nor another container: no privileged mode, host namespace, host path or device. `cap_add` and
/// `egress` reach only as far as a node allows, by default nowhere.
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
        "cap_add",
        "command",
        "cpu_millis",
        "dns",
        "egress",
        "env",
        "extra_hosts",
        "image",
        "memory_bytes",
        "no_init",
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
        "readiness.http.host",
        "readiness.http.path",
        "readiness.http.status_max",
        "readiness.http.status_min",
        "readiness.initial_delay",
        "readiness.period",
        "readiness.tcp",
        "readiness.timeout",
        "shm_bytes",
        "stop_grace",
        "stop_signal",
        "tmpfs",
        "tmpfs_exec",
        "ulimits",
        "ulimits.hard",
        "ulimits.name",
        "ulimits.soft",
        "user",
    ];
    assert_eq!(fields.iter().map(String::as_str).collect::<Vec<_>>(), known);
}
