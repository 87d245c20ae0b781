//! Request ids on every write, and full replacement.

use crate::feed_client::FeedClient;
use crate::harness::{Harness, assert_refused};
use cless_proto::v1 as pb;
use tonic::Code;

const REUSED: &str = "REQUEST_ID_REUSED";

fn update(label: &str, etag: &str) -> pb::UpdateServiceRequest {
    pb::UpdateServiceRequest {
        service: Some(pb::Service {
            name: "services/hello".into(),
            labels: [("a".to_owned(), label.to_owned())].into(),
            etag: etag.into(),
            ..Default::default()
        }),
        request_id: "update-1".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_repeated_write_has_one_effect() {
    let harness = Harness::start().await;
    let made = harness.service("hello").await;
    harness.version("hello", "hello:1").await;

    // The etag no longer matches at the repeat, which is answered like the first.
    let first = harness.ok(update("x", &made.etag)).await;
    let head = harness.head().await;
    let again = harness.ok(update("x", &made.etag)).await;
    assert_eq!(again, first);
    assert_eq!(harness.head().await, head, "nothing was written");
    let other = harness.call(update("y", &made.etag)).await;
    assert_refused(other, Code::InvalidArgument, REUSED);

    let mut client = FeedClient::connect(&harness, "n1", None).await;
    client.change().await;
    let verify = pb::VerifyVersionRequest {
        name: "services/hello/versions/1".into(),
        request_id: "verify-1".into(),
        ..Default::default()
    };
    let first = harness.ok(verify.clone()).await;
    let again = harness.ok(verify.clone()).await;
    let run = |version: pb::Version| version.verification.expect("a verification").id;
    assert_eq!(run(again), run(first), "the same run");
    let longer = pb::VerifyVersionRequest {
        timeout: Some(prost_types::Duration {
            seconds: 7,
            nanos: 0,
        }),
        ..verify
    };
    assert_refused(harness.call(longer).await, Code::InvalidArgument, REUSED);

    let delete = pb::DeleteVersionRequest {
        name: "services/hello/versions/1".into(),
        request_id: "delete-1".into(),
        ..Default::default()
    };
    harness.ok(delete.clone()).await;
    harness.ok(delete.clone()).await;
    let unnamed = pb::DeleteVersionRequest {
        request_id: String::new(),
        ..delete
    };
    let gone = harness.call(unnamed).await.expect_err("gone");
    assert_eq!(gone.code(), Code::NotFound);

    let delete = pb::DeleteServiceRequest {
        name: "services/hello".into(),
        request_id: "delete-2".into(),
        ..Default::default()
    };
    harness.ok(delete.clone()).await;
    // A service of the same name is another one: the repeat must not delete it.
    harness.service("hello").await;
    harness.ok(delete).await;
    let name = "services/hello".to_owned();
    harness.ok(pb::GetServiceRequest { name }).await;
}

/// Every mutable field is replaced by `*`, and cleared if it is absent.
#[tokio::test]
async fn a_star_replaces_every_mutable_field() {
    let harness = Harness::start().await;
    let defaults = harness.service("hello").await;
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let settings = pb::ServiceSettings {
        min_instances: Some(1),
        max_instances: Some(7),
        concurrency: Some(9),
        idle_timeout: seconds(33),
        pause_after: seconds(11),
        cold_start_timeout: seconds(12),
        request_timeout: seconds(13),
        queue_limit: Some(14),
        affinity: Some(pb::Affinity {
            kind: pb::affinity::Kind::Cookie.into(),
            header: String::new(),
        }),
        version_header: Some(true),
        server_timing: Some(true),
    };
    let full = pb::Service {
        name: "services/hello".into(),
        hosts: vec!["shop.example".into()],
        labels: [("a".to_owned(), "b".to_owned())].into(),
        settings: Some(settings.clone()),
        ..Default::default()
    };
    let replace = |service: pb::Service| pb::UpdateServiceRequest {
        service: Some(service),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["*".into()],
        }),
        ..Default::default()
    };
    let changed = harness.ok(replace(full.clone())).await;
    assert_eq!(changed.hosts, full.hosts);
    assert_eq!(changed.labels, full.labels);
    assert_eq!(changed.settings, Some(settings.clone()));
    let before = defaults.settings.clone().expect("settings");
    // Each field differs from its default, so that its reset shows.
    let differ = [
        before.min_instances != settings.min_instances,
        before.max_instances != settings.max_instances,
        before.concurrency != settings.concurrency,
        before.idle_timeout != settings.idle_timeout,
        before.pause_after != settings.pause_after,
        before.cold_start_timeout != settings.cold_start_timeout,
        before.request_timeout != settings.request_timeout,
        before.queue_limit != settings.queue_limit,
        before.affinity != settings.affinity,
        before.version_header != settings.version_header,
        before.server_timing != settings.server_timing,
    ];
    assert_eq!(differ, [true; 11]);

    let empty = pb::Service {
        name: "services/hello".into(),
        ..Default::default()
    };
    let cleared = harness.ok(replace(empty)).await;
    assert_eq!(cleared.hosts, Vec::<String>::new());
    assert!(cleared.labels.is_empty());
    assert_eq!(cleared.settings, defaults.settings);
}
