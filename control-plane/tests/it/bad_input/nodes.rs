//! Invalid input to the methods of nodes.

use super::{BAD, Checker};
use crate::harness::Harness;
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(harness: &Harness, checker: &mut Checker<'_>) {
    let mut nodes = harness.nodes();
    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let page_token: String = token.into();
        let request = pb::ListNodesRequest {
            page_size,
            page_token: page_token.clone(),
            ..Default::default()
        };
        let answer = nodes.list_nodes(request).await;
        checker.check("ListNodes", field, answer, BAD, field).await;
        let parent = "nodes/-".into();
        let request = pb::ListInstancesRequest {
            parent,
            page_size,
            page_token,
            service: String::new(),
            ..Default::default()
        };
        let answer = nodes.list_instances(request).await;
        checker
            .check("ListInstances", field, answer, BAD, field)
            .await;
    }
    for name in ["", "n1", "nodes/", "nodes/UPPER", "nodes/a/b"] {
        let answer = nodes
            .get_node(pb::GetNodeRequest { name: name.into() })
            .await;
        checker.check("GetNode", name, answer, BAD, "name").await;
        let request = pb::ListInstancesRequest {
            parent: name.into(),
            ..Default::default()
        };
        let answer = nodes.list_instances(request).await;
        checker
            .check("ListInstances", name, answer, BAD, "parent")
            .await;
    }
    let answer = nodes
        .get_node(pb::GetNodeRequest {
            name: "nodes/missing".into(),
        })
        .await;
    checker
        .check("GetNode", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::ListInstancesRequest {
        parent: "nodes/missing".into(),
        ..Default::default()
    };
    let answer = nodes.list_instances(request).await;
    checker
        .check("ListInstances", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::ListInstancesRequest {
        parent: "nodes/-".into(),
        service: "hello".into(),
        ..Default::default()
    };
    let answer = nodes.list_instances(request).await;
    checker
        .check(
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
        checker
            .check(
                "CheckPropagation",
                "no such revision",
                answer,
                BAD,
                "revision",
            )
            .await;
    }
}
