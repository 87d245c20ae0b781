//! Services and versions, from creation to deletion.

mod pages;

use crate::harness::{Harness, assert_refused, target, version_of};
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

fn named(service: &str) -> pb::GetServiceRequest {
    pb::GetServiceRequest {
        name: service.into(),
    }
}

#[tokio::test]
async fn a_service_from_creation_to_deletion() {
    let harness = Harness::start().await;
    let mut catalog = harness.catalog();
    let service = pb::Service {
        hosts: vec!["www.example.org".into()],
        labels: BTreeMap::from([("team".into(), "web".into())]),
        settings: Some(pb::ServiceSettings {
            concurrency: Some(5),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = pb::CreateServiceRequest {
        service_id: "hello".into(),
        service: Some(service),
        ..Default::default()
    };
    let made = catalog
        .create_service(request.clone())
        .await
        .expect("created")
        .into_inner();
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

    let got = catalog
        .get_service(named("services/hello"))
        .await
        .expect("found")
        .into_inner();
    assert_eq!(got, made);
    assert_refused(
        catalog.create_service(request).await,
        Code::AlreadyExists,
        "ALREADY_EXISTS",
    );

    let delete = pb::DeleteServiceRequest {
        name: made.name.clone(),
        ..Default::default()
    };
    let stale = pb::DeleteServiceRequest {
        etag: "stale".into(),
        ..delete.clone()
    };
    assert_refused(
        catalog.delete_service(stale).await,
        Code::Aborted,
        "ETAG_MISMATCH",
    );
    let dry = pb::DeleteServiceRequest {
        validate_only: true,
        ..delete.clone()
    };
    catalog.delete_service(dry).await.expect("valid");
    catalog
        .get_service(named("services/hello"))
        .await
        .expect("not deleted");
    catalog
        .delete_service(delete.clone())
        .await
        .expect("deleted");
    assert_refused(
        catalog.delete_service(delete).await,
        Code::NotFound,
        "NOT_FOUND",
    );
    let gone = catalog.get_service(named("services/hello")).await;
    assert_refused(gone, Code::NotFound, "NOT_FOUND");

    let again = harness.service("hello").await;
    assert_ne!(again.uid, made.uid, "a uid is never reused");
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask() {
    let harness = Harness::start().await;
    let made = harness.service("hello").await;
    let update = |service: pb::Service, update_mask, validate_only| {
        let mut catalog = harness.catalog();
        let service = Some(pb::Service {
            name: "services/hello".into(),
            ..service
        });
        async move {
            let request = pb::UpdateServiceRequest {
                service,
                update_mask,
                validate_only,
                ..Default::default()
            };
            catalog
                .update_service(request)
                .await
                .map(tonic::Response::into_inner)
        }
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
    let before = harness
        .catalog()
        .get_service(named("services/hello"))
        .await
        .expect("found");
    assert_eq!(before.into_inner(), made);

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
    let mut catalog = harness.catalog();
    harness.service("hello").await;
    let first = harness.version("hello", "hello:1").await;
    let second = harness.version("hello", "hello:2").await;
    assert_eq!(first.name, "services/hello/versions/1");
    assert_eq!((first.number, second.number), (1, 2));
    let spec = first.spec.clone().expect("a spec");
    assert_eq!((spec.cpu_millis, spec.memory_bytes), (1000, 512 << 20));
    assert!(first.verification.is_none() && first.image_digest.is_empty());

    harness.split("hello", &[(1, 100)]).await;
    let get = pb::GetVersionRequest {
        name: first.name.clone(),
    };
    let got = catalog.get_version(get).await.expect("found").into_inner();
    assert_eq!(got.percent, 100);
    let delete = pb::DeleteVersionRequest {
        name: first.name.clone(),
        ..Default::default()
    };
    let used = catalog.delete_version(delete).await.expect_err("in use");
    assert_eq!(used.code(), Code::FailedPrecondition);
    let details = tonic_types::StatusExt::get_details_precondition_failure(&used);
    assert_eq!(details.expect("a PreconditionFailure").violations.len(), 1);

    let delete = pb::DeleteVersionRequest {
        name: second.name.clone(),
        ..Default::default()
    };
    let stale = pb::DeleteVersionRequest {
        etag: "stale".into(),
        ..delete.clone()
    };
    assert_refused(
        catalog.delete_version(stale).await,
        Code::Aborted,
        "ETAG_MISMATCH",
    );
    catalog
        .delete_version(delete.clone())
        .await
        .expect("deleted");
    assert_refused(
        catalog.delete_version(delete).await,
        Code::NotFound,
        "NOT_FOUND",
    );
    assert_eq!(
        harness.version("hello", "hello:3").await.number,
        3,
        "numbers are not reused"
    );
}

#[tokio::test]
async fn a_repeated_create_returns_the_first_response() {
    let harness = Harness::start().await;
    let mut catalog = harness.catalog();
    let service = pb::CreateServiceRequest {
        service_id: "hello".into(),
        service: Some(pb::Service::default()),
        request_id: "r-1".into(),
        ..Default::default()
    };
    let first = catalog
        .create_service(service.clone())
        .await
        .expect("created")
        .into_inner();
    let head = harness.head().await;
    let again = catalog
        .create_service(service.clone())
        .await
        .expect("repeated")
        .into_inner();
    assert_eq!(again, first);
    let other = pb::CreateServiceRequest {
        service_id: "other".into(),
        ..service
    };
    assert_refused(
        catalog.create_service(other).await,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
    );
    assert_eq!(harness.head().await, head);

    let version = pb::CreateVersionRequest {
        parent: "services/hello".into(),
        version: Some(version_of("hello:1")),
        request_id: "r-2".into(),
        ..Default::default()
    };
    let first = catalog
        .create_version(version.clone())
        .await
        .expect("created")
        .into_inner();
    let again = catalog
        .create_version(version)
        .await
        .expect("repeated")
        .into_inner();
    assert_eq!((again.number, again.uid), (first.number, first.uid));
}

#[tokio::test]
async fn validate_only_creates_nothing() {
    let harness = Harness::start().await;
    let mut catalog = harness.catalog();
    let head = harness.head().await;
    let service = pb::CreateServiceRequest {
        service_id: "hello".into(),
        service: Some(pb::Service::default()),
        validate_only: true,
        ..Default::default()
    };
    let shown = catalog
        .create_service(service)
        .await
        .expect("valid")
        .into_inner();
    assert_eq!(shown.name, "services/hello");
    let gone = catalog.get_service(named("services/hello")).await;
    assert_refused(gone, Code::NotFound, "NOT_FOUND");
    assert_eq!(harness.head().await, head);

    harness.service("hello").await;
    let version = pb::CreateVersionRequest {
        parent: "services/hello".into(),
        version: Some(version_of("hello:1")),
        validate_only: true,
        ..Default::default()
    };
    let shown = catalog
        .create_version(version)
        .await
        .expect("valid")
        .into_inner();
    assert_eq!(shown.number, 1);
    let list = pb::ListVersionsRequest {
        parent: "services/hello".into(),
        ..Default::default()
    };
    let list = catalog
        .list_versions(list)
        .await
        .expect("listed")
        .into_inner();
    assert!(list.versions.is_empty());
}

#[tokio::test]
async fn a_host_belongs_to_one_service() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.version("hello", "hello:1").await;
    let traffic = pb::Traffic {
        name: "services/hello/traffic".into(),
        targets: vec![target(1, 0, "beta")],
        ..Default::default()
    };
    let request = pb::UpdateTrafficRequest {
        traffic: Some(traffic),
        ..Default::default()
    };
    harness
        .traffic()
        .update_traffic(request)
        .await
        .expect("tagged");
    for host in ["hello.localhost", "beta--hello.localhost"] {
        let service = pb::Service {
            hosts: vec![host.into()],
            ..Default::default()
        };
        let request = pb::CreateServiceRequest {
            service_id: "other".into(),
            service: Some(service),
            ..Default::default()
        };
        let taken = harness.catalog().create_service(request).await;
        assert_refused(taken, Code::AlreadyExists, "HOST_TAKEN");
    }
}
