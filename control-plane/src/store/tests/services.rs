use std::collections::BTreeSet;

use crate::domain::{ServicePatch, SettingsField, SettingsInput, SettingsPatch, Violations};

use super::super::RouteOp;
use super::*;

fn patch_settings(fields: &[SettingsField], input: SettingsInput) -> ServicePatch {
    let fields: BTreeSet<_> = fields.iter().copied().collect();
    let settings =
        SettingsPatch::new("service.settings", fields, input, &mut Violations::new()).unwrap();
    ServicePatch {
        settings: Some(settings),
        ..ServicePatch::default()
    }
}

pub(super) fn patch_hosts(hosts: &[&str]) -> ServicePatch {
    ServicePatch {
        hosts: Some(hosts.iter().map(|name| host(name)).collect()),
        ..ServicePatch::default()
    }
}

#[tokio::test]
async fn a_service_reads_back_as_written() {
    let store = memory().await;
    let new = new_service("hello", &["b.example", "a.example"]);
    let made = store.create_service(new, plain()).await.unwrap();
    assert_eq!(made.revision, 1);
    assert!(!made.replayed);
    let service = store.get_service(&id("hello")).await.unwrap();
    assert_eq!(service, made.resource);
    assert_eq!(service.default_host, host("hello.localhost"));
    assert_eq!(service.hosts, [host("b.example"), host("a.example")]);
    assert!(service.in_traffic.is_empty());
    assert_eq!(service.revision, 1);
    assert_eq!(service.create_time, START);
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn not_found_errors_name_the_resource() {
    let store = memory().await;
    let error = store.get_service(&id("nobody")).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound { name, .. } if name == "services/nobody"),
        "{error}"
    );
    for error in [
        store
            .update_service(&id("nobody"), None, ServicePatch::default(), plain())
            .await
            .unwrap_err(),
        store
            .delete_service(&id("nobody"), None, plain())
            .await
            .unwrap_err(),
        store
            .create_version(&id("nobody"), spec("a"), None, plain())
            .await
            .unwrap_err(),
        store.get_traffic(&id("nobody")).await.unwrap_err(),
        set_traffic(&store, "nobody", &[]).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
    assert_eq!(head(&store).await.revision, 0);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let store = memory().await;
    create(&store, "hello").await;
    let again = make(&store, "hello", &[], plain()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })));
    assert_eq!(head(&store).await.revision, 1);
}

#[tokio::test]
async fn an_update_changes_what_it_names() {
    let store = memory().await;
    let before = create(&store, "hello").await;
    let input = SettingsInput {
        concurrency: Some(7),
        ..SettingsInput::default()
    };
    let how = WriteOptions::system("test", later(5));
    let patch = patch_settings(&[SettingsField::Concurrency], input);
    let after = store
        .update_service(&id("hello"), Some(&before.etag), patch, how)
        .await
        .unwrap();
    assert_eq!(after.resource.settings.concurrency(), 7);
    assert_eq!(after.resource.settings.queue_limit(), 1000);
    assert_eq!(after.resource.update_time, later(5));
    assert_eq!(after.resource.create_time, START);
    assert_ne!(after.resource.etag, before.etag);
    assert_eq!(after.resource.revision, after.revision);
    assert!(route_text(&store, "hello").await.contains("concurrency: 7"));
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn settings_that_contradict_what_stays_are_refused() {
    let store = memory().await;
    create(&store, "hello").await;
    let input = SettingsInput {
        min_instances: Some(11),
        ..SettingsInput::default()
    };
    let patch = patch_settings(&[SettingsField::MinInstances], input);
    let error = store
        .update_service(&id("hello"), None, patch, plain())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
}

#[tokio::test]
async fn an_old_etag_is_refused() {
    let store = memory().await;
    let first = create(&store, "hello").await;
    let hosts = patch_hosts(&["x.example"]);
    let second = store
        .update_service(&id("hello"), Some(&first.etag), hosts.clone(), plain())
        .await
        .unwrap();
    for error in [
        store
            .update_service(&id("hello"), Some(&first.etag), hosts, plain())
            .await
            .unwrap_err(),
        store
            .delete_service(&id("hello"), Some(&first.etag), plain())
            .await
            .unwrap_err(),
    ] {
        assert!(
            matches!(&error, Error::EtagMismatch { found, .. } if *found == second.resource.etag),
            "{error}"
        );
    }
    store
        .delete_service(&id("hello"), Some(&second.resource.etag), plain())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_recreated_service_has_a_new_identity() {
    let store = memory().await;
    let first = create(&store, "hello").await;
    let old_version = add_version(&store, "hello").await;
    add_version(&store, "hello").await;
    route_to(&store, "hello", &[(1, 100, "t")]).await;
    let base = head(&store).await.revision;
    delete(&store, "hello").await;
    assert_rebuilt(&store).await;
    assert_eq!(head(&store).await.digest, [0; 32]);
    let second = create(&store, "hello").await;
    let new_version = add_version(&store, "hello").await;
    assert_ne!(first.uid, second.uid);
    assert_ne!(
        first.etag, second.etag,
        "an etag of the old one must not fit"
    );
    assert_eq!(new_version.number, number(1));
    assert_ne!(old_version.uid, new_version.uid);
    assert!(store.get_version(&id("hello"), number(2)).await.is_err());
    let history = list_history(&store, 10, None).await;
    assert!(history.items.is_empty());

    let changes = changes_since(&store, base).await;
    let ops: Vec<_> = changes
        .changes
        .iter()
        .map(|change| (change.service_uid.clone().unwrap(), change.op))
        .collect();
    assert_eq!(
        ops,
        [
            (first.uid, RouteOp::Remove),
            (second.uid.clone(), RouteOp::Upsert),
            (second.uid, RouteOp::None),
        ]
    );
    assert_eq!(changes.routes.len(), 1);
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn a_repeated_create_answers_as_the_first() {
    let store = memory().await;
    let first = make(&store, "hello", &["x.example"], with_request_id("r1"))
        .await
        .unwrap();
    let again = make(&store, "hello", &["x.example"], with_request_id("r1"))
        .await
        .unwrap();
    assert!(again.replayed);
    assert_eq!(again.resource, first.resource);
    assert_eq!(again.revision, first.revision);
    assert_eq!(head(&store).await.revision, 1);

    let other = make(&store, "hello", &["y.example"], with_request_id("r1"))
        .await
        .unwrap_err();
    assert!(matches!(other, Error::RequestIdReused { .. }), "{other}");

    // An id expires after a day, and a failed request does not use it.
    let next_day = WriteOptions {
        now: later(24 * 60 * 60 + 1),
        ..with_request_id("r1")
    };
    let fresh = make(&store, "other", &[], next_day).await.unwrap();
    assert!(!fresh.replayed);
    let taken = make(&store, "other", &[], with_request_id("r2")).await;
    assert!(taken.is_err());
    let free = make(&store, "third", &[], with_request_id("r2")).await;
    assert!(free.is_ok());
}

#[tokio::test]
async fn a_repeat_after_the_deletion_is_not_found() {
    let store = memory().await;
    make(&store, "hello", &[], with_request_id("r1"))
        .await
        .unwrap();
    delete(&store, "hello").await;
    let again = make(&store, "hello", &[], with_request_id("r1"))
        .await
        .unwrap_err();
    assert!(matches!(again, Error::NotFound { .. }), "{again}");
}

#[tokio::test]
async fn services_are_listed_by_name_page_by_page() {
    let store = memory().await;
    for name in ["d", "b", "a", "c", "a-b"] {
        create(&store, name).await;
    }
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = store.list_services(2, after.as_ref()).await.unwrap();
        assert!(page.items.len() <= 2);
        names.extend(page.items.iter().map(|s| s.id.as_str().to_owned()));
        after = page.items.last().map(|service| service.id.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(names, ["a", "a-b", "b", "c", "d"]);
}

#[tokio::test]
async fn validate_only_changes_nothing() {
    let (store, _) = with_version().await;
    let before = (
        head(&store).await,
        store.get_service(&id("hello")).await.unwrap(),
    );

    let made = make(&store, "new", &["x.example"], validate_only())
        .await
        .unwrap();
    assert_eq!(made.revision, before.0.revision + 1);
    let with_id = WriteOptions {
        validate_only: true,
        ..with_request_id("r1")
    };
    store
        .create_version(&id("hello"), spec("a"), None, with_id)
        .await
        .unwrap();
    store
        .update_service(
            &id("hello"),
            None,
            patch_hosts(&["y.example"]),
            validate_only(),
        )
        .await
        .unwrap();
    store
        .update_traffic(
            &id("hello"),
            split("hello", &[(1, 100, "t")]),
            true,
            None,
            ChangeNote::default(),
            validate_only(),
        )
        .await
        .unwrap();
    store
        .delete_version(&id("hello"), number(1), None, validate_only())
        .await
        .unwrap();
    store
        .delete_service(&id("hello"), None, validate_only())
        .await
        .unwrap();
    let refused = make(&store, "hello", &[], validate_only()).await;
    assert!(matches!(refused, Err(Error::AlreadyExists { .. })));

    let after = (
        head(&store).await,
        store.get_service(&id("hello")).await.unwrap(),
    );
    assert_eq!(before, after);
    assert_eq!(*store.subscribe().borrow(), before.0.revision);
    let free = make(&store, "new", &["x.example"], with_request_id("r1"))
        .await
        .unwrap();
    assert!(!free.replayed);
    assert_rebuilt(&store).await;
}
