//! Bad traffic, and bad questions to the nodes and the feed.

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use tonic::Code;

use super::{catalog, check, invalid, refused, state};

/// Version, percent and tag of each target.
type Targets = &'static [(i32, u32, &'static str)];

fn new_traffic(targets: Targets) -> v1::UpdateTrafficRequest {
    let targets = targets
        .iter()
        .map(|&(version, percent, tag)| v1::TrafficTarget {
            version,
            percent,
            tag: tag.into(),
        })
        .collect();
    let name = "services/hello/traffic".to_owned();
    v1::UpdateTrafficRequest {
        traffic: Some(v1::Traffic {
            name,
            targets,
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_nodes_and_feed_name_the_bad_field_and_change_nothing() -> Result<()> {
    let cluster = catalog().await?;
    let mut api = cluster.api()?;
    let before = state(&mut api).await?;
    let mut cases = Vec::new();

    let bad_targets: [(&str, Targets); 7] = [
        ("traffic.targets", &[(1, 50, ""), (2, 49, "")]),
        ("traffic.targets", &[(1, 60, ""), (2, 60, "")]),
        ("traffic.targets[0].percent", &[(1, 101, "")]),
        ("traffic.targets[0].version", &[(0, 100, "")]),
        ("traffic.targets[1].version", &[(1, 50, ""), (1, 50, "")]),
        ("traffic.targets[0].tag", &[(1, 100, "Not-A-Label")]),
        ("traffic.targets[1].tag", &[(1, 100, "a"), (2, 0, "a")]),
    ];
    for (field, targets) in bad_targets {
        let answer = api.traffic.update_traffic(new_traffic(targets)).await;
        cases.push(invalid("UpdateTraffic", answer, field));
    }
    let answer = api
        .traffic
        .update_traffic(new_traffic(&[(9, 100, "")]))
        .await;
    let code = answer.err().map(|status| status.code());
    ensure!(
        code == Some(Code::FailedPrecondition),
        "a missing version was routed: {code:?}"
    );
    let request = v1::UpdateTrafficRequest::default();
    cases.push(invalid(
        "UpdateTraffic",
        api.traffic.update_traffic(request).await,
        "traffic",
    ));

    let request = v1::GetTrafficRequest {
        name: "services/hello".to_owned(),
    };
    cases.push(invalid(
        "GetTraffic",
        api.traffic.get_traffic(request).await,
        "name",
    ));
    let request = v1::ListTrafficRevisionsRequest {
        parent: "x".to_owned(),
        ..Default::default()
    };
    let answer = api.traffic.list_traffic_revisions(request).await;
    cases.push(invalid("ListTrafficRevisions", answer, "parent"));
    let rollback = |name: &str, revision| v1::RollbackTrafficRequest {
        name: name.to_owned(),
        revision,
        ..Default::default()
    };
    let answer = api.traffic.rollback_traffic(rollback("x", 0)).await;
    cases.push(invalid("RollbackTraffic", answer, "name"));
    let answer = api
        .traffic
        .rollback_traffic(rollback("services/hello/traffic", -1))
        .await;
    cases.push(invalid("RollbackTraffic", answer, "revision"));
    for revision in [0, 7] {
        let answer = api
            .traffic
            .rollback_traffic(rollback("services/hello/traffic", revision))
            .await;
        let code = answer.err().map(|status| status.code());
        let refused = matches!(code, Some(Code::FailedPrecondition | Code::NotFound));
        ensure!(
            refused,
            "rolled back to a revision that is not there: {code:?}"
        );
    }

    let request = v1::ListNodesRequest {
        page_size: -1,
        ..Default::default()
    };
    cases.push(invalid(
        "ListNodes",
        api.nodes.list_nodes(request).await,
        "page_size",
    ));
    let request = v1::GetNodeRequest {
        name: "x".to_owned(),
    };
    cases.push(invalid(
        "GetNode",
        api.nodes.get_node(request).await,
        "name",
    ));
    let request = v1::GetNodeRequest {
        name: "nodes/nobody".to_owned(),
    };
    let answer = api.nodes.get_node(request).await;
    cases.push(refused(
        "GetNode nobody",
        answer,
        Code::NotFound,
        "nodes/nobody",
    ));
    let request = v1::ListInstancesRequest {
        parent: "x".to_owned(),
        ..Default::default()
    };
    cases.push(invalid(
        "ListInstances",
        api.nodes.list_instances(request).await,
        "parent",
    ));
    for revision in [-1, i64::MAX] {
        let request = v1::CheckPropagationRequest { revision };
        let answer = api.nodes.check_propagation(request).await;
        cases.push(invalid("CheckPropagation", answer, "revision"));
    }

    let request = v1::WatchRoutesRequest {
        service: "x".to_owned(),
    };
    cases.push(invalid(
        "WatchRoutes",
        api.feed.watch_routes(request).await,
        "service",
    ));
    let request = v1::ReportNodeStatusRequest::default();
    cases.push(invalid(
        "ReportNodeStatus",
        api.feed.report_node_status(request).await,
        "node",
    ));
    let first = v1::Ack {
        cursor: None,
        quarantined: Vec::new(),
    };
    let message = v1::stream_routes_request::Message::Ack(first);
    let request = v1::StreamRoutesRequest {
        message: Some(message),
    };
    let answer = api
        .feed
        .stream_routes(futures_util::stream::iter([request]))
        .await;
    // Refused at once or as the first thing on the stream.
    let status = match answer {
        Err(status) => status,
        Ok(response) => {
            let mut stream = response.into_inner();
            stream
                .message()
                .await
                .err()
                .context("a stream without a Hello was served")?
        }
    };
    cases.push(invalid("StreamRoutes", Err::<(), _>(status), "hello"));

    check(cases)?;
    ensure!(state(&mut api).await? == before, "the state has changed");
    cluster.finish().await
}
