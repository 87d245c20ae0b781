//! Invalid input to the methods of versions.

use super::{Checker, NAMES, limits, with};
use crate::harness::version_of;
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(checker: &mut Checker<'_>) {
    let create = |parent: &str, version| pb::CreateVersionRequest {
        parent: parent.into(),
        version,
        ..Default::default()
    };
    let list = |parent: &str, page_size, page_token: &str| pb::ListVersionsRequest {
        parent: parent.into(),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    };
    let get = |name: &str| pb::GetVersionRequest { name: name.into() };
    let verify = |name: &str| pb::VerifyVersionRequest {
        name: name.into(),
        ..Default::default()
    };
    let cancel = |name: &str| pb::CancelVerificationRequest {
        name: name.into(),
        ..Default::default()
    };
    let reset = |name: &str| pb::ResetVersionImageRequest {
        name: name.into(),
        ..Default::default()
    };
    let delete = |name: &str| pb::DeleteVersionRequest {
        name: name.into(),
        ..Default::default()
    };
    let hello = "services/hello";
    let good = || Some(version_of("hello:1"));
    for (spec, field) in bad_specs() {
        let version = with(pb::Version::default(), |v| v.spec = Some(spec));
        checker.bad(create(hello, Some(version)), &field).await;
    }
    checker.bad(create(hello, None), "version").await;
    let no_spec = create(hello, Some(pb::Version::default()));
    checker.bad(no_spec, "version.spec").await;
    let long_id = with(create(hello, good()), |r| r.request_id = "x".repeat(65));
    checker.bad(long_id, "request_id").await;
    for name in NAMES {
        checker.bad(create(name, good()), "parent").await;
        checker.bad(list(name, 0, ""), "parent").await;
    }
    let missing = create("services/missing", good());
    checker.refused(missing, Code::NotFound, "").await;

    let one = with(pb::ListServicesRequest::default(), |r| r.page_size = 1);
    let foreign = checker.harness.ok(one).await.next_page_token;
    for (page_size, token, field) in [
        (-1, "", "page_size"),
        (0, "damaged", "page_token"),
        (0, &*foreign, "page_token"),
    ] {
        checker.bad(list(hello, page_size, token), field).await;
    }
    for name in [
        "",
        "services/hello",
        "services/hello/versions/0",
        "services/hello/versions/x",
    ] {
        checker.bad(get(name), "name").await;
        checker.bad(verify(name), "name").await;
        checker.bad(cancel(name), "name").await;
        checker.bad(reset(name), "name").await;
        checker.bad(delete(name), "name").await;
    }
    let missing = "services/hello/versions/9";
    checker.refused(get(missing), Code::NotFound, "").await;
    checker.refused(verify(missing), Code::NotFound, "").await;
    checker.refused(cancel(missing), Code::NotFound, "").await;
    checker.refused(reset(missing), Code::NotFound, "").await;
    checker.refused(delete(missing), Code::NotFound, "").await;
    let first = "services/hello/versions/1";
    let in_use = delete(first);
    checker.refused(in_use, Code::FailedPrecondition, "").await;
    let stale = with(reset(first), |r| r.etag = "stale".into());
    checker.refused(stale, Code::Aborted, "").await;
    let long_id = with(reset(first), |r| r.request_id = "x".repeat(65));
    checker.bad(long_id, "request_id").await;
    let require = with(verify(first), |r| r.require = 9);
    checker.bad(require, "require").await;
    for (skip_nodes, field) in [
        (vec!["n1".to_owned()], "skip_nodes[0]"),
        (vec!["nodes/n1".to_owned(); 101], "skip_nodes"),
        (vec!["nodes/unknown".to_owned()], "skip_nodes[0]"),
    ] {
        let request = with(verify(first), |r| r.skip_nodes = skip_nodes);
        checker.bad(request, field).await;
    }
    for seconds in [-1, 0, 3601] {
        let mut request = verify(first);
        request.timeout = Some(prost_types::Duration { seconds, nanos: 0 });
        checker.bad(request, "timeout").await;
    }
}

/// A specification with one invalid field, and the path of that field.
pub(super) type BadSpec = (pb::VersionSpec, String);

/// A specification that `change` makes invalid in a field, given below `version.spec`.
pub(super) fn bad(field: &str, change: impl FnOnce(&mut pb::VersionSpec)) -> BadSpec {
    let good = version_of("hello:1").spec.expect("a spec");
    (with(good, change), format!("version.spec.{field}"))
}

fn bad_specs() -> Vec<BadSpec> {
    let http = |path: &str, status_min, status_max| {
        let http = pb::HttpProbe {
            path: path.into(),
            status_min,
            status_max,
            host: String::new(),
        };
        Some(pb::ReadinessProbe {
            kind: Some(pb::readiness_probe::Kind::Http(http)),
            ..Default::default()
        })
    };
    let big = || [("BIG".to_owned(), "x".repeat(20_000))].into();
    let mut specs = vec![
        bad("image", |s| s.image = String::new()),
        bad("image", |s| s.image = "UPPER CASE".into()),
        bad("port", |s| s.port = 70_000),
        bad("cpu_millis", |s| s.cpu_millis = 1),
        bad("memory_bytes", |s| s.memory_bytes = 1),
        bad("pull_policy", |s| s.pull_policy = 9),
        bad("protocol", |s| s.protocol = 9),
        bad("args[0]", |s| s.args = vec!["a\0b".into()]),
        bad("command[0]", |s| s.command = vec!["\0".into()]),
        (bad("", |s| s.env = big()).0, "version.spec".to_owned()),
        bad("readiness", |s| s.readiness = Some(Default::default())),
    ];
    for name in ["PORT", "", "A=B"] {
        let env = [(name.to_owned(), "1".to_owned())].into();
        specs.push(bad(&format!("env[{name}]"), |s| s.env = env));
    }
    for (path, min, max, field) in [
        ("no-slash", 0, 0, "readiness.http.path"),
        ("/", 99, 0, "readiness.http.status_min"),
        ("/", 300, 200, "readiness.http.status_max"),
    ] {
        specs.push(bad(field, |s| s.readiness = http(path, min, max)));
    }
    specs.extend(limits::bad_probes());
    specs.extend(limits::bad_limits());
    specs
}
