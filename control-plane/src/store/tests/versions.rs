use std::collections::BTreeMap;

use crate::domain::{ImageSource, NodeOutcome, Percent, ResolvedImage, VerificationState};

use super::super::{Resolution, RouteOp};
use super::*;

fn node(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

fn digest(digit: char) -> ImageDigest {
    ImageDigest::parse(format!("sha256:{}", digit.to_string().repeat(64))).unwrap()
}

async fn begin(store: &Store, run: &str, nodes: &[&str]) -> Written<Version> {
    let asked = asked(nodes);
    store
        .begin_verification(
            &id("hello"),
            number(1),
            run.to_owned(),
            asked,
            later(120),
            plain(),
        )
        .await
        .unwrap()
}

fn verified(run: &str, name: &str) -> VerificationEvent {
    VerificationEvent::Outcome {
        id: run.to_owned(),
        node: node(name),
        outcome: NodeOutcome::Verified(None),
    }
}

#[tokio::test]
async fn numbers_count_per_service_and_are_not_used_again() {
    let store = memory().await;
    create(&store, "hello").await;
    create(&store, "other").await;
    for expected in 1..=3 {
        assert_eq!(add_version(&store, "hello").await.number, number(expected));
    }
    assert_eq!(add_version(&store, "other").await.number, number(1));
    store
        .delete_version(&id("hello"), number(3), None, plain())
        .await
        .unwrap();
    assert_eq!(add_version(&store, "hello").await.number, number(4));
    let page = store.list_versions(&id("hello"), 2, None).await.unwrap();
    let numbers: Vec<_> = page.items.iter().map(|v| v.number.get()).collect();
    assert_eq!((numbers, page.more), (vec![4, 2], true));
    let rest = store
        .list_versions(&id("hello"), 2, Some(number(2)))
        .await
        .unwrap();
    assert_eq!((rest.items.len(), rest.more), (1, false));
}

#[tokio::test]
async fn a_version_that_nothing_reaches_leaves_the_table_alone() {
    let store = memory().await;
    create(&store, "hello").await;
    let before = head(&store).await;
    let made = store
        .create_version(&id("hello"), spec("hello:1"), None, plain())
        .await
        .unwrap();
    let after = head(&store).await;
    assert_eq!(after.digest, before.digest);
    assert_eq!(after.revision, before.revision + 1);
    assert_eq!(made.revision, after.revision);
    let changes = changes_since(&store, before.revision).await;
    assert_eq!(changes.changes[0].op, RouteOp::None);
    assert!(changes.routes.is_empty());
    assert_eq!(read_version(&store, 1).await, made.resource);
    assert_eq!(
        store.get_service(&id("hello")).await.unwrap().revision,
        after.revision
    );
}

#[tokio::test]
async fn a_repeated_create_makes_one_version() {
    let store = memory().await;
    create(&store, "hello").await;
    let make = |image: &'static str| {
        let store = store.clone();
        async move {
            store
                .create_version(&id("hello"), spec(image), None, with_request_id("r1"))
                .await
        }
    };
    let first = make("hello:1").await.unwrap();
    let again = make("hello:1").await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.resource, first.resource);
    assert!(matches!(
        make("hello:2").await,
        Err(Error::RequestIdReused { .. })
    ));
    let page = store.list_versions(&id("hello"), 10, None).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

#[tokio::test]
async fn a_version_in_use_stays() {
    let store = memory().await;
    create(&store, "hello").await;
    for _ in 0..3 {
        add_version(&store, "hello").await;
    }
    route_to(&store, "hello", &[(1, 100, ""), (2, 0, "next")]).await;
    for n in [1, 2] {
        let error = store
            .delete_version(&id("hello"), number(n), None, plain())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::FailedPrecondition(list) if list[0].kind == "VERSION_IN_USE"),
            "{error}"
        );
    }
    let one = read_version(&store, 1).await;
    assert_eq!((one.percent, one.tags.len()), (Percent::ALL, 0));
    let two = read_version(&store, 2).await;
    assert_eq!((two.percent, two.tags[0].as_str()), (Percent::ZERO, "next"));
    let three = read_version(&store, 3).await;
    let wrong = store
        .delete_version(&id("hello"), number(3), Some(&two.etag), plain())
        .await;
    assert!(matches!(wrong, Err(Error::EtagMismatch { .. })));
    store
        .delete_version(&id("hello"), number(3), Some(&three.etag), plain())
        .await
        .unwrap();
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn the_first_digest_is_kept_and_reaches_the_route() {
    let (store, version) = with_version().await;
    route_to(&store, "hello", &[(1, 100, "")]).await;
    let first = resolve(&store, &version, digest('a')).await;
    assert_eq!(first.resource.image_digest, Some(digest('a')));
    assert_ne!(first.resource.etag, version.etag);
    let second = resolve(&store, &version, digest('b')).await;
    assert_eq!(second.resource.image_digest, Some(digest('a')));
    assert_eq!(second.revision, first.revision);
    assert!(
        route_text(&store, "hello")
            .await
            .contains(digest('a').as_str())
    );
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn a_verification_is_in_the_route_until_it_ends() {
    let (store, version) = with_version().await;
    let begun = begin(&store, "run", &["n1", "n2"]).await;
    let route = route_text(&store, "hello").await;
    assert!(
        route.contains("VerifyOrder") && route.contains("hello:1"),
        "{route}"
    );
    assert_eq!(store.pending_verifications().await.unwrap().len(), 1);

    let one = apply(&store, &version, verified("run", "n1"), START).await;
    assert_eq!(one.revision, begun.revision, "the route has not changed");
    let kept = read_version(&store, 1).await;
    assert_eq!(kept.verification, one.resource.verification);
    let states: BTreeMap<_, _> = kept
        .verification
        .as_ref()
        .unwrap()
        .nodes()
        .map(|n| (n.node.as_str(), n.outcome.state()))
        .collect();
    assert_eq!(states["n1"], VerificationState::Verified);
    assert_eq!(states["n2"], VerificationState::Pending);

    let two = apply(&store, &version, verified("run", "n2"), START).await;
    assert_eq!(two.revision, begun.revision + 1);
    assert_eq!(
        two.resource.verification.as_ref().map(|v| v.state()),
        Some(VerificationState::Verified)
    );
    assert_ne!(two.resource.etag, kept.etag);
    assert!(store.pending_verifications().await.unwrap().is_empty());
    let route = route_text(&store, "hello").await;
    assert!(
        !route.contains("hello:1"),
        "nothing reaches it any more: {route}"
    );
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn a_verification_ends_at_its_deadline_and_may_be_repeated() {
    let (store, version) = with_version().await;
    begin(&store, "run", &["n1"]).await;
    let early = apply(&store, &version, VerificationEvent::Tick, later(119)).await;
    assert!(early.resource.verification.unwrap().is_pending());
    let late = apply(&store, &version, VerificationEvent::Tick, later(120)).await;
    let verification = late.resource.verification.unwrap();
    assert_eq!(verification.state(), VerificationState::Unverified);
    assert!(verification.message().contains("n1"));

    begin(&store, "again", &["n1"]).await;
    let stale = apply(&store, &version, verified("run", "n1"), START).await;
    assert!(stale.resource.verification.unwrap().is_pending());
    store
        .delete_version(&id("hello"), number(1), None, plain())
        .await
        .unwrap();
    assert!(store.pending_verifications().await.unwrap().is_empty());
    assert!(!route_text(&store, "hello").await.contains("VerifyOrder"));
    let gone = store
        .apply_verification(&version.uid, VerificationEvent::Tick, START)
        .await;
    assert!(matches!(gone, Err(Error::NotFound { .. })));
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn a_verification_without_nodes_is_refused() {
    let (store, _) = with_version().await;
    let refused = store
        .begin_verification(
            &id("hello"),
            number(1),
            "run".to_owned(),
            asked(&[]),
            later(9),
            plain(),
        )
        .await;
    assert!(matches!(&refused, Err(Error::FailedPrecondition(list)) if list[0].kind == "NO_NODES"));
}

#[tokio::test]
async fn a_cancelled_verification_leaves_the_route() {
    let (store, _) = with_version().await;
    begin(&store, "run", &["n1"]).await;
    let cancel = |run: Option<&str>| {
        let (hello, run) = (id("hello"), run.map(str::to_owned));
        let store = store.clone();
        async move {
            let done = store
                .cancel_verification(&hello, number(1), run, plain())
                .await;
            done.unwrap().resource.verification.unwrap()
        }
    };
    assert!(cancel(Some("older")).await.is_pending());
    let before = head(&store).await.revision;
    let ended = cancel(Some("run")).await;
    assert_eq!(ended.state(), VerificationState::Unverified);
    assert_eq!(cancel(None).await, ended, "without effect");
    assert_eq!(head(&store).await.revision, before + 1);
    assert!(!route_text(&store, "hello").await.contains("hello:1"));
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn a_resolved_image_is_kept_and_reset() {
    let (store, _) = with_version().await;
    let local = ResolvedImage {
        source: ImageSource::LocalImage,
        id: Some(digest('1')),
        create_time: Some(START),
        resolve_time: START,
        node: node("n1"),
        warning: String::new(),
    };
    let resolution = Resolution {
        image: local.clone(),
        digest: None,
    };
    let hello = id("hello");
    let made = store.create_version(&hello, spec("mine:1"), Some(resolution), plain());
    let made = made.await.unwrap().resource;
    assert_eq!(made.resolved_image, Some(local));
    assert_eq!(read_version(&store, 2).await, made);
    route_to(&store, "hello", &[(2, 100, "")]).await;
    let text = route_text(&store, "hello").await;
    assert!(text.contains(digest('1').as_str()), "{text}");
    let kept = resolve(&store, &made, digest('a')).await.resource;
    assert_eq!(
        kept.image_digest, None,
        "the id is pinned, whatever a node says"
    );

    let wrong = store.reset_version_image(&hello, number(2), Some("stale"), plain());
    assert!(matches!(wrong.await, Err(Error::EtagMismatch { .. })));
    let reset = store.reset_version_image(&hello, number(2), Some(&made.etag), plain());
    let reset = reset.await.unwrap().resource;
    assert_eq!((&reset.resolved_image, reset.image_generation), (&None, 1));
    assert_ne!(reset.etag, made.etag);
    let text = route_text(&store, "hello").await;
    assert!(text.contains("image_generation: 1") && !text.contains(digest('1').as_str()));

    // A report made before the reset does not bring the image back.
    let late = resolve(&store, &made, digest('a')).await.resource;
    assert_eq!(late.image_digest, None);
    let new = store
        .set_image_digest(&made.uid, digest('b'), 1, START)
        .await;
    assert_eq!(new.unwrap().resource.image_digest, Some(digest('b')));
    assert_rebuilt(&store).await;
}
