//! Invalid input to the methods of versions.

use super::{BAD, Checker, NAMES, limits};
use crate::harness::{Harness, version_of};
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(harness: &Harness, checker: &mut Checker<'_>) {
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
        checker
            .check("CreateVersion", field, answer, BAD, field)
            .await;
    }
    let answer = catalog.create_version(create(None)).await;
    checker
        .check("CreateVersion", "no version", answer, BAD, "version")
        .await;
    let answer = catalog
        .create_version(create(Some(pb::Version::default())))
        .await;
    checker
        .check("CreateVersion", "no spec", answer, BAD, "version.spec")
        .await;
    let mut request = create(Some(version_of("hello:1")));
    request.request_id = "x".repeat(65);
    let answer = catalog.create_version(request).await;
    checker
        .check(
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
        checker
            .check("CreateVersion", name, answer, BAD, "parent")
            .await;
        let request = pb::ListVersionsRequest {
            parent: name.into(),
            ..Default::default()
        };
        let answer = catalog.list_versions(request).await;
        checker
            .check("ListVersions", name, answer, BAD, "parent")
            .await;
    }
    let mut request = create(Some(version_of("hello:1")));
    request.parent = "services/missing".into();
    let answer = catalog.create_version(request).await;
    checker
        .check(
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
            ..Default::default()
        };
        let answer = catalog.list_versions(request).await;
        checker
            .check("ListVersions", field, answer, BAD, field)
            .await;
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
        checker.check("GetVersion", name, answer, BAD, "name").await;
        let request = pb::VerifyVersionRequest {
            name: name.into(),
            ..Default::default()
        };
        let answer = catalog.verify_version(request).await;
        checker
            .check("VerifyVersion", name, answer, BAD, "name")
            .await;
        let request = pb::DeleteVersionRequest {
            name: name.into(),
            ..Default::default()
        };
        let answer = catalog.delete_version(request).await;
        checker
            .check("DeleteVersion", name, answer, BAD, "name")
            .await;
    }
    let missing = || "services/hello/versions/9".to_owned();
    let answer = catalog
        .get_version(pb::GetVersionRequest { name: missing() })
        .await;
    checker
        .check("GetVersion", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::VerifyVersionRequest {
        name: missing(),
        ..Default::default()
    };
    let answer = catalog.verify_version(request).await;
    checker
        .check("VerifyVersion", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::DeleteVersionRequest {
        name: missing(),
        ..Default::default()
    };
    let answer = catalog.delete_version(request).await;
    checker
        .check("DeleteVersion", "missing", answer, Code::NotFound, "")
        .await;
    let first = || "services/hello/versions/1".to_owned();
    let request = pb::DeleteVersionRequest {
        name: first(),
        ..Default::default()
    };
    let answer = catalog.delete_version(request).await;
    checker
        .check(
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
        checker
            .check("VerifyVersion", "its timeout", answer, BAD, "timeout")
            .await;
    }
}

/// Specifications with one invalid field, and its path.
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
                protocol: 9,
                ..good()
            },
            "version.spec.protocol",
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
    specs.extend(limits::bad_probes());
    specs.extend(limits::bad_limits());
    specs
}

pub(super) fn good() -> pb::VersionSpec {
    pb::VersionSpec {
        image: "hello:1".into(),
        ..Default::default()
    }
}
