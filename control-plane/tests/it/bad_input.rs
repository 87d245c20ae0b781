//! Bad input to every method: the code, the field that is named, and that nothing has changed.

use crate::harness::{Harness, fields, identity, target, version_of};
use crate::proxy::Proxy;
use cless_proto::v1 as pb;
use prost::Message as _;
use std::collections::BTreeSet;
use tonic::{Code, Status};

/// Sends rows and checks them; knows which methods it has seen.
struct Table<'a> {
    harness: &'a Harness,
    state: (pb::Cursor, usize),
    seen: BTreeSet<&'static str>,
}

impl<'a> Table<'a> {
    async fn of(harness: &'a Harness) -> Self {
        Self {
            harness,
            state: state(harness).await,
            seen: BTreeSet::new(),
        }
    }

    /// One row: a method, what is wrong, its answer, and what the answer must be. An empty field
    /// means that no field is to blame.
    async fn row<T>(
        &mut self,
        method: &'static str,
        wrong: &str,
        answer: Result<T, Status>,
        code: Code,
        field: &str,
    ) {
        self.seen.insert(method);
        let row = format!("{method}, {wrong}");
        let status = answer.err().unwrap_or_else(|| panic!("{row}: taken"));
        assert_eq!(status.code(), code, "{row}: {status:?}");
        let named = fields(&status);
        if field.is_empty() {
            assert!(named.is_empty(), "{row}: {named:?}");
        } else {
            assert!(named.iter().any(|name| name == field), "{row}: {named:?}");
        }
        assert!(!status.message().is_empty(), "{row}");
        assert_eq!(
            state(self.harness).await,
            self.state,
            "{row}: the state has changed"
        );
    }
}

/// Where the table stands, digest and all, and how many routes it has.
async fn state(harness: &Harness) -> (pb::Cursor, usize) {
    let head = harness.head().await;
    let mut observer = Proxy::connect(harness, "observer", None).await;
    observer.change().await;
    observer.ack().await;
    observer.reach(head).await;
    (
        observer.cursor.clone().expect("a cursor"),
        observer.routes.len(),
    )
}

const BAD: Code = Code::InvalidArgument;
const NAMES: [&str; 6] = [
    "",
    "hello",
    "services/",
    "services/Hello",
    "services/-",
    "services/a/b",
];

async fn filled() -> Harness {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.service("other").await;
    harness.version("hello", "hello:1").await;
    harness.version("hello", "hello:2").await;
    harness.split("hello", &[(1, 100)]).await;
    harness
}

#[tokio::test]
async fn bad_input_names_the_field_and_changes_nothing() {
    let harness = filled().await;
    let mut table = Table::of(&harness).await;
    services(&harness, &mut table).await;
    versions(&harness, &mut table).await;
    traffic(&harness, &mut table).await;
    nodes(&harness, &mut table).await;
    feed(&harness, &mut table).await;
    assert_eq!(table.seen, methods(), "every method has a row");
}

/// All methods there are, from the descriptors.
fn methods() -> BTreeSet<&'static str> {
    let set = prost_types::FileDescriptorSet::decode(cless_proto::FILE_DESCRIPTOR_SET);
    let files = set.expect("descriptors").file;
    let services = files
        .into_iter()
        .filter(|file| file.package() == "cless.v1");
    let methods = services
        .flat_map(|file| file.service)
        .flat_map(|service| service.method);
    methods
        .map(|method| &*String::leak(method.name().to_owned()))
        .collect()
}

async fn services(harness: &Harness, table: &mut Table<'_>) {
    let mut catalog = harness.catalog();
    let create = |service_id: &str, service| pb::CreateServiceRequest {
        service_id: service_id.into(),
        service,
        ..Default::default()
    };
    let long = "x".repeat(64);
    for id in ["", "Hello", "a.b", "a--b", "-a", "admin", "ä", &long] {
        let answer = catalog
            .create_service(create(id, Some(pb::Service::default())))
            .await;
        table
            .row("CreateService", id, answer, BAD, "service_id")
            .await;
    }
    let answer = catalog.create_service(create("new", None)).await;
    table
        .row("CreateService", "no service", answer, BAD, "service")
        .await;
    let mut request = create("new", Some(pb::Service::default()));
    request.request_id = "x".repeat(65);
    let answer = catalog.create_service(request).await;
    table
        .row(
            "CreateService",
            "a long request id",
            answer,
            BAD,
            "request_id",
        )
        .await;
    for (service, field) in bad_services() {
        let answer = catalog
            .create_service(create("new", Some(service.clone())))
            .await;
        table.row("CreateService", field, answer, BAD, field).await;
        let request = pb::UpdateServiceRequest {
            service: Some(pb::Service {
                name: "services/hello".into(),
                ..service
            }),
            ..Default::default()
        };
        let answer = catalog.update_service(request).await;
        table.row("UpdateService", field, answer, BAD, field).await;
    }
    let taken = create("hello", Some(pb::Service::default()));
    let answer = catalog.create_service(taken).await;
    table
        .row("CreateService", "taken", answer, Code::AlreadyExists, "")
        .await;

    for name in NAMES {
        let answer = catalog
            .get_service(pb::GetServiceRequest { name: name.into() })
            .await;
        table.row("GetService", name, answer, BAD, "name").await;
        let request = pb::DeleteServiceRequest {
            name: name.into(),
            ..Default::default()
        };
        let answer = catalog.delete_service(request).await;
        table.row("DeleteService", name, answer, BAD, "name").await;
        let service = pb::Service {
            name: name.into(),
            ..Default::default()
        };
        let request = pb::UpdateServiceRequest {
            service: Some(service),
            ..Default::default()
        };
        let answer = catalog.update_service(request).await;
        table
            .row("UpdateService", name, answer, BAD, "service.name")
            .await;
    }
    let missing = || "services/missing".to_owned();
    let answer = catalog
        .get_service(pb::GetServiceRequest { name: missing() })
        .await;
    table
        .row("GetService", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::DeleteServiceRequest {
        name: missing(),
        ..Default::default()
    };
    let answer = catalog.delete_service(request).await;
    table
        .row("DeleteService", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::DeleteServiceRequest {
        name: "services/hello".into(),
        etag: "stale".into(),
        ..Default::default()
    };
    let answer = catalog.delete_service(request).await;
    table
        .row("DeleteService", "a stale etag", answer, Code::Aborted, "")
        .await;

    let answer = catalog
        .update_service(pb::UpdateServiceRequest::default())
        .await;
    table
        .row("UpdateService", "no service", answer, BAD, "service")
        .await;
    for path in ["name", "uid", "settings.nothing", "*", ""] {
        let service = pb::Service {
            name: "services/hello".into(),
            ..Default::default()
        };
        let request = pb::UpdateServiceRequest {
            service: Some(service),
            update_mask: Some(prost_types::FieldMask {
                paths: vec![path.into()],
            }),
            ..Default::default()
        };
        let answer = catalog.update_service(request).await;
        table
            .row("UpdateService", path, answer, BAD, "update_mask")
            .await;
    }

    let request = pb::ListServicesRequest {
        page_size: -1,
        ..Default::default()
    };
    let answer = catalog.list_services(request).await;
    table
        .row("ListServices", "a negative size", answer, BAD, "page_size")
        .await;
    for token in ["x", "AAAA", "\u{1F980}"] {
        let request = pb::ListServicesRequest {
            page_token: token.into(),
            ..Default::default()
        };
        let answer = catalog.list_services(request).await;
        table
            .row("ListServices", token, answer, BAD, "page_token")
            .await;
    }
}

/// Services with one thing wrong, and what it is.
fn bad_services() -> Vec<(pb::Service, &'static str)> {
    let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let hosts = |hosts: &[&str]| pb::Service {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let settings = |settings| pb::Service {
        settings: Some(settings),
        ..Default::default()
    };
    let none = pb::ServiceSettings::default;
    let affinity = |kind, header: &str| {
        Some(pb::Affinity {
            kind,
            header: header.into(),
        })
    };
    vec![
        (
            hosts(&["fine.example", "Upper.example"]),
            "service.hosts[1]",
        ),
        (hosts(&["a.example:80"]), "service.hosts[0]"),
        (hosts(&[""]), "service.hosts[0]"),
        (hosts(&["a.example", "a.example"]), "service.hosts[1]"),
        (hosts(&["a.example"; 101]), "service.hosts"),
        (
            pb::Service {
                labels: [("k".to_owned(), "x".repeat(64))].into(),
                ..Default::default()
            },
            "service.labels[k]",
        ),
        (
            settings(pb::ServiceSettings {
                min_instances: Some(11),
                ..none()
            }),
            "service.settings.min_instances",
        ),
        (
            settings(pb::ServiceSettings {
                max_instances: Some(0),
                ..none()
            }),
            "service.settings.max_instances",
        ),
        (
            settings(pb::ServiceSettings {
                concurrency: Some(0),
                ..none()
            }),
            "service.settings.concurrency",
        ),
        (
            settings(pb::ServiceSettings {
                idle_timeout: span(0),
                ..none()
            }),
            "service.settings.idle_timeout",
        ),
        (
            settings(pb::ServiceSettings {
                idle_timeout: span(-5),
                ..none()
            }),
            "service.settings.idle_timeout",
        ),
        (
            settings(pb::ServiceSettings {
                pause_after: span(120),
                ..none()
            }),
            "service.settings.pause_after",
        ),
        (
            settings(pb::ServiceSettings {
                cold_start_timeout: span(601),
                ..none()
            }),
            "service.settings.cold_start_timeout",
        ),
        (
            settings(pb::ServiceSettings {
                request_timeout: span(i64::MAX),
                ..none()
            }),
            "service.settings.request_timeout",
        ),
        (
            settings(pb::ServiceSettings {
                queue_limit: Some(100_001),
                ..none()
            }),
            "service.settings.queue_limit",
        ),
        (
            settings(pb::ServiceSettings {
                affinity: affinity(9, ""),
                ..none()
            }),
            "service.settings.affinity.kind",
        ),
        (
            settings(pb::ServiceSettings {
                affinity: affinity(3, ""),
                ..none()
            }),
            "service.settings.affinity.header",
        ),
    ]
}

async fn versions(harness: &Harness, table: &mut Table<'_>) {
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
    let good = || pb::VersionSpec {
        image: "hello:1".into(),
        ..Default::default()
    };
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
            readiness: Some(pb::ReadinessProbe { kind }),
            ..good()
        }
    };
    vec![
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
                readiness: Some(pb::ReadinessProbe { kind: None }),
                ..good()
            },
            "version.spec.readiness",
        ),
    ]
}

async fn traffic(harness: &Harness, table: &mut Table<'_>) {
    let mut traffic = harness.traffic();
    let name = || "services/hello/traffic".to_owned();
    let set = |targets| pb::UpdateTrafficRequest {
        traffic: Some(pb::Traffic {
            name: name(),
            targets,
            ..Default::default()
        }),
        ..Default::default()
    };
    for (targets, field) in [
        (vec![target(1, 99, "")], "traffic.targets"),
        (
            vec![target(1, 60, ""), target(2, 60, "")],
            "traffic.targets",
        ),
        (vec![target(1, 101, "")], "traffic.targets[0].percent"),
        (vec![target(0, 100, "")], "traffic.targets[0].version"),
        (vec![target(-1, 100, "")], "traffic.targets[0].version"),
        (
            vec![target(1, 50, ""), target(1, 50, "")],
            "traffic.targets[1].version",
        ),
        (vec![target(1, 100, "Tag")], "traffic.targets[0].tag"),
        (vec![target(1, 100, "a--b")], "traffic.targets[0].tag"),
        (
            vec![target(1, 50, "t"), target(2, 50, "t")],
            "traffic.targets[1].tag",
        ),
        (
            vec![target(1, 100, ""), target(2, 0, "")],
            "traffic.targets[1]",
        ),
        (
            vec![target(1, 100, &"t".repeat(60))],
            "traffic.targets[0].tag",
        ),
    ] {
        let answer = traffic.update_traffic(set(targets)).await;
        table.row("UpdateTraffic", field, answer, BAD, field).await;
    }
    let answer = traffic
        .update_traffic(pb::UpdateTrafficRequest::default())
        .await;
    table
        .row("UpdateTraffic", "no traffic", answer, BAD, "traffic")
        .await;
    let full = || set(vec![target(1, 100, "")]);
    let request = pb::UpdateTrafficRequest {
        actor: "x".repeat(2000),
        ..full()
    };
    let answer = traffic.update_traffic(request).await;
    table
        .row("UpdateTraffic", "a long actor", answer, BAD, "actor")
        .await;
    let request = pb::UpdateTrafficRequest {
        reason: "x".repeat(2000),
        ..full()
    };
    let answer = traffic.update_traffic(request).await;
    table
        .row("UpdateTraffic", "a long reason", answer, BAD, "reason")
        .await;
    let request = pb::UpdateTrafficRequest {
        request_id: "x".repeat(65),
        ..full()
    };
    let answer = traffic.update_traffic(request).await;
    table
        .row(
            "UpdateTraffic",
            "a long request id",
            answer,
            BAD,
            "request_id",
        )
        .await;
    let answer = traffic.update_traffic(set(vec![target(9, 100, "")])).await;
    table
        .row(
            "UpdateTraffic",
            "no such version",
            answer,
            Code::FailedPrecondition,
            "",
        )
        .await;
    let mut stale = full();
    stale.traffic.as_mut().expect("set").etag = "stale".into();
    let answer = traffic.update_traffic(stale).await;
    table
        .row("UpdateTraffic", "a stale etag", answer, Code::Aborted, "")
        .await;

    for bad in [
        "",
        "services/hello",
        "services/Hello/traffic",
        "services/-/traffic",
    ] {
        let answer = traffic
            .get_traffic(pb::GetTrafficRequest { name: bad.into() })
            .await;
        table.row("GetTraffic", bad, answer, BAD, "name").await;
        let mut request = full();
        request.traffic.as_mut().expect("set").name = bad.into();
        let answer = traffic.update_traffic(request).await;
        table
            .row("UpdateTraffic", bad, answer, BAD, "traffic.name")
            .await;
        let request = pb::RollbackTrafficRequest {
            name: bad.into(),
            ..Default::default()
        };
        let answer = traffic.rollback_traffic(request).await;
        table.row("RollbackTraffic", bad, answer, BAD, "name").await;
        let parent = bad.into();
        let request = pb::ListTrafficRevisionsRequest {
            parent,
            ..Default::default()
        };
        let answer = traffic.list_traffic_revisions(request).await;
        table
            .row("ListTrafficRevisions", bad, answer, BAD, "parent")
            .await;
    }
    let missing = "services/missing/traffic".to_owned();
    let answer = traffic
        .get_traffic(pb::GetTrafficRequest { name: missing })
        .await;
    table
        .row("GetTraffic", "missing", answer, Code::NotFound, "")
        .await;
    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let page_token = token.into();
        let request = pb::ListTrafficRevisionsRequest {
            parent: name(),
            page_size,
            page_token,
        };
        let answer = traffic.list_traffic_revisions(request).await;
        table
            .row("ListTrafficRevisions", field, answer, BAD, field)
            .await;
    }
    let back = || pb::RollbackTrafficRequest {
        name: name(),
        ..Default::default()
    };
    let request = pb::RollbackTrafficRequest {
        revision: -1,
        ..back()
    };
    let answer = traffic.rollback_traffic(request).await;
    table
        .row(
            "RollbackTraffic",
            "a negative revision",
            answer,
            BAD,
            "revision",
        )
        .await;
    let request = pb::RollbackTrafficRequest {
        reason: "x".repeat(2000),
        ..back()
    };
    let answer = traffic.rollback_traffic(request).await;
    table
        .row("RollbackTraffic", "a long reason", answer, BAD, "reason")
        .await;
    let request = pb::RollbackTrafficRequest {
        request_id: "x".repeat(65),
        ..back()
    };
    let answer = traffic.rollback_traffic(request).await;
    table
        .row(
            "RollbackTraffic",
            "a long request id",
            answer,
            BAD,
            "request_id",
        )
        .await;
}

async fn nodes(harness: &Harness, table: &mut Table<'_>) {
    let mut nodes = harness.nodes();
    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let page_token: String = token.into();
        let request = pb::ListNodesRequest {
            page_size,
            page_token: page_token.clone(),
        };
        let answer = nodes.list_nodes(request).await;
        table.row("ListNodes", field, answer, BAD, field).await;
        let parent = "nodes/-".into();
        let request = pb::ListInstancesRequest {
            parent,
            page_size,
            page_token,
            service: String::new(),
        };
        let answer = nodes.list_instances(request).await;
        table.row("ListInstances", field, answer, BAD, field).await;
    }
    for name in ["", "n1", "nodes/", "nodes/UPPER", "nodes/a/b"] {
        let answer = nodes
            .get_node(pb::GetNodeRequest { name: name.into() })
            .await;
        table.row("GetNode", name, answer, BAD, "name").await;
        let request = pb::ListInstancesRequest {
            parent: name.into(),
            ..Default::default()
        };
        let answer = nodes.list_instances(request).await;
        table
            .row("ListInstances", name, answer, BAD, "parent")
            .await;
    }
    let answer = nodes
        .get_node(pb::GetNodeRequest {
            name: "nodes/missing".into(),
        })
        .await;
    table
        .row("GetNode", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::ListInstancesRequest {
        parent: "nodes/-".into(),
        service: "hello".into(),
        ..Default::default()
    };
    let answer = nodes.list_instances(request).await;
    table
        .row(
            "ListInstances",
            "a service's id alone",
            answer,
            BAD,
            "service",
        )
        .await;
    for revision in [-1, i64::MAX] {
        let request = pb::CheckPropagationRequest { revision };
        let answer = nodes.check_propagation(request).await;
        table
            .row(
                "CheckPropagation",
                "no such revision",
                answer,
                BAD,
                "revision",
            )
            .await;
    }
}

async fn feed(harness: &Harness, table: &mut Table<'_>) {
    let request = pb::WatchRoutesRequest {
        service: "hello".into(),
    };
    let answer = harness.feed().watch_routes(request).await;
    table
        .row(
            "WatchRoutes",
            "a service's id alone",
            answer,
            BAD,
            "service",
        )
        .await;

    let good = || pb::Hello {
        protocol: 1,
        node: Some(identity("n1")),
        boot_id: "b".into(),
        have: None,
    };
    let node = |id: &str, name: &str| {
        Some(pb::NodeIdentity {
            id: id.into(),
            name: name.into(),
            version: String::new(),
        })
    };
    let have = |epoch: &str, digest: usize| {
        let (epoch, digest) = (epoch.to_owned(), vec![0; digest].into());
        Some(pb::Cursor {
            epoch,
            revision: 1,
            digest,
        })
    };
    for (hello, field) in [
        (
            pb::Hello {
                protocol: 2,
                ..good()
            },
            "hello.protocol",
        ),
        (
            pb::Hello {
                node: None,
                ..good()
            },
            "hello.node",
        ),
        (
            pb::Hello {
                node: node("", "n1"),
                ..good()
            },
            "hello.node.id",
        ),
        (
            pb::Hello {
                node: node("x", "UPPER"),
                ..good()
            },
            "hello.node.name",
        ),
        (
            pb::Hello {
                boot_id: String::new(),
                ..good()
            },
            "hello.boot_id",
        ),
        (
            pb::Hello {
                have: have("e", 31),
                ..good()
            },
            "hello.have.digest",
        ),
        (
            pb::Hello {
                have: have("", 32),
                ..good()
            },
            "hello.have.epoch",
        ),
    ] {
        let mut proxy = Proxy::silent(harness).await;
        proxy
            .say(pb::stream_routes_request::Message::Hello(hello))
            .await;
        let answer = proxy.heard().await;
        table.row("StreamRoutes", field, answer, BAD, field).await;
    }

    let good = || pb::ReportNodeStatusRequest {
        node: Some(identity("n1")),
        boot_id: "b".into(),
        ..Default::default()
    };
    let uid = || uuid::Uuid::from_u128(1).to_string();
    let seen = || pb::VersionReport {
        service_uid: uid(),
        number: 1,
        version_uid: uid(),
        ..Default::default()
    };
    let of = |version| pb::ReportNodeStatusRequest {
        versions: vec![version],
        ..good()
    };
    let outcome = |id: &str, state| {
        Some(pb::VerifyOutcome {
            id: id.into(),
            state,
            ..Default::default()
        })
    };
    let bad_uid = || "not a uid".to_owned();
    for (request, field) in [
        (
            pb::ReportNodeStatusRequest {
                node: None,
                ..good()
            },
            "node",
        ),
        (
            pb::ReportNodeStatusRequest {
                node: node("", "n1"),
                ..good()
            },
            "node.id",
        ),
        (
            pb::ReportNodeStatusRequest {
                node: node("x", ""),
                ..good()
            },
            "node.name",
        ),
        (
            pb::ReportNodeStatusRequest {
                boot_id: String::new(),
                ..good()
            },
            "boot_id",
        ),
        (
            pb::ReportNodeStatusRequest {
                instances: vec![pb::Instance::default()],
                ..good()
            },
            "instances[0].name",
        ),
        (
            of(pb::VersionReport {
                service_uid: bad_uid(),
                ..seen()
            }),
            "versions[0].service_uid",
        ),
        (
            of(pb::VersionReport {
                version_uid: bad_uid(),
                ..seen()
            }),
            "versions[0].version_uid",
        ),
        (
            of(pb::VersionReport {
                number: 0,
                ..seen()
            }),
            "versions[0].number",
        ),
        (
            of(pb::VersionReport {
                image_digest: "md5:1".into(),
                ..seen()
            }),
            "versions[0].image_digest",
        ),
        (
            of(pb::VersionReport {
                verify: outcome("", 1),
                ..seen()
            }),
            "versions[0].verify.id",
        ),
        (
            of(pb::VersionReport {
                verify: outcome("p", 9),
                ..seen()
            }),
            "versions[0].verify.state",
        ),
    ] {
        let answer = harness.feed().report_node_status(request).await;
        table
            .row("ReportNodeStatus", field, answer, BAD, field)
            .await;
    }
}
