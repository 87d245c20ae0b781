use crate::domain::{NodeOutcome, RollbackTo, VerificationEvent};

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
    roll_back_to(store, to.map_or(RollbackTo::Previous, RollbackTo::Revision)).await
}

async fn roll_back_to(store: &Store, to: RollbackTo) -> Result<Written<Traffic>, Error> {
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
    assert_eq!(service.in_traffic, [number(1), number(2)]);
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
    assert!(service.in_traffic.is_empty());
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
                    true,
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
                    true,
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
            .create_version(&id("hello"), big, None, plain())
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

/// Sets traffic without leave for unverified versions.
async fn set_verified(
    store: &Store,
    targets: &[(i32, u32, &str)],
    how: WriteOptions,
) -> Result<Written<Traffic>, Error> {
    let (hello, targets) = (id("hello"), split("hello", targets));
    store
        .update_traffic(&hello, targets, false, None, ChangeNote::default(), how)
        .await
}

#[tokio::test]
async fn a_share_needs_a_verified_version_or_one_that_had_a_share() {
    let store = three_versions().await;
    set_verified(&store, &[(1, 0, "look")], plain())
        .await
        .expect("a tag is how one looks at a version");
    let refused = set_verified(&store, &[(1, 40, ""), (2, 60, "")], plain()).await;
    let Err(Error::FailedPrecondition(list)) = refused else {
        panic!("neither version is verified");
    };
    let kinds: Vec<_> = list.iter().map(|p| (p.kind, &*p.subject)).collect();
    let unverified = "VERSION_UNVERIFIED";
    assert_eq!(
        kinds,
        [
            (unverified, "services/hello/versions/1"),
            (unverified, "services/hello/versions/2")
        ]
    );
    assert!(list[0].description.contains("never been verified"));
    assert!(!read_version(&store, 1).await.carried_traffic);

    let version = read_version(&store, 1).await;
    let hello = id("hello");
    let begun = store.begin_verification(
        &hello,
        number(1),
        "run".to_owned(),
        asked(&["n1"]),
        later(9),
        plain(),
    );
    begun.await.unwrap();
    let pending = set_verified(&store, &[(1, 100, "")], plain()).await;
    assert!(pending.unwrap_err().to_string().contains("PENDING"));
    let verified = VerificationEvent::Outcome {
        id: "run".to_owned(),
        node: NodeName::parse("n1").unwrap(),
        outcome: NodeOutcome::Verified(None),
    };
    apply(&store, &version, verified, START).await;
    set_verified(&store, &[(1, 100, "")], plain())
        .await
        .unwrap();
    assert!(read_version(&store, 1).await.carried_traffic);

    // Version 2 gets its first share by leave, and keeps the right to it.
    route_to(&store, "hello", &[(2, 100, "")]).await;
    route_to(&store, "hello", &[(1, 100, "")]).await;
    set_verified(&store, &[(1, 50, ""), (2, 50, "")], plain())
        .await
        .unwrap();
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn a_split_in_force_appends_nothing() {
    let store = three_versions().await;
    let first = route_to(&store, "hello", &[(2, 10, "next"), (1, 90, "")]).await;
    let before = head(&store).await;
    let again = route_to(&store, "hello", &[(1, 90, ""), (2, 10, "next")]).await;
    assert_eq!(again.resource, first.resource);
    let keyed = set_verified(
        &store,
        &[(1, 90, ""), (2, 10, "next")],
        with_request_id("k"),
    );
    assert_eq!(keyed.await.unwrap().resource, first.resource);
    assert_eq!(head(&store).await, before);
    assert_eq!(list_history(&store, 9, None).await.items.len(), 1);

    // The request id is kept: a late repeat does not undo a change made since.
    let other = route_to(&store, "hello", &[(1, 100, "")]).await;
    let late = set_verified(
        &store,
        &[(1, 90, ""), (2, 10, "next")],
        with_request_id("k"),
    );
    let late = late.await.unwrap();
    assert!(late.replayed);
    assert_eq!(late.resource, other.resource);
}

#[tokio::test]
async fn rollbacks_go_further_back_and_skip_repeats_and_tags() {
    let store = three_versions().await;
    route_to(&store, "hello", &[(1, 100, "")]).await;
    route_to(&store, "hello", &[(2, 100, "")]).await;
    route_to(&store, "hello", &[(3, 100, "")]).await;
    route_to(&store, "hello", &[(3, 100, "bad")]).await;
    for expected in [2, 1] {
        let back = roll_back(&store, None).await.unwrap().resource;
        assert_eq!(back.split, split("hello", &[(expected, 100, "")]));
    }
    let none = roll_back(&store, None).await.unwrap_err();
    assert!(none.to_string().contains("no earlier traffic"), "{none}");
    route_to(&store, "hello", &[(3, 100, "")]).await;
    let back = roll_back(&store, None).await.unwrap().resource;
    assert_eq!(back.split, split("hello", &[(1, 100, "")]));
    let entry = &list_history(&store, 1, None).await.items[0];
    assert_eq!(entry.rolled_back_from, 6);
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn a_rollback_to_a_version_needs_one_that_had_traffic() {
    let store = three_versions().await;
    let to = |n: i32| roll_back_to(&store, RollbackTo::Version(number(n)));
    route_to(&store, "hello", &[(1, 90, ""), (2, 10, "next")]).await;
    let never = to(3).await.unwrap_err();
    assert!(
        matches!(&never, Error::FailedPrecondition(list) if list[0].kind == "NO_EARLIER_TRAFFIC"),
        "{never}"
    );
    assert!(matches!(to(9).await, Err(Error::NotFound { .. })));
    let back = to(2).await.unwrap().resource;
    assert_eq!(back.split, split("hello", &[(2, 100, "next")]));
    let entry = &list_history(&store, 1, None).await.items[0];
    assert_eq!((entry.number, entry.rolled_back_from), (2, 1));
    assert_eq!(to(2).await.unwrap().resource, back, "in force already");
    assert_rebuilt(&store).await;
}
