//! Bad input to the methods of versions.

use super::{BAD, NAMES, Table};
use crate::harness::{Harness, version_of};
use cless_proto::v1 as pb;
use tonic::Code;

/// The rows.
pub(super) async fn rows(harness: &Harness, table: &mut Table<'_>) {
    let mut catalog = harness.catalog();
    let create = |version| pb::CreateVersionRequest {
        parent: "services/hello".into(),
        version,
        ..Default::default()
    };
    for (spec, field) in bad_specs() {
        let version = pb::Version {
            spec: Some(spec),
            ..Default::default()
        };
        let answer = catalog.create_version(create(Some(version))).await;
        table.row("CreateVersion", field, answer, BAD, field).await;
    }
    let answer = catalog.create_version(create(None)).await;
    table
        .row("CreateVersion", "no version", answer, BAD, "version")
        .await;
    let answer = catalog
        .create_version(create(Some(pb::Version::default())))
        .await;
    table
        .row("CreateVersion", "no spec", answer, BAD, "version.spec")
        .await;
    let mut request = create(Some(version_of("hello:1")));
    request.request_id = "x".repeat(65);
    let answer = catalog.create_version(request).await;
    table
        .row(
            "CreateVersion",
            "a long request id",
            answer,
            BAD,
            "request_id",
        )
        .await;
    for name in NAMES {
        let mut request = create(Some(version_of("hello:1")));
        request.parent = name.into();
        let answer = catalog.create_version(request).await;
        table
            .row("CreateVersion", name, answer, BAD, "parent")
            .await;
        let request = pb::ListVersionsRequest {
            parent: name.into(),
            ..Default::default()
        };
        let answer = catalog.list_versions(request).await;
        table.row("ListVersions", name, answer, BAD, "parent").await;
    }
    let mut request = create(Some(version_of("hello:1")));
    request.parent = "services/missing".into();
    let answer = catalog.create_version(request).await;
    table
        .row(
            "CreateVersion",
            "no such service",
            answer,
            Code::NotFound,
            "",
        )
        .await;

    let foreign = pb::ListServicesRequest {
        page_size: 1,
        ..Default::default()
    };
    let foreign = catalog
        .list_services(foreign)
        .await
        .expect("a page")
        .into_inner();
    for (page_size, token, field) in [
        (-1, String::new(), "page_size"),
        (0, "damaged".to_owned(), "page_token"),
        (0, foreign.next_page_token, "page_token"),
    ] {
        let parent = "services/hello".into();
        let request = pb::ListVersionsRequest {
            parent,
            page_size,
            page_token: token,
        };
        let answer = catalog.list_versions(request).await;
        table.row("ListVersions", field, answer, BAD, field).await;
    }
    let names = [
        "",
        "services/hello",
        "services/hello/versions/0",
        "services/hello/versions/x",
    ];
    for name in names {
        let answer = catalog
            .get_version(pb::GetVersionRequest { name: name.into() })
            .await;
        table.row("GetVersion", name, answer, BAD, "name").await;
        let request = pb::VerifyVersionRequest {
            name: name.into(),
            ..Default::default()
        };
        let answer = catalog.verify_version(request).await;
        table.row("VerifyVersion", name, answer, BAD, "name").await;
        let request = pb::DeleteVersionRequest {
            name: name.into(),
            ..Default::default()
        };
        let answer = catalog.delete_version(request).await;
        table.row("DeleteVersion", name, answer, BAD, "name").await;
    }
    let missing = || "services/hello/versions/9".to_owned();
    let answer = catalog
        .get_version(pb::GetVersionRequest { name: missing() })
        .await;
    table
        .row("GetVersion", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::VerifyVersionRequest {
        name: missing(),
        ..Default::default()
    };
    let answer = catalog.verify_version(request).await;
    table
        .row("VerifyVersion", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::DeleteVersionRequest {
        name: missing(),
        ..Default::default()
    };
    let answer = catalog.delete_version(request).await;
    table
        .row("DeleteVersion", "missing", answer, Code::NotFound, "")
        .await;
    let first = || "services/hello/versions/1".to_owned();
    let request = pb::DeleteVersionRequest {
        name: first(),
        ..Default::default()
    };
    let answer = catalog.delete_version(request).await;
    table
        .row(
            "DeleteVersion",
            "in use",
            answer,
            Code::FailedPrecondition,
            "",
        )
        .await;
    for seconds in [-1, 0, 3601] {
        let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = pb::VerifyVersionRequest {
            name: first(),
            timeout,
            ..Default::default()
        };
        let answer = catalog.verify_version(request).await;
        table
            .row("VerifyVersion", "its timeout", answer, BAD, "timeout")
            .await;
    }
}

/// Specifications with one thing wrong, and what it is.
fn bad_specs() -> Vec<(pb::VersionSpec, &'static str)> {
    let env = |name: &str, value: &str| pb::VersionSpec {
        env: [(name.to_owned(), value.to_owned())].into(),
        ..good()
    };
    let http = |path: &str, status_min, status_max| {
        let http = pb::HttpProbe {
            path: path.into(),
            status_min,
            status_max,
        };
        let kind = Some(pb::readiness_probe::Kind::Http(http));
        pb::VersionSpec {
            readiness: Some(pb::ReadinessProbe {
                kind,
                ..Default::default()
            }),
            ..good()
        }
    };
    let mut specs = vec![
        (
            pb::VersionSpec {
                image: String::new(),
                ..good()
            },
            "version.spec.image",
        ),
        (
            pb::VersionSpec {
                image: "UPPER CASE".into(),
                ..good()
            },
            "version.spec.image",
        ),
        (
            pb::VersionSpec {
                port: 70_000,
                ..good()
            },
            "version.spec.port",
        ),
        (
            pb::VersionSpec {
                cpu_millis: 1,
                ..good()
            },
            "version.spec.cpu_millis",
        ),
        (
            pb::VersionSpec {
                memory_bytes: 1,
                ..good()
            },
            "version.spec.memory_bytes",
        ),
        (
            pb::VersionSpec {
                pull_policy: 9,
                ..good()
            },
            "version.spec.pull_policy",
        ),
        (
            pb::VersionSpec {
                args: vec!["a\0b".into()],
                ..good()
            },
            "version.spec.args[0]",
        ),
        (
            pb::VersionSpec {
                command: vec!["\0".into()],
                ..good()
            },
            "version.spec.command[0]",
        ),
        (env("PORT", "1"), "version.spec.env[PORT]"),
        (env("1X", "1"), "version.spec.env[1X]"),
        (env("BIG", &"x".repeat(20_000)), "version.spec"),
        (http("no-slash", 0, 0), "version.spec.readiness.http.path"),
        (http("/", 99, 0), "version.spec.readiness.http.status_min"),
        (
            http("/", 300, 200),
            "version.spec.readiness.http.status_max",
        ),
        (
            pb::VersionSpec {
                readiness: Some(pb::ReadinessProbe::default()),
                ..good()
            },
            "version.spec.readiness",
        ),
    ];
    specs.extend(bad_probes());
    specs.extend(bad_limits());
    specs
}

fn good() -> pb::VersionSpec {
    pb::VersionSpec {
        image: "hello:1".into(),
        ..Default::default()
    }
}

fn span(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

fn bad_probes() -> Vec<(pb::VersionSpec, &'static str)> {
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
                period: span(0, 0),
                ..tcp()
            },
            "version.spec.readiness.period",
        ),
        (
            pb::ReadinessProbe {
                period: span(0, -1),
                ..tcp()
            },
            "version.spec.readiness.period",
        ),
        (
            pb::ReadinessProbe {
                timeout: span(61, 0),
                ..tcp()
            },
            "version.spec.readiness.timeout",
        ),
        (
            pb::ReadinessProbe {
                initial_delay: span(601, 0),
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

fn bad_limits() -> Vec<(pb::VersionSpec, &'static str)> {
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
    for stop_grace in [span(-1, 0), span(301, 0)] {
        let spec = pb::VersionSpec {
            stop_grace,
            ..good()
        };
        specs.push((spec, "version.spec.stop_grace"));
    }
    specs
}

/// What can be asked of a container is exactly this. A new field belongs here only once it is certain that it reaches
/// neither the host nor another container: not privileged mode, a host's namespace, path or device, nor a capability.
#[test]
fn nothing_else_can_be_asked_of_a_container() {
    use prost::Message as _;
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
        // The entries of a map are plain keys and values.
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
