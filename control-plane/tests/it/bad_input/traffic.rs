//! Invalid input to the methods of traffic.

use super::{BAD, Checker};
use crate::harness::{Harness, target};
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(harness: &Harness, checker: &mut Checker<'_>) {
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
        checker
            .check("UpdateTraffic", field, answer, BAD, field)
            .await;
    }
    let answer = traffic
        .update_traffic(pb::UpdateTrafficRequest::default())
        .await;
    checker
        .check("UpdateTraffic", "no traffic", answer, BAD, "traffic")
        .await;
    let full = || set(vec![target(1, 100, "")]);
    let request = pb::UpdateTrafficRequest {
        actor: "x".repeat(2000),
        ..full()
    };
    let answer = traffic.update_traffic(request).await;
    checker
        .check("UpdateTraffic", "a long actor", answer, BAD, "actor")
        .await;
    let request = pb::UpdateTrafficRequest {
        reason: "x".repeat(2000),
        ..full()
    };
    let answer = traffic.update_traffic(request).await;
    checker
        .check("UpdateTraffic", "a long reason", answer, BAD, "reason")
        .await;
    let request = pb::UpdateTrafficRequest {
        request_id: "x".repeat(65),
        ..full()
    };
    let answer = traffic.update_traffic(request).await;
    checker
        .check(
            "UpdateTraffic",
            "a long request id",
            answer,
            BAD,
            "request_id",
        )
        .await;
    let answer = traffic.update_traffic(set(vec![target(9, 100, "")])).await;
    checker
        .check(
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
    checker
        .check("UpdateTraffic", "a stale etag", answer, Code::Aborted, "")
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
        checker.check("GetTraffic", bad, answer, BAD, "name").await;
        let mut request = full();
        request.traffic.as_mut().expect("set").name = bad.into();
        let answer = traffic.update_traffic(request).await;
        checker
            .check("UpdateTraffic", bad, answer, BAD, "traffic.name")
            .await;
        let request = pb::RollbackTrafficRequest {
            name: bad.into(),
            ..Default::default()
        };
        let answer = traffic.rollback_traffic(request).await;
        checker
            .check("RollbackTraffic", bad, answer, BAD, "name")
            .await;
        let parent = bad.into();
        let request = pb::ListTrafficRevisionsRequest {
            parent,
            ..Default::default()
        };
        let answer = traffic.list_traffic_revisions(request).await;
        checker
            .check("ListTrafficRevisions", bad, answer, BAD, "parent")
            .await;
    }
    let missing = "services/missing/traffic".to_owned();
    let answer = traffic
        .get_traffic(pb::GetTrafficRequest { name: missing })
        .await;
    checker
        .check("GetTraffic", "missing", answer, Code::NotFound, "")
        .await;
    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let page_token = token.into();
        let request = pb::ListTrafficRevisionsRequest {
            parent: name(),
            page_size,
            page_token,
        };
        let answer = traffic.list_traffic_revisions(request).await;
        checker
            .check("ListTrafficRevisions", field, answer, BAD, field)
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
    checker
        .check(
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
    checker
        .check("RollbackTraffic", "a long reason", answer, BAD, "reason")
        .await;
    let request = pb::RollbackTrafficRequest {
        request_id: "x".repeat(65),
        ..back()
    };
    let answer = traffic.rollback_traffic(request).await;
    checker
        .check(
            "RollbackTraffic",
            "a long request id",
            answer,
            BAD,
            "request_id",
        )
        .await;
}
