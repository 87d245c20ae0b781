use std::collections::BTreeSet;

use super::super::entity::route_changes;
use super::super::write::WriteOutcome;
use tracing::Span;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn revisions_have_no_gaps_and_follow_commits() {
    const WRITERS: i64 = 32;
    const EACH: i64 = 6;
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "shared").await;
    let mut heard = store.subscribe();
    let listener = tokio::spawn(async move {
        let mut last = *heard.borrow_and_update();
        while last < 1 + WRITERS * (EACH + 1) {
            heard.changed().await.unwrap();
            let now = *heard.borrow_and_update();
            assert!(now > last);
            last = now;
        }
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let own = format!("s{writer}");
                let made = make(&store, &own, &[], plain()).await;
                seen.push(made.unwrap().revision);
                for _ in 0..EACH {
                    let refused = make(&store, &own, &[], plain()).await;
                    assert!(refused.is_err(), "the name is taken");
                    let made = store
                        .create_version(&id("shared"), spec("hello:1"), None, plain())
                        .await
                        .unwrap();
                    // An acknowledged write is visible to later readers.
                    let read = store.get_version(&id("shared"), made.resource.number).await;
                    assert_eq!(read.unwrap().uid, made.resource.uid);
                    seen.push(made.revision);
                }
                assert!(seen.is_sorted(), "later writes have later revisions");
                seen
            })
        })
        .collect();
    let mut all = BTreeSet::new();
    for writer in writers {
        for revision in writer.await.unwrap() {
            assert!(all.insert(revision), "revision {revision} was given twice");
        }
    }
    let last = 1 + WRITERS * (EACH + 1);
    assert!(all.iter().copied().eq(2..=last));
    let changes = changes_since(&store, 0).await;
    assert!(changes.changes.iter().map(|c| c.revision).eq(1..=last));
    let versions = store
        .list_versions(&id("shared"), 1000, None)
        .await
        .unwrap();
    let numbers: BTreeSet<_> = versions.items.iter().map(|v| v.number.get()).collect();
    assert!(numbers.into_iter().map(i64::from).eq(1..=WRITERS * EACH));
    tokio::time::timeout(Duration::from_secs(10), listener)
        .await
        .expect("subscribers learn of the last commit")
        .unwrap();
    assert_rebuilt(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_equal_requests_creates_the_service() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    let asked: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                make(&store, "hello", &[], with_request_id("same"))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut fresh = 0;
    let mut uids = BTreeSet::new();
    for one in asked {
        let one = one.await.unwrap();
        fresh += usize::from(!one.replayed);
        uids.insert(one.resource.uid);
    }
    assert_eq!((fresh, uids.len()), (1, 1));
}

/// A cancelled caller leaves the write complete or absent, and does not block the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_caller_interrupts_no_write() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    for n in 0..40_u64 {
        let name = format!("s{n}");
        let create = store.create_service(new_service(&name, &[]), plain());
        let _ = tokio::time::timeout(Duration::from_micros(n * 100), create).await;
    }
    create(&store, "last").await;
    assert_rebuilt(&store).await;
    let head = head(&store).await;
    let services = store.list_services(1000, None).await.unwrap().items;
    assert_eq!(i64::try_from(services.len()).unwrap(), head.revision);
    assert_eq!(*store.subscribe().borrow(), head.revision);
}

/// A read is consistent: head and routes match while writes go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_table_is_read_consistently() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..60 {
                create(&store, &format!("s{n}")).await;
            }
        })
    };
    while !writer.is_finished() {
        let (head, routes) = store.load_table().await.unwrap();
        assert_eq!(i64::try_from(routes.len()).unwrap(), head.revision);
        let digest = routes.iter().fold(
            super::super::digest::TableDigest::default(),
            |sum, route| sum.plus(&route.sha256),
        );
        assert_eq!(digest.to_bytes(), head.digest);
    }
    writer.await.unwrap();
}

/// Runs a write whose deferred insert fails.
async fn insert_duplicate_change(store: &Store) -> Result<Written<()>, Error> {
    let change = store.write(Span::none(), WriteOptions::system("test", START), |tx| {
        Box::pin(async move {
            let known = route_changes::ActiveModel {
                revision: sea_orm::ActiveValue::Set(1),
                service_uid: sea_orm::ActiveValue::Set(None),
                op: sea_orm::ActiveValue::Set("none".to_owned()),
                digest: sea_orm::ActiveValue::Set(vec![0; 32]),
                time: sea_orm::ActiveValue::Set(0),
            };
            let again = <route_changes::Entity as sea_orm::EntityTrait>::insert(known);
            tx.db.defer(again).await?;
            Ok(WriteOutcome::Changed((), some_change()))
        })
    });
    change.await
}

/// A deferred statement that fails, fails its own write and no other of the transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failed_deferred_insert_fails_only_its_own_write() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "shared").await;
    let writes = (0..60).map(|turn| {
        let store = store.clone();
        tokio::spawn(async move {
            if turn % 3 > 0 {
                let service = id("shared");
                let made = store.create_version(&service, spec("hello:1"), None, plain());
                made.await.expect("another write failed");
                return true;
            }
            let twice = insert_duplicate_change(&store).await;
            assert!(twice.is_err(), "a duplicate revision was accepted");
            false
        })
    });
    let mut made = 0;
    for write in writes.collect::<Vec<_>>() {
        made += i64::from(write.await.unwrap());
    }
    assert_eq!(made, 40);
    assert_eq!(head(&store).await.revision, 1 + made);
    assert_rebuilt(&store).await;
}

/// The statements of a lone write are sent with COMMIT. If one fails, nothing is kept, and the next
/// write succeeds.
#[tokio::test]
async fn a_lone_write_that_fails_at_commit_changes_nothing() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "alone").await;
    for turn in 0..3 {
        let before = head(&store).await;
        let twice = insert_duplicate_change(&store).await;
        assert!(twice.is_err(), "a duplicate revision was accepted");
        assert_eq!(head(&store).await, before);
        let service = id("alone");
        let made = store.create_version(&service, spec("hello:1"), None, plain());
        assert_eq!(made.await.expect("the writer recovered").revision, 2 + turn);
        assert_rebuilt(&store).await;
    }
    store.close().await.unwrap();
    assert_eq!(head(&disk.open().await).await.revision, 4, "on disk");
}
