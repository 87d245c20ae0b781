//! A host belongs to one service at a time.

use super::*;

#[tokio::test]
async fn hosts_of_every_kind_conflict() {
    // Under another domain, hosts below `localhost` are like any other.
    let disk = OnDisk::new();
    let elsewhere = StoreOptions {
        domain: Domain::parse("apps.example").unwrap(),
        ..options(&disk.url())
    };
    let store = Store::open(elsewhere).await.unwrap();
    make(&store, "a", &["shop.example", "c.localhost"], plain())
        .await
        .unwrap();
    make(&store, "b", &["new--a.localhost"], plain())
        .await
        .unwrap();
    store.close().await.unwrap();
    let store = disk.open().await;
    add_version(&store, "a").await;
    route_to(&store, "a", &[(1, 100, "next")]).await;
    let before = head(&store).await;

    let error = set_hosts(&store, "b", &["free.example", "shop.example"])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::HostTaken { host, owner } if host.as_str() == "shop.example" && *owner == Some(id("a"))),
        "{error}"
    );
    // A default host against an extra host.
    let error = make(&store, "c", &[], plain()).await.unwrap_err();
    assert!(matches!(error, Error::HostTaken { .. }), "{error}");
    // A service keeps the hosts that it has.
    set_hosts(&store, "b", &["new--a.localhost", "b.example"])
        .await
        .unwrap();
    // A tag host against an extra host.
    let error = set_traffic(&store, "a", &[(1, 100, "new")])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::HostTaken { owner, .. } if *owner == Some(id("b"))),
        "{error}"
    );
    assert_eq!(head(&store).await.revision, before.revision + 1);
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn hosts_of_the_domain_cannot_be_taken() {
    let store = memory().await;
    create(&store, "a").await;
    for own in ["localhost", "victim.localhost", "next--victim.localhost"] {
        for result in [
            set_hosts(&store, "a", &["free.example", own]).await.err(),
            make(&store, "b", &["free.example", own], plain())
                .await
                .err(),
        ] {
            let Some(Error::Invalid(error)) = result else {
                panic!("{own}: {result:?}");
            };
            assert_eq!(error.violations()[0].field, "service.hosts[1]");
        }
    }
    set_hosts(&store, "a", &["deep.victim.localhost"])
        .await
        .unwrap();
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
