//! A host belongs to one service at a time.

use super::*;

#[tokio::test]
async fn hosts_of_every_kind_conflict() {
    let store = memory().await;
    create(&store, "a").await;
    add_version(&store, "a").await;
    route_to(&store, "a", &[(1, 100, "next")]).await;
    set_hosts(&store, "a", &["shop.example", "c.localhost"])
        .await
        .unwrap();
    create(&store, "b").await;
    let before = head(&store).await;

    // An extra host against a default, an extra and a tag host.
    for taken in ["a.localhost", "shop.example", "next--a.localhost"] {
        let error = set_hosts(&store, "b", &["free.example", taken])
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::HostTaken { host, owner } if host.as_str() == taken && owner.as_str() == "a"),
            "{error}"
        );
    }
    // A default host against an extra host.
    let error = make(&store, "c", &[], plain()).await.unwrap_err();
    assert!(matches!(error, Error::HostTaken { .. }), "{error}");
    // A tag host against an extra host.
    set_hosts(&store, "b", &["new--a.localhost"]).await.unwrap();
    let error = set_traffic(&store, "a", &[(1, 100, "new")])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::HostTaken { owner, .. } if owner.as_str() == "b"),
        "{error}"
    );
    assert_eq!(head(&store).await.revision, before.revision + 1);
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn released_hosts_are_free_again() {
    let store = memory().await;
    make(&store, "a", &["shop.example"], plain()).await.unwrap();
    create(&store, "b").await;
    set_hosts(&store, "a", &["other.example"]).await.unwrap();
    set_hosts(&store, "b", &["shop.example"]).await.unwrap();
    delete(&store, "b").await;
    make(&store, "b", &["shop.example"], plain()).await.unwrap();
}

#[tokio::test]
async fn repeated_hosts_are_refused() {
    let store = memory().await;
    let new = new_service("a", &["x.example", "a.localhost", "x.example"]);
    let error = store.create_service(new, plain()).await.unwrap_err();
    let Error::Invalid(error) = error else {
        panic!("{error}");
    };
    let fields: Vec<_> = error
        .violations()
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    assert_eq!(fields, ["service.hosts[1]", "service.hosts[2]"]);
}
