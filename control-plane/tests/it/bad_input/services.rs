//! Invalid input to the methods of services.

use super::{BAD, Checker, NAMES};
use crate::harness::Harness;
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(harness: &Harness, checker: &mut Checker<'_>) {
    let mut catalog = harness.catalog();
    let create = |service_id: &str, service| pb::CreateServiceRequest {
        service_id: service_id.into(),
        service,
        ..Default::default()
    };
    let long = "x".repeat(64);
    for id in ["", "Hello", "a.b", "a--b", "-a", "admin", "ä", &long] {
        let answer = catalog
            .create_service(create(id, Some(pb::Service::default())))
            .await;
        checker
            .check("CreateService", id, answer, BAD, "service_id")
            .await;
    }
    let answer = catalog.create_service(create("new", None)).await;
    checker
        .check("CreateService", "no service", answer, BAD, "service")
        .await;
    let mut request = create("new", Some(pb::Service::default()));
    request.request_id = "x".repeat(65);
    let answer = catalog.create_service(request).await;
    checker
        .check(
            "CreateService",
            "a long request id",
            answer,
            BAD,
            "request_id",
        )
        .await;
    for (service, field) in bad_services() {
        let answer = catalog
            .create_service(create("new", Some(service.clone())))
            .await;
        checker
            .check("CreateService", field, answer, BAD, field)
            .await;
        let request = pb::UpdateServiceRequest {
            service: Some(pb::Service {
                name: "services/hello".into(),
                ..service
            }),
            ..Default::default()
        };
        let answer = catalog.update_service(request).await;
        checker
            .check("UpdateService", field, answer, BAD, field)
            .await;
    }
    let taken = create("hello", Some(pb::Service::default()));
    let answer = catalog.create_service(taken).await;
    checker
        .check("CreateService", "taken", answer, Code::AlreadyExists, "")
        .await;

    for name in NAMES {
        let answer = catalog
            .get_service(pb::GetServiceRequest { name: name.into() })
            .await;
        checker.check("GetService", name, answer, BAD, "name").await;
        let request = pb::DeleteServiceRequest {
            name: name.into(),
            ..Default::default()
        };
        let answer = catalog.delete_service(request).await;
        checker
            .check("DeleteService", name, answer, BAD, "name")
            .await;
        let service = pb::Service {
            name: name.into(),
            ..Default::default()
        };
        let request = pb::UpdateServiceRequest {
            service: Some(service),
            ..Default::default()
        };
        let answer = catalog.update_service(request).await;
        checker
            .check("UpdateService", name, answer, BAD, "service.name")
            .await;
    }
    let missing = || "services/missing".to_owned();
    let answer = catalog
        .get_service(pb::GetServiceRequest { name: missing() })
        .await;
    checker
        .check("GetService", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::DeleteServiceRequest {
        name: missing(),
        ..Default::default()
    };
    let answer = catalog.delete_service(request).await;
    checker
        .check("DeleteService", "missing", answer, Code::NotFound, "")
        .await;
    let request = pb::DeleteServiceRequest {
        name: "services/hello".into(),
        etag: "stale".into(),
        ..Default::default()
    };
    let answer = catalog.delete_service(request).await;
    checker
        .check("DeleteService", "a stale etag", answer, Code::Aborted, "")
        .await;

    let answer = catalog
        .update_service(pb::UpdateServiceRequest::default())
        .await;
    checker
        .check("UpdateService", "no service", answer, BAD, "service")
        .await;
    for path in ["name", "uid", "settings.nothing", "*", ""] {
        let service = pb::Service {
            name: "services/hello".into(),
            ..Default::default()
        };
        let request = pb::UpdateServiceRequest {
            service: Some(service),
            update_mask: Some(prost_types::FieldMask {
                paths: vec![path.into()],
            }),
            ..Default::default()
        };
        let answer = catalog.update_service(request).await;
        checker
            .check("UpdateService", path, answer, BAD, "update_mask")
            .await;
    }

    let request = pb::ListServicesRequest {
        page_size: -1,
        ..Default::default()
    };
    let answer = catalog.list_services(request).await;
    checker
        .check("ListServices", "a negative size", answer, BAD, "page_size")
        .await;
    for token in ["x", "AAAA", "\u{1F980}"] {
        let request = pb::ListServicesRequest {
            page_token: token.into(),
            ..Default::default()
        };
        let answer = catalog.list_services(request).await;
        checker
            .check("ListServices", token, answer, BAD, "page_token")
            .await;
    }
}

/// Services with one invalid field, and its path.
fn bad_services() -> Vec<(pb::Service, &'static str)> {
    let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let hosts = |hosts: &[&str]| pb::Service {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let settings = |settings| pb::Service {
        settings: Some(settings),
        ..Default::default()
    };
    let none = pb::ServiceSettings::default;
    let affinity = |kind, header: &str| {
        Some(pb::Affinity {
            kind,
            header: header.into(),
        })
    };
    vec![
        (
            hosts(&["fine.example", "Upper.example"]),
            "service.hosts[1]",
        ),
        (hosts(&["a.example:80"]), "service.hosts[0]"),
        (hosts(&[""]), "service.hosts[0]"),
        (hosts(&["a.example", "a.example"]), "service.hosts[1]"),
        (hosts(&["a.example"; 101]), "service.hosts"),
        (
            pb::Service {
                labels: [("k".to_owned(), "x".repeat(64))].into(),
                ..Default::default()
            },
            "service.labels[k]",
        ),
        (
            settings(pb::ServiceSettings {
                min_instances: Some(11),
                ..none()
            }),
            "service.settings.min_instances",
        ),
        (
            settings(pb::ServiceSettings {
                max_instances: Some(0),
                ..none()
            }),
            "service.settings.max_instances",
        ),
        (
            settings(pb::ServiceSettings {
                concurrency: Some(0),
                ..none()
            }),
            "service.settings.concurrency",
        ),
        (
            settings(pb::ServiceSettings {
                idle_timeout: span(0),
                ..none()
            }),
            "service.settings.idle_timeout",
        ),
        (
            settings(pb::ServiceSettings {
                idle_timeout: span(-5),
                ..none()
            }),
            "service.settings.idle_timeout",
        ),
        (
            settings(pb::ServiceSettings {
                pause_after: span(120),
                ..none()
            }),
            "service.settings.pause_after",
        ),
        (
            settings(pb::ServiceSettings {
                cold_start_timeout: span(601),
                ..none()
            }),
            "service.settings.cold_start_timeout",
        ),
        (
            settings(pb::ServiceSettings {
                request_timeout: span(i64::MAX),
                ..none()
            }),
            "service.settings.request_timeout",
        ),
        (
            settings(pb::ServiceSettings {
                queue_limit: Some(100_001),
                ..none()
            }),
            "service.settings.queue_limit",
        ),
        (
            settings(pb::ServiceSettings {
                affinity: affinity(9, ""),
                ..none()
            }),
            "service.settings.affinity.kind",
        ),
        (
            settings(pb::ServiceSettings {
                affinity: affinity(3, ""),
                ..none()
            }),
            "service.settings.affinity.header",
        ),
    ]
}
