//! The audit log over real sockets: changes, refusals, the stream, and the actor of traffic changes.

use crate::calls::Call as _;
use crate::harness::{Harness, SOON, eventually, fields, new_service, set_traffic, target};
use cless_proto::v1 as pb;
use std::time::SystemTime;
use tonic::Code;

async fn entries(harness: &Harness) -> Vec<pb::AuditEntry> {
    let mut all = Vec::new();
    let mut request = pb::ListAuditEntriesRequest {
        page_size: 7,
        ..Default::default()
    };
    loop {
        let page = harness.ok(request.clone()).await;
        all.extend(page.entries);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

async fn own_name(harness: &Harness) -> String {
    harness.ok(pb::GetCurrentTokenRequest {}).await.name
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_has_one_entry_and_nothing_else_has() {
    let harness = Harness::trusted().await;
    let admin = own_name(&harness).await;
    let before = entries(&harness).await.len();
    harness.service("hello").await;
    harness.version("hello", "hello:1").await;
    harness.split("hello", &[(1, 100)]).await;
    let after_changes = entries(&harness).await;
    // A no-op, a dry run, a refused and an invalid request.
    harness.split("hello", &[(1, 100)]).await;
    let dry = pb::CreateServiceRequest {
        validate_only: true,
        ..new_service("dry", pb::Service::default())
    };
    harness.ok(dry).await;
    assert!(
        harness
            .call(new_service("hello", pb::Service::default()))
            .await
            .is_err()
    );
    assert!(
        harness
            .call(new_service("Hello", pb::Service::default()))
            .await
            .is_err()
    );
    assert_eq!(entries(&harness).await.len(), after_changes.len());
    assert_eq!(after_changes.len(), before + 3);
    let [traffic, version, service] = &after_changes[..3] else {
        panic!("{after_changes:?}");
    };
    for entry in [traffic, version, service] {
        assert_eq!(
            (&entry.principal, &*entry.peer, entry.code),
            (&admin, "127.0.0.1", 0)
        );
        assert!(entry.time.is_some() && entry.count == 1, "{entry:?}");
    }
    assert_eq!(service.method, "/cless.v1.CatalogService/CreateService");
    assert_eq!(service.resource, "services/hello");
    assert_eq!(version.resource, "services/hello/versions/1");
    assert_eq!(traffic.resource, "services/hello/traffic");
    let change = |entry: &pb::AuditEntry, field: &str| {
        let found = entry.changes.iter().find(|change| change.field == field);
        found.map(|change| (change.before.clone(), change.after.clone()))
    };
    let added = |after: &str| Some((String::new(), after.to_owned()));
    assert_eq!(change(version, "spec.image"), added("\"hello:1\""));
    assert_eq!(change(traffic, "targets.v1.percent"), added("100"));
    assert!(
        !format!("{after_changes:?}").contains("cless_"),
        "no secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_selected_by_service_principal_and_time() {
    let harness = Harness::trusted().await;
    harness.service("a").await;
    harness.service("b").await;
    harness.version("a", "hello:1").await;
    let admin = own_name(&harness).await;
    let count =
        async |request: pb::ListAuditEntriesRequest| harness.ok(request).await.entries.len();
    let of_a = pb::ListAuditEntriesRequest {
        service: "services/a".into(),
        ..Default::default()
    };
    assert_eq!(count(of_a.clone()).await, 2);
    let by = |principal: &str| pb::ListAuditEntriesRequest {
        principal: principal.into(),
        ..of_a.clone()
    };
    assert_eq!(count(by(&admin)).await, 2);
    assert_eq!(count(by("nodes/n1")).await, 0);
    let future = SystemTime::now() + SOON;
    let later = pb::ListAuditEntriesRequest {
        start_time: Some(future.into()),
        ..Default::default()
    };
    assert_eq!(count(later).await, 0);
    for (request, field) in [
        (
            pb::ListAuditEntriesRequest {
                service: "a".into(),
                ..Default::default()
            },
            "service",
        ),
        (
            pb::ListAuditEntriesRequest {
                principal: "x".repeat(300),
                ..Default::default()
            },
            "principal",
        ),
        (
            pb::ListAuditEntriesRequest {
                page_size: -1,
                ..Default::default()
            },
            "page_size",
        ),
        (
            pb::ListAuditEntriesRequest {
                page_token: "x".into(),
                ..Default::default()
            },
            "page_token",
        ),
    ] {
        let status = harness.call(request).await.expect_err(field);
        assert_eq!(fields(&status), [field], "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sends_entries_in_order_and_the_old_ones_on_request() {
    let harness = Harness::trusted().await;
    harness.service("before").await;
    let mut new = harness.ok(pb::WatchAuditEntriesRequest::default()).await;
    let since = pb::WatchAuditEntriesRequest {
        start_time: Some(prost_types::Timestamp::default()),
        service: "services/before".into(),
        ..Default::default()
    };
    let mut all = harness.ok(since).await;
    for id in ["one", "two", "three"] {
        harness.service(id).await;
    }
    for id in ["one", "two", "three"] {
        let entry = next(&mut new).await;
        assert_eq!(entry.resource, format!("services/{id}"));
    }
    assert_eq!(next(&mut all).await.resource, "services/before");
}

async fn next(stream: &mut tonic::Streaming<pb::WatchAuditEntriesResponse>) -> pb::AuditEntry {
    let message = tokio::time::timeout(SOON, stream.message())
        .await
        .expect("in time");
    message
        .expect("no error")
        .expect("open")
        .entry
        .expect("an entry")
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_are_counted_in_the_log() {
    let harness = Harness::trusted().await;
    let list = pb::ListServicesRequest::default;
    let nobody = list().send_as(harness.channel.clone(), None).await;
    assert_eq!(nobody.expect_err("refused").code(), Code::Unauthenticated);
    let viewer = pb::CreateTokenRequest {
        token: Some(pb::Token {
            role: pb::token::Role::Viewer.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = harness.ok(viewer).await;
    let name = created.token.expect("a token").name;
    for _ in 0..5 {
        let forbidden = new_service("x", pb::Service::default());
        let refused = forbidden
            .send_as(harness.channel.clone(), Some(&created.secret))
            .await;
        assert_eq!(refused.expect_err("refused").code(), Code::PermissionDenied);
    }
    eventually("the refusals are in the log", || async {
        let entries = entries(&harness).await;
        let of = |principal: &str, code: Code| {
            let found = entries.iter();
            let found = found.filter(|one| one.principal == principal && one.code == code as i32);
            found.map(|one| one.count).sum::<u32>()
        };
        of("", Code::Unauthenticated) == 1 && of(&name, Code::PermissionDenied) == 5
    })
    .await;
    let entries = entries(&harness).await;
    let refused = entries
        .iter()
        .find(|one| one.principal == name)
        .expect("an entry");
    assert_eq!(refused.method, "/cless.v1.CatalogService/CreateService");
    assert!(refused.message.contains("deployer"), "{refused:?}");
    assert!(refused.resource.is_empty() && refused.changes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_author_of_a_traffic_change_is_the_principal() {
    let harness = Harness::trusted().await;
    harness.service("hello").await;
    harness.version("hello", "hello:1").await;
    let change = pb::UpdateTrafficRequest {
        actor: "root@elsewhere".into(),
        reason: "because".into(),
        ..set_traffic("hello", vec![target(1, 100, "")])
    };
    harness.ok(change).await;
    let history = pb::ListTrafficRevisionsRequest {
        parent: "services/hello/traffic".into(),
        ..Default::default()
    };
    let revisions = harness.ok(history).await.revisions;
    assert_eq!(revisions[0].actor, own_name(&harness).await);
    assert_eq!(revisions[0].reason, "root@elsewhere: because");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_changes_are_in_the_log_too() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let newest = entries(&harness).await.swap_remove(0);
    assert_eq!(
        (&*newest.principal, &*newest.resource),
        ("insecure", "services/hello")
    );
    let none = harness
        .call(pb::GetCurrentTokenRequest {})
        .await
        .expect_err("no token");
    assert_eq!(none.code(), Code::FailedPrecondition);
}
