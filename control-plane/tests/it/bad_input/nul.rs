//! NUL in any text and malformed times, through the whole server. PostgreSQL stores no NUL.

use super::{BAD, with};
use crate::harness::{Harness, fields, new_service, new_version, set_traffic, target};
use cless_proto::v1 as pb;
use tonic::Status;

#[tokio::test]
async fn nul_and_malformed_times_are_invalid_arguments() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.version("hello", "hello:1").await;
    let check = |answer: Result<(), Status>, field: &str| {
        let status = answer.expect_err(field);
        assert_eq!(
            (status.code(), fields(&status)),
            (BAD, vec![field.to_owned()])
        );
    };
    let nul = || String::from("a\0");
    let labels = pb::Service {
        labels: [(nul(), "x".to_owned())].into(),
        ..Default::default()
    };
    let refused = harness.call(new_service("a", labels)).await;
    check(refused.map(drop), "service.labels[a\\0]");
    let etag = pb::DeleteServiceRequest {
        name: "services/hello".into(),
        etag: nul(),
        ..Default::default()
    };
    check(harness.call(etag).await, "etag");
    let request_id = with(new_version("hello", "hello:1"), |r| r.request_id = nul());
    check(harness.call(request_id).await.map(drop), "request_id");
    let mut env = new_version("hello", "hello:1");
    let spec = env
        .version
        .as_mut()
        .and_then(|version| version.spec.as_mut());
    spec.expect("given").env.insert("A".into(), nul());
    check(harness.call(env).await.map(drop), "version.spec.env[A]");
    let traffic = || set_traffic("hello", vec![target(1, 100, "")]);
    let actor = with(traffic(), |r| r.actor = nul());
    check(harness.call(actor).await.map(drop), "actor");
    let reason = with(traffic(), |r| r.reason = nul());
    check(harness.call(reason).await.map(drop), "reason");
    for (seconds, nanos) in [(1, -5), (0, 1_000_000_000), (i64::MAX, 0)] {
        let timeout = pb::VerifyVersionRequest {
            name: "services/hello/versions/1".into(),
            timeout: Some(prost_types::Duration { seconds, nanos }),
            ..Default::default()
        };
        check(harness.call(timeout).await.map(drop), "timeout");
        let settings = pb::Service {
            settings: Some(pb::ServiceSettings {
                idle_timeout: Some(prost_types::Duration { seconds, nanos }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let refused = harness.call(new_service("a", settings)).await;
        check(refused.map(drop), "service.settings.idle_timeout");
    }
}
