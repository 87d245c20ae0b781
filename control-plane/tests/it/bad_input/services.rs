//! Invalid input to the methods of services.

use super::{Checker, NAMES, with};
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(checker: &mut Checker<'_>) {
    let create = |service_id: &str, service| pb::CreateServiceRequest {
        service_id: service_id.into(),
        service,
        ..Default::default()
    };
    let get = |name: &str| pb::GetServiceRequest { name: name.into() };
    let delete = |name: &str| pb::DeleteServiceRequest {
        name: name.into(),
        ..Default::default()
    };
    let update = |name: &str, service| pb::UpdateServiceRequest {
        service: Some(with(service, |s: &mut pb::Service| s.name = name.into())),
        ..Default::default()
    };
    let new = pb::Service::default;
    let long = "x".repeat(64);
    for id in ["", "Hello", "a.b", "a--b", "-a", "admin", "ä", &long] {
        checker.bad(create(id, Some(new())), "service_id").await;
    }
    checker.bad(create("new", None), "service").await;
    let long_id = with(create("new", Some(new())), |r| {
        r.request_id = "x".repeat(65)
    });
    checker.bad(long_id, "request_id").await;
    for (service, field) in bad_services() {
        let request = create("new", Some(service.clone()));
        checker.bad(request, &field).await;
        let request = update("services/hello", service);
        checker.bad(request, &field).await;
    }
    let taken = create("hello", Some(new()));
    checker.refused(taken, Code::AlreadyExists, "").await;

    for name in NAMES {
        checker.bad(get(name), "name").await;
        checker.bad(delete(name), "name").await;
        checker.bad(update(name, new()), "service.name").await;
    }
    let missing = "services/missing";
    checker.refused(get(missing), Code::NotFound, "").await;
    checker.refused(delete(missing), Code::NotFound, "").await;
    let stale = with(delete("services/hello"), |r| r.etag = "stale".into());
    checker.refused(stale, Code::Aborted, "").await;

    let empty = pb::UpdateServiceRequest::default();
    checker.bad(empty, "service").await;
    for path in ["name", "uid", "settings.nothing", "hosts.*", ""] {
        let paths = vec![path.into()];
        let mut request = update("services/hello", new());
        request.update_mask = Some(prost_types::FieldMask { paths });
        checker.bad(request, "update_mask").await;
    }

    for (page_size, token, field) in [
        (-1, "", "page_size"),
        (0, "x", "page_token"),
        (0, "AAAA", "page_token"),
        (0, "\u{1F980}", "page_token"),
    ] {
        let page_token = token.into();
        let request = pb::ListServicesRequest {
            page_size,
            page_token,
            ..Default::default()
        };
        checker.bad(request, field).await;
    }
}

/// Services with one invalid field, and its path.
fn bad_services() -> Vec<(pb::Service, String)> {
    let bad = |field: &str, change: &dyn Fn(&mut pb::Service)| {
        let service = with(pb::Service::default(), change);
        (service, format!("service.{field}"))
    };
    let hosts = |field, hosts: &[&str]| {
        let hosts = Vec::from_iter(hosts.iter().map(ToString::to_string));
        bad(field, &|s| s.hosts = hosts.clone())
    };
    let setting = |field, change: fn(&mut pb::ServiceSettings)| {
        let settings = Some(with(pb::ServiceSettings::default(), change));
        bad(&format!("settings.{field}"), &|s| {
            s.settings = settings.clone()
        })
    };
    fn span(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }
    fn affinity(kind: i32) -> Option<pb::Affinity> {
        let header = String::new();
        Some(pb::Affinity { kind, header })
    }
    vec![
        hosts("hosts[1]", &["fine.example", "Upper.example"]),
        hosts("hosts[0]", &["a.example:80"]),
        hosts("hosts[0]", &[""]),
        hosts("hosts[1]", &["a.example", "a.example"]),
        hosts("hosts", &["a.example"; 101]),
        bad("labels[k]", &|s| {
            s.labels = [("k".to_owned(), "x".repeat(64))].into();
        }),
        setting("min_instances", |s| s.min_instances = Some(11)),
        setting("max_instances", |s| s.max_instances = Some(0)),
        setting("concurrency", |s| s.concurrency = Some(0)),
        setting("idle_timeout", |s| s.idle_timeout = span(0)),
        setting("idle_timeout", |s| s.idle_timeout = span(-5)),
        setting("pause_after", |s| s.pause_after = span(120)),
        setting("cold_start_timeout", |s| s.cold_start_timeout = span(601)),
        setting("request_timeout", |s| s.request_timeout = span(i64::MAX)),
        setting("queue_limit", |s| s.queue_limit = Some(100_001)),
        setting("affinity.kind", |s| s.affinity = affinity(9)),
        setting("affinity.header", |s| s.affinity = affinity(3)),
    ]
}
