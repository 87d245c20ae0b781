//! Bad services.

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::{duration, settings};
use std::time::Duration;
use tonic::Code;

use super::{catalog, check, invalid, refused, state};

fn new_service(id: &str, service: v1::Service) -> v1::CreateServiceRequest {
    v1::CreateServiceRequest {
        service_id: id.to_owned(),
        service: Some(service),
        ..Default::default()
    }
}

fn with_settings(settings: v1::ServiceSettings) -> v1::Service {
    v1::Service {
        settings: Some(settings),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn catalog_service_names_the_bad_field_and_changes_nothing() -> Result<()> {
    let cluster = catalog().await?;
    let mut api = cluster.api()?;
    let before = state(&mut api).await?;
    let mut cases = Vec::new();

    let empty = v1::Service::default;
    for id in [
        "",
        "Hello",
        "hel--lo",
        "-hello",
        "hello-",
        "admin",
        "a.b",
        "h\u{e9}llo",
    ] {
        let answer = api.catalog.create_service(new_service(id, empty())).await;
        cases.push(invalid("CreateService id", answer, "service_id"));
    }
    let long = "a".repeat(64);
    let answer = api
        .catalog
        .create_service(new_service(&long, empty()))
        .await;
    cases.push(invalid("CreateService long id", answer, "service_id"));
    let host = v1::Service {
        hosts: vec!["not a host".to_owned()],
        ..empty()
    };
    let answer = api.catalog.create_service(new_service("other", host)).await;
    cases.push(invalid("CreateService host", answer, "service.hosts[0]"));
    let labels = [("k".repeat(64), "v".to_owned())].into();
    let answer = api
        .catalog
        .create_service(new_service("other", v1::Service { labels, ..empty() }))
        .await;
    ensure!(
        answer.is_err_and(|s| s.code() == Code::InvalidArgument),
        "a long label was taken"
    );
    let bad_settings = [
        (
            "service.settings.concurrency",
            v1::ServiceSettings {
                concurrency: Some(0),
                ..settings()
            },
        ),
        (
            "service.settings.max_instances",
            v1::ServiceSettings {
                max_instances: Some(1001),
                ..settings()
            },
        ),
        (
            "service.settings.idle_timeout",
            v1::ServiceSettings {
                idle_timeout: duration(Duration::from_millis(10)),
                ..settings()
            },
        ),
        (
            "service.settings.queue_limit",
            v1::ServiceSettings {
                queue_limit: Some(100_001),
                ..settings()
            },
        ),
        (
            "service.settings.pause_after",
            v1::ServiceSettings {
                pause_after: duration(Duration::from_secs(3600)),
                ..settings()
            },
        ),
    ];
    for (field, settings) in &bad_settings {
        let request = new_service("other", with_settings(settings.clone()));
        let answer = api.catalog.create_service(request).await;
        cases.push(invalid("CreateService settings", answer, field));
        let service = v1::Service {
            name: "services/hello".to_owned(),
            ..with_settings(settings.clone())
        };
        let request = v1::UpdateServiceRequest {
            service: Some(service),
            ..Default::default()
        };
        let answer = api.catalog.update_service(request).await;
        cases.push(invalid("UpdateService settings", answer, field));
    }
    let answer = api
        .catalog
        .create_service(new_service("hello", empty()))
        .await;
    cases.push(refused(
        "CreateService twice",
        answer,
        Code::AlreadyExists,
        "services/hello",
    ));

    let service = v1::Service {
        name: "services/hello".to_owned(),
        ..empty()
    };
    let update_mask = Some(prost_types::FieldMask {
        paths: vec!["uid".to_owned()],
    });
    let request = v1::UpdateServiceRequest {
        service: Some(service),
        update_mask,
        ..Default::default()
    };
    cases.push(invalid(
        "UpdateService mask",
        api.catalog.update_service(request).await,
        "update_mask",
    ));
    let service = v1::Service {
        name: "services/hello".to_owned(),
        etag: "stale".to_owned(),
        ..with_settings(settings())
    };
    let request = v1::UpdateServiceRequest {
        service: Some(service),
        ..Default::default()
    };
    let answer = api.catalog.update_service(request).await;
    cases.push(refused(
        "UpdateService etag",
        answer,
        Code::Aborted,
        "services/hello",
    ));

    let name = || "nonsense".to_owned();
    let request = v1::GetServiceRequest { name: name() };
    cases.push(invalid(
        "GetService",
        api.catalog.get_service(request).await,
        "name",
    ));
    let request = v1::GetServiceRequest {
        name: "services/nobody".to_owned(),
    };
    let answer = api.catalog.get_service(request).await;
    cases.push(refused(
        "GetService nobody",
        answer,
        Code::NotFound,
        "services/nobody",
    ));
    let request = v1::DeleteServiceRequest {
        name: name(),
        ..Default::default()
    };
    cases.push(invalid(
        "DeleteService",
        api.catalog.delete_service(request).await,
        "name",
    ));
    let request = v1::ListServicesRequest {
        page_size: -1,
        ..Default::default()
    };
    cases.push(invalid(
        "ListServices",
        api.catalog.list_services(request).await,
        "page_size",
    ));
    let request = v1::ListServicesRequest {
        page_token: "x".to_owned(),
        ..Default::default()
    };
    cases.push(invalid(
        "ListServices",
        api.catalog.list_services(request).await,
        "page_token",
    ));

    check(cases)?;
    ensure!(state(&mut api).await? == before, "the state has changed");
    cluster.finish().await
}
