//! Services and versions, from creation to deletion.

mod pages;

use crate::harness::{
    Harness, assert_refused, fields, new_service, new_version, set_traffic, target,
};
use cless_proto::v1 as pb;
use std::collections::BTreeMap;
use tonic::Code;

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask {
        paths: paths.iter().map(ToString::to_string).collect(),
    })
}

async fn get(harness: &Harness, name: &str) -> Result<pb::Service, tonic::Status> {
    let name = name.into();
    harness.call(pb::GetServiceRequest { name }).await
}

#[tokio::test]
async fn a_service_from_creation_to_deletion() {
    let harness = Harness::start().await;
    let service = pb::Service {
        hosts: vec!["www.example.org".into()],
        labels: BTreeMap::from([("team".into(), "web".into())]),
        settings: Some(pb::ServiceSettings {
            concurrency: Some(5),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = new_service("hello", service);
    let made = harness.ok(request.clone()).await;
    assert_eq!(made.name, "services/hello");
    assert_eq!(made.default_host, "hello.localhost");
    assert_eq!(made.hosts, ["www.example.org"]);
    assert_eq!(made.state(), pb::service::State::NoTraffic);
    assert!(made.revision > 0 && !made.etag.is_empty() && made.create_time.is_some());
    let settings = made.settings.clone().expect("complete settings");
    assert_eq!(
        (settings.concurrency, settings.max_instances),
        (Some(5), Some(10))
    );
    assert_eq!(
        (settings.idle_timeout, settings.pause_after),
        (seconds(120), None)
    );

    let got = get(&harness, "services/hello").await.expect("found");
    assert_eq!(got, made);
    let twice = harness.call(request).await;
    assert_refused(twice, Code::AlreadyExists, "ALREADY_EXISTS");

    let delete = pb::DeleteServiceRequest {
        name: made.name.clone(),
        ..Default::default()
    };
    let mut stale = delete.clone();
    stale.etag = "stale".into();
    let stale = harness.call(stale).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");
    let mut dry = delete.clone();
    dry.validate_only = true;
    harness.ok(dry).await;
    let kept = get(&harness, "services/hello").await;
    kept.expect("not deleted");
    harness.ok(delete.clone()).await;
    let twice = harness.call(delete).await;
    assert_refused(twice, Code::NotFound, "NOT_FOUND");
    let gone = get(&harness, "services/hello").await;
    assert_refused(gone, Code::NotFound, "NOT_FOUND");

    let again = harness.service("hello").await;
    assert_ne!(again.uid, made.uid, "a uid is never reused");
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask() {
    let harness = Harness::start().await;
    let made = harness.service("hello").await;
    let update = |service: pb::Service, update_mask, validate_only| {
        let service = Some(pb::Service {
            name: "services/hello".into(),
            ..service
        });
        harness.call(pb::UpdateServiceRequest {
            service,
            update_mask,
            validate_only,
            ..Default::default()
        })
    };
    let settings = pb::ServiceSettings {
        concurrency: Some(7),
        idle_timeout: seconds(9),
        ..Default::default()
    };
    let both = pb::Service {
        hosts: vec!["a.example".into()],
        settings: Some(settings),
        etag: made.etag.clone(),
        ..Default::default()
    };
    let dry = update(both.clone(), None, true).await.expect("valid");
    assert_eq!(dry.hosts, ["a.example"]);
    let before = get(&harness, "services/hello").await;
    assert_eq!(before.expect("found"), made);

    let one = mask(&["settings.concurrency"]);
    let changed = update(both.clone(), one, false).await.expect("updated");
    let settings = changed.settings.clone().expect("settings");
    assert_eq!(
        (settings.concurrency, settings.idle_timeout),
        (Some(7), seconds(120))
    );
    assert!(changed.hosts.is_empty() && changed.etag != made.etag);
    assert!(changed.revision > made.revision);
    let stale = update(both.clone(), None, false).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");

    let free = pb::Service {
        etag: String::new(),
        ..both
    };
    let changed = update(free, None, false).await.expect("updated");
    assert_eq!(changed.hosts, ["a.example"]);
    assert_eq!(changed.settings.expect("settings").idle_timeout, seconds(9));
    let reset = update(pb::Service::default(), mask(&["settings", "hosts"]), false).await;
    let reset = reset.expect("updated");
    assert_eq!(reset.settings, made.settings);
    assert!(reset.hosts.is_empty());
}

#[tokio::test]
async fn a_version_from_creation_to_deletion() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let first = harness.version("hello", "hello:1").await;
    let second = harness.version("hello", "hello:2").await;
    assert_eq!(first.name, "services/hello/versions/1");
    assert_eq!((first.number, second.number), (1, 2));
    let spec = first.spec.clone().expect("a spec");
    assert_eq!((spec.cpu_millis, spec.memory_bytes), (1000, 512 << 20));
    assert!(first.verification.is_none() && first.image_digest.is_empty());

    harness.split("hello", &[(1, 100)]).await;
    assert_eq!(harness.get_version(&first.name).await.percent, 100);
    let delete = |version: &pb::Version| pb::DeleteVersionRequest {
        name: version.name.clone(),
        ..Default::default()
    };
    let used = harness.call(delete(&first)).await.expect_err("in use");
    assert_eq!(used.code(), Code::FailedPrecondition);
    let details = tonic_types::StatusExt::get_details_precondition_failure(&used);
    assert_eq!(details.expect("a PreconditionFailure").violations.len(), 1);

    let mut stale = delete(&second);
    stale.etag = "stale".into();
    let stale = harness.call(stale).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");
    harness.ok(delete(&second)).await;
    let twice = harness.call(delete(&second)).await;
    assert_refused(twice, Code::NotFound, "NOT_FOUND");
    let third = harness.version("hello", "hello:3").await;
    assert_eq!(third.number, 3, "numbers are not reused");
}

#[tokio::test]
async fn a_repeated_create_returns_the_first_response() {
    let harness = Harness::start().await;
    let mut service = new_service("hello", pb::Service::default());
    service.request_id = "r-1".into();
    let first = harness.ok(service.clone()).await;
    let head = harness.head().await;
    assert_eq!(harness.ok(service.clone()).await, first);
    service.service_id = "other".into();
    let other = harness.call(service).await;
    assert_refused(other, Code::InvalidArgument, "REQUEST_ID_REUSED");
    assert_eq!(harness.head().await, head);

    let mut version = new_version("hello", "hello:1");
    version.request_id = "r-2".into();
    let first = harness.ok(version.clone()).await;
    let again = harness.ok(version).await;
    assert_eq!((again.number, again.uid), (first.number, first.uid));
}

#[tokio::test]
async fn validate_only_creates_nothing() {
    let harness = Harness::start().await;
    let head = harness.head().await;
    let mut service = new_service("hello", pb::Service::default());
    service.validate_only = true;
    assert_eq!(harness.ok(service).await.name, "services/hello");
    let gone = get(&harness, "services/hello").await;
    assert_refused(gone, Code::NotFound, "NOT_FOUND");
    assert_eq!(harness.head().await, head);

    harness.service("hello").await;
    let mut version = new_version("hello", "hello:1");
    version.validate_only = true;
    assert_eq!(harness.ok(version).await.number, 1);
    assert!(harness.versions("hello").await.is_empty());
}

#[tokio::test]
async fn a_host_belongs_to_one_service() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.version("hello", "hello:1").await;
    let tagged = set_traffic("hello", vec![target(1, 0, "beta")]);
    harness.ok(tagged).await;
    for host in [
        "hello.localhost",
        "beta--hello.localhost",
        "victim.localhost",
        "localhost",
        "Victim.localhost",
        "victim.localhost.",
    ] {
        let service = pb::Service {
            hosts: vec![host.into()],
            ..Default::default()
        };
        let taken = harness.call(new_service("other", service)).await;
        let status = assert_refused(taken, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["service.hosts[0]"], "{host}");
    }
}
