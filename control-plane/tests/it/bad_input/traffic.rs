//! Invalid input to the methods of traffic.

use super::{Checker, with};
use crate::harness::{set_traffic, target};
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(checker: &mut Checker<'_>) {
    let name = "services/hello/traffic";
    let set = |targets| set_traffic("hello", targets);
    for (targets, field) in [
        (vec![target(1, 99, "")], "targets"),
        (vec![target(1, 60, ""), target(2, 60, "")], "targets"),
        (vec![target(1, 101, "")], "targets[0].percent"),
        (vec![target(0, 100, "")], "targets[0].version"),
        (vec![target(-1, 100, "")], "targets[0].version"),
        (vec![target(1, 50, ""); 2], "targets[1].version"),
        (vec![target(1, 100, "Tag")], "targets[0].tag"),
        (vec![target(1, 100, "a--b")], "targets[0].tag"),
        (
            vec![target(1, 50, "t"), target(2, 50, "t")],
            "targets[1].tag",
        ),
        (vec![target(1, 100, ""), target(2, 0, "")], "targets[1]"),
        (vec![target(1, 100, &"t".repeat(60))], "targets[0].tag"),
    ] {
        let field = format!("traffic.{field}");
        checker.bad(set(targets), &field).await;
    }
    let empty = pb::UpdateTrafficRequest::default();
    checker.bad(empty, "traffic").await;
    let full = || set(vec![target(1, 100, "")]);
    let long = || "x".repeat(2000);
    let long_actor = with(full(), |r| r.actor = long());
    checker.bad(long_actor, "actor").await;
    let long_reason = with(full(), |r| r.reason = long());
    checker.bad(long_reason, "reason").await;
    let long_id = with(full(), |r| r.request_id = "x".repeat(65));
    checker.bad(long_id, "request_id").await;
    let missing = set(vec![target(9, 100, "")]);
    checker.refused(missing, Code::FailedPrecondition, "").await;
    let mut stale = full();
    stale.traffic.as_mut().expect("set").etag = "stale".into();
    checker.refused(stale, Code::Aborted, "").await;

    let get = |name: &str| pb::GetTrafficRequest { name: name.into() };
    let back = |name: &str| pb::RollbackTrafficRequest {
        name: name.into(),
        ..Default::default()
    };
    let revisions = |parent: &str| pb::ListTrafficRevisionsRequest {
        parent: parent.into(),
        ..Default::default()
    };
    for bad in [
        "",
        "services/hello",
        "services/Hello/traffic",
        "services/-/traffic",
    ] {
        checker.bad(get(bad), "name").await;
        let mut request = full();
        request.traffic.as_mut().expect("set").name = bad.into();
        checker.bad(request, "traffic.name").await;
        checker.bad(back(bad), "name").await;
        checker.bad(revisions(bad), "parent").await;
    }
    let missing = get("services/missing/traffic");
    checker.refused(missing, Code::NotFound, "").await;
    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let request = pb::ListTrafficRevisionsRequest {
            page_size,
            page_token: token.into(),
            ..revisions(name)
        };
        checker.bad(request, field).await;
    }
    let negative = with(back(name), |r| r.revision = -1);
    checker.bad(negative, "revision").await;
    let long_reason = with(back(name), |r| r.reason = long());
    checker.bad(long_reason, "reason").await;
    let long_id = with(back(name), |r| r.request_id = "x".repeat(65));
    checker.bad(long_id, "request_id").await;
}
