use crate::domain::ServiceState;

use super::*;

async fn three_versions() -> Store {
    let store = memory().await;
    create(&store, "hello").await;
    for _ in 0..3 {
        add_version(&store, "hello").await;
    }
    store
}

async fn roll_back(store: &Store, to: Option<i32>) -> Result<Written<Traffic>, Error> {
    let mut violations = Violations::new();
    let note = ChangeNote::new("me".to_owned(), "broken".to_owned(), &mut violations).unwrap();
    store
        .rollback_traffic(&id("hello"), to, None, note, plain())
        .await
}

#[tokio::test]
async fn traffic_is_set_and_kept_in_history() {
    let store = three_versions().await;
    let none = store.get_traffic(&id("hello")).await.unwrap();
    assert_eq!((none.revision, none.split.targets().len()), (0, 0));

    let first = route_to(&store, "hello", &[(1, 100, "")]).await;
    let second = route_to(&store, "hello", &[(1, 90, ""), (2, 10, "next")]).await;
    assert_eq!(second.resource.revision, 2);
    assert_eq!(second.resource.feed_revision, second.revision);
    assert_ne!(first.resource.etag, second.resource.etag);
    assert_eq!(
        store.get_traffic(&id("hello")).await.unwrap(),
        second.resource
    );
    let service = store.get_service(&id("hello")).await.unwrap();
    assert_eq!(service.state, ServiceState::Serving);
    assert_eq!(service.revision, second.revision);

    let route = route_text(&store, "hello").await;
    assert!(route.contains("next--hello.localhost"), "{route}");
    let history = list_history(&store, 1, None).await;
    assert_eq!((history.items[0].number, history.more), (2, true));
    assert_eq!(history.items[0].split, second.resource.split);
    assert_eq!(history.items[0].feed_revision, second.revision);
    let older = list_history(&store, 5, Some(2)).await;
    assert_eq!((older.items[0].number, older.more), (1, false));

    route_to(&store, "hello", &[]).await;
    let service = store.get_service(&id("hello")).await.unwrap();
    assert_eq!(service.state, ServiceState::NoTraffic);
    let route = route_text(&store, "hello").await;
    assert!(
        route.contains("slots: None") && route.contains("versions: []"),
        "{route}"
    );
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn every_missing_version_is_named() {
    let store = three_versions().await;
    let error = set_traffic(&store, "hello", &[(1, 20, ""), (7, 40, ""), (8, 40, "")])
        .await
        .unwrap_err();
    let Error::FailedPrecondition(list) = error else {
        panic!("{error}");
    };
    let subjects: Vec<_> = list.iter().map(|p| p.subject.as_str()).collect();
    assert_eq!(
        subjects,
        ["services/hello/versions/7", "services/hello/versions/8"]
    );
    assert_eq!(store.get_traffic(&id("hello")).await.unwrap().revision, 0);
}

#[tokio::test]
async fn an_old_etag_is_refused() {
    let store = three_versions().await;
    let first = route_to(&store, "hello", &[(1, 100, "")]).await;
    let with = |etag: String, n: i32| {
        let store = store.clone();
        async move {
            let targets = split("hello", &[(n, 100, "")]);
            store
                .update_traffic(
                    &id("hello"),
                    targets,
                    Some(&etag),
                    ChangeNote::default(),
                    plain(),
                )
                .await
        }
    };
    with(first.resource.etag.clone(), 2).await.unwrap();
    let error = with(first.resource.etag, 3).await.unwrap_err();
    assert!(matches!(error, Error::EtagMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_repeated_change_is_made_once() {
    let store = three_versions().await;
    let change = |n: i32| {
        let store = store.clone();
        async move {
            let targets = split("hello", &[(n, 100, "")]);
            store
                .update_traffic(
                    &id("hello"),
                    targets,
                    None,
                    ChangeNote::default(),
                    with_request_id("t1"),
                )
                .await
        }
    };
    let first = change(1).await.unwrap();
    let again = change(1).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.resource, first.resource);
    assert!(matches!(
        change(2).await,
        Err(Error::RequestIdReused { .. })
    ));
}

#[tokio::test]
async fn rollback_copies_the_revision_before() {
    let store = three_versions().await;
    let none = roll_back(&store, None).await.unwrap_err();
    assert!(
        matches!(&none, Error::FailedPrecondition(list) if list[0].kind == "NO_EARLIER_TRAFFIC"),
        "{none}"
    );
    route_to(&store, "hello", &[(1, 100, "")]).await;
    assert!(roll_back(&store, None).await.is_err());
    route_to(&store, "hello", &[(2, 100, "next")]).await;

    let back = roll_back(&store, None).await.unwrap().resource;
    assert_eq!(back.revision, 3);
    assert_eq!(back.split, split("hello", &[(1, 100, "")]));
    let page = list_history(&store, 1, None).await;
    let entry = &page.items[0];
    assert_eq!(entry.rolled_back_from, 1);
    assert_eq!(
        (entry.actor.as_str(), entry.reason.as_str()),
        ("me", "broken")
    );

    let forth = roll_back(&store, Some(2)).await.unwrap().resource;
    assert_eq!(forth.split, split("hello", &[(2, 100, "next")]));
    let missing = roll_back(&store, Some(9)).await.unwrap_err();
    assert!(
        matches!(&missing, Error::NotFound { name, .. } if name == "services/hello/traffic/revisions/9"),
        "{missing}"
    );
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn rollback_to_a_version_that_is_gone_names_it() {
    let store = three_versions().await;
    route_to(&store, "hello", &[(1, 50, ""), (3, 50, "")]).await;
    route_to(&store, "hello", &[(2, 100, "")]).await;
    for n in [1, 3] {
        store
            .delete_version(&id("hello"), number(n), None, plain())
            .await
            .unwrap();
    }
    let Error::FailedPrecondition(list) = roll_back(&store, None).await.unwrap_err() else {
        panic!("a version is gone");
    };
    assert_eq!(list.len(), 2);
    assert_eq!(list[0].kind, "VERSION_MISSING");
    assert_eq!(list[0].subject, "services/hello/versions/1");
    assert_eq!(store.get_traffic(&id("hello")).await.unwrap().revision, 2);
}

#[tokio::test]
async fn a_route_beyond_the_limit_is_refused_whole() {
    let store = three_versions().await;
    let long = "x".repeat(15_000);
    for _ in 0..4 {
        let input = VersionSpecInput {
            image: "hello:1".to_owned(),
            args: vec![long.clone()],
            ..VersionSpecInput::default()
        };
        let big = VersionSpec::new("spec", input, &mut Violations::new()).unwrap();
        store
            .create_version(&id("hello"), big, plain())
            .await
            .unwrap();
    }
    route_to(&store, "hello", &[(4, 50, ""), (5, 50, "")]).await;
    let before = head(&store).await;
    let quarter = [(4, 25, ""), (5, 25, ""), (6, 25, ""), (7, 25, "")];
    let error = set_traffic(&store, "hello", &quarter).await.unwrap_err();
    assert!(
        matches!(&error, Error::RouteTooLarge { size, limit, .. } if size > limit),
        "{error}"
    );
    assert_eq!(head(&store).await, before);
    assert_rebuilt(&store).await;
}
