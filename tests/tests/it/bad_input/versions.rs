//! Bad versions.

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::duration;
use std::time::Duration;
use tonic::Code;

use super::{catalog, check, invalid, refused, state};

fn new_version(spec: v1::VersionSpec) -> v1::CreateVersionRequest {
    v1::CreateVersionRequest {
        parent: "services/hello".to_owned(),
        version: Some(v1::Version {
            spec: Some(spec),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn spec() -> v1::VersionSpec {
    v1::VersionSpec {
        image: "hello:3".to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_name_the_bad_field_and_change_nothing() -> Result<()> {
    let cluster = catalog().await?;
    let mut api = cluster.api()?;
    let before = state(&mut api).await?;
    let mut cases = Vec::new();

    let env = |key: &str| -> std::collections::BTreeMap<String, String> {
        [(key.to_owned(), "v".to_owned())].into()
    };
    let probe = |path: &str| {
        let http = v1::HttpProbe {
            path: path.to_owned(),
            ..Default::default()
        };
        Some(v1::ReadinessProbe {
            kind: Some(v1::readiness_probe::Kind::Http(http)),
        })
    };
    let bad_specs = [
        (
            "version.spec.image",
            v1::VersionSpec {
                image: String::new(),
                ..spec()
            },
        ),
        (
            "version.spec.image",
            v1::VersionSpec {
                image: "Bad Image!".to_owned(),
                ..spec()
            },
        ),
        (
            "version.spec.port",
            v1::VersionSpec {
                port: 65_536,
                ..spec()
            },
        ),
        (
            "version.spec.env[PORT]",
            v1::VersionSpec {
                env: env("PORT"),
                ..spec()
            },
        ),
        (
            "version.spec.env[CLESS_SERVICE]",
            v1::VersionSpec {
                env: env("CLESS_SERVICE"),
                ..spec()
            },
        ),
        (
            "version.spec.cpu_millis",
            v1::VersionSpec {
                cpu_millis: 1,
                ..spec()
            },
        ),
        (
            "version.spec.memory_bytes",
            v1::VersionSpec {
                memory_bytes: 1000,
                ..spec()
            },
        ),
        (
            "version.spec.readiness.http.path",
            v1::VersionSpec {
                readiness: probe("x"),
                ..spec()
            },
        ),
    ];
    for (field, spec) in bad_specs {
        let answer = api.catalog.create_version(new_version(spec)).await;
        cases.push(invalid("CreateVersion", answer, field));
    }
    let request = v1::CreateVersionRequest {
        parent: "x".to_owned(),
        ..new_version(spec())
    };
    cases.push(invalid(
        "CreateVersion parent",
        api.catalog.create_version(request).await,
        "parent",
    ));
    let request = v1::CreateVersionRequest {
        parent: "services/nobody".to_owned(),
        ..new_version(spec())
    };
    let answer = api.catalog.create_version(request).await;
    cases.push(refused(
        "CreateVersion nobody",
        answer,
        Code::NotFound,
        "services/nobody",
    ));

    let get = |name: &str| v1::GetVersionRequest {
        name: name.to_owned(),
    };
    for name in [
        "x",
        "services/hello/versions/0",
        "services/hello/versions/one",
    ] {
        cases.push(invalid(
            "GetVersion",
            api.catalog.get_version(get(name)).await,
            "name",
        ));
    }
    let missing = "services/hello/versions/9";
    let answer = api.catalog.get_version(get(missing)).await;
    cases.push(refused("GetVersion 9", answer, Code::NotFound, missing));
    let parent = || "services/hello".to_owned();
    let request = v1::ListVersionsRequest {
        parent: "x".to_owned(),
        ..Default::default()
    };
    cases.push(invalid(
        "ListVersions",
        api.catalog.list_versions(request).await,
        "parent",
    ));
    let request = v1::ListVersionsRequest {
        parent: parent(),
        page_size: -1,
        ..Default::default()
    };
    cases.push(invalid(
        "ListVersions",
        api.catalog.list_versions(request).await,
        "page_size",
    ));
    let request = v1::VerifyVersionRequest {
        name: "services/hello/versions/1".to_owned(),
        timeout: duration(Duration::from_millis(1)),
        ..Default::default()
    };
    cases.push(invalid(
        "VerifyVersion",
        api.catalog.verify_version(request).await,
        "timeout",
    ));
    let request = v1::VerifyVersionRequest {
        name: missing.to_owned(),
        ..Default::default()
    };
    let answer = api.catalog.verify_version(request).await;
    cases.push(refused("VerifyVersion 9", answer, Code::NotFound, missing));
    let request = v1::VerifyVersionRequest {
        name: "services/hello/versions/1".to_owned(),
        ..Default::default()
    };
    let answer = api.catalog.verify_version(request).await;
    let code = answer.err().map(|status| status.code());
    ensure!(
        code == Some(Code::FailedPrecondition),
        "proved without a node: {code:?}"
    );

    let delete = |name: &str| v1::DeleteVersionRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    cases.push(invalid(
        "DeleteVersion",
        api.catalog.delete_version(delete("x")).await,
        "name",
    ));
    let routed = "services/hello/versions/1";
    let answer = api.catalog.delete_version(delete(routed)).await;
    let code = answer.err().map(|status| status.code());
    ensure!(
        code == Some(Code::FailedPrecondition),
        "a version with traffic was deleted: {code:?}"
    );

    check(cases)?;
    ensure!(state(&mut api).await? == before, "the state has changed");
    cluster.finish().await
}
