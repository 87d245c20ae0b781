//! Filters of lists: over each kind of resource, over pages, and their errors.

use crate::feed_client::FeedClient;
use crate::harness::{Harness, fields, new_service};
use crate::nodes::report;
use cless_proto::v1 as pb;

async fn services(harness: &Harness, filter: &str, page_size: i32) -> Vec<String> {
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListServicesRequest {
            page_size,
            page_token,
            filter: filter.into(),
        };
        let page = harness.ok(request).await;
        names.extend(page.services.into_iter().map(|service| service.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

#[tokio::test]
async fn services_are_filtered_by_labels_and_state() {
    let harness = Harness::start().await;
    for (id, team) in [("a", "shop"), ("b", "web"), ("c", "shop"), ("d", "")] {
        let service = pb::Service {
            labels: [("team".to_owned(), team.to_owned())].into(),
            ..Default::default()
        };
        harness.ok(new_service(id, service)).await;
    }
    harness.version("c", "hello:1").await;
    harness.split("c", &[(1, 100)]).await;
    for size in [1, 2, 50] {
        let shop = services(&harness, "labels.team = \"shop\"", size).await;
        assert_eq!(shop, ["services/a", "services/c"]);
        let idle = services(&harness, "labels:team AND state = NO_TRAFFIC", size).await;
        assert_eq!(idle, ["services/a", "services/b", "services/d"]);
        let others = services(&harness, "labels.team != shop AND state != SERVING", size).await;
        assert_eq!(others, ["services/b", "services/d"]);
        assert_eq!(services(&harness, "", size).await.len(), 4);
    }
    // A token belongs to its filter.
    let first = pb::ListServicesRequest {
        page_size: 1,
        filter: "labels.team = \"shop\"".into(),
        ..Default::default()
    };
    let token = harness.ok(first).await.next_page_token;
    assert!(!token.is_empty());
    for filter in ["", "labels.team = \"web\""] {
        let other = pb::ListServicesRequest {
            page_token: token.clone(),
            filter: filter.into(),
            ..Default::default()
        };
        let status = harness.call(other).await.expect_err("another filter");
        assert_eq!(fields(&status), ["page_token"]);
    }
}

#[tokio::test]
async fn versions_nodes_and_instances_are_filtered() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    for _ in 0..3 {
        harness.version("hello", "hello:1").await;
    }
    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    harness.ok(report("n1", Vec::new())).await;
    let name = "services/hello/versions/2".to_owned();
    let verify = pb::VerifyVersionRequest {
        name: name.clone(),
        ..Default::default()
    };
    harness.ok(verify).await;
    let versions = async |filter: &str| {
        let request = pb::ListVersionsRequest {
            parent: "services/hello".into(),
            filter: filter.into(),
            ..Default::default()
        };
        let page = harness.ok(request).await.versions.into_iter();
        page.map(|version| version.number).collect::<Vec<_>>()
    };
    assert_eq!(versions("verification.state = PENDING").await, [2]);
    assert_eq!(versions("verification.state != PENDING").await, [3, 1]);

    let nodes = async |filter: &str| {
        let request = pb::ListNodesRequest {
            filter: filter.into(),
            ..Default::default()
        };
        harness.ok(request).await.nodes.len()
    };
    assert_eq!(nodes("state = CONNECTED").await, 1);
    assert_eq!(nodes("state = STALE").await, 0);

    let instances = async |filter: &str| {
        let request = pb::ListInstancesRequest {
            parent: "nodes/-".into(),
            filter: filter.into(),
            ..Default::default()
        };
        harness.ok(request).await.instances.len()
    };
    for (filter, found) in [
        ("state = READY", 1),
        (
            "state = READY AND service = \"services/hello\" AND version = 1",
            1,
        ),
        ("version = 2", 0),
        ("service != services/hello", 0),
    ] {
        assert_eq!(instances(filter).await, found, "{filter}");
    }
}

#[tokio::test]
async fn a_bad_filter_is_named_with_its_position_and_the_remedy() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let filter = || String::from("size = 3");
    let statuses = [
        harness
            .call(pb::ListServicesRequest {
                filter: filter(),
                ..Default::default()
            })
            .await
            .err(),
        harness
            .call(pb::ListVersionsRequest {
                parent: "services/hello".into(),
                filter: filter(),
                ..Default::default()
            })
            .await
            .err(),
        harness
            .call(pb::ListNodesRequest {
                filter: filter(),
                ..Default::default()
            })
            .await
            .err(),
        harness
            .call(pb::ListInstancesRequest {
                parent: "nodes/-".into(),
                filter: filter(),
                ..Default::default()
            })
            .await
            .err(),
    ];
    for status in statuses {
        let status = status.expect("refused");
        assert_eq!(fields(&status), ["filter"], "{status:?}");
        let message = status.message();
        assert!(message.contains("position 1"), "{message}");
        assert!(message.contains("state ="), "{message}");
    }
}
