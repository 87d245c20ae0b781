use super::super::RouteOp;
use super::super::write::{MIN_CHANGES_KEPT, WriteOutcome};
use tracing::Span;

use super::*;

#[tokio::test]
async fn a_delta_holds_what_changed_since() {
    let store = memory().await;
    let hello = create(&store, "hello").await;
    let other = create(&store, "other").await;
    let start = head(&store).await;
    add_version(&store, "hello").await;
    route_to(&store, "hello", &[(1, 100, "")]).await;
    delete(&store, "other").await;

    let delta = changes_since(&store, start.revision).await;
    assert_eq!(delta.head, head(&store).await);
    let log: Vec<_> = delta
        .changes
        .iter()
        .map(|c| (c.revision, c.service_uid.clone().unwrap(), c.op))
        .collect();
    assert_eq!(
        log,
        [
            (3, hello.uid.clone(), RouteOp::None),
            (4, hello.uid.clone(), RouteOp::Upsert),
            (5, other.uid, RouteOp::Remove),
        ]
    );
    assert_eq!(delta.routes.len(), 1);
    assert_eq!(delta.routes[0].service_uid, hello.uid);
    assert_eq!(delta.changes[2].digest, delta.head.digest);
    assert_eq!(
        store.digest_at(start.revision).await.unwrap(),
        Some(start.digest)
    );
    assert_eq!(store.digest_at(0).await.unwrap(), Some([0; 32]));
    assert_eq!(store.digest_at(99).await.unwrap(), None);
    assert!(matches!(
        store.changes_since(6).await.unwrap(),
        Since::Ahead(_)
    ));
    let nothing = changes_since(&store, 5).await;
    assert!(nothing.changes.is_empty() && nothing.routes.is_empty());
}

#[tokio::test]
async fn subscribers_learn_of_commits() {
    let store = memory().await;
    let mut revisions = store.subscribe();
    assert_eq!(*revisions.borrow_and_update(), 0);
    create(&store, "hello").await;
    assert!(revisions.has_changed().unwrap());
    assert_eq!(*revisions.borrow_and_update(), 1);
    assert!(make(&store, "hello", &[], plain()).await.is_err());
    assert!(!revisions.has_changed().unwrap());
}

async fn clean(store: &Store, now: Timestamp, keep: i64) {
    store
        .write(Span::none(), WriteOptions::system("test", now), move |tx| {
            Box::pin(async move {
                tx.compact(keep).await?;
                Ok(WriteOutcome::Changed((), some_change()))
            })
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn old_changes_are_compacted_and_young_ones_kept() {
    let store = memory().await;
    for n in 0..10 {
        create(&store, &format!("s{n}")).await;
    }
    // All changes are younger than an hour.
    clean(&store, later(60 * 60 - 1), 4).await;
    assert_eq!(head(&store).await.compacted_revision, 0);
    // Now they are older, but the last four are kept for their number.
    clean(&store, later(60 * 60 + 1), 4).await;
    let compacted = head(&store).await.compacted_revision;
    assert_eq!((head(&store).await.revision, compacted), (12, 8));
    assert!(matches!(
        store.changes_since(7).await.unwrap(),
        Since::Compacted(_)
    ));
    assert!(matches!(
        store.changes_since(8).await.unwrap(),
        Since::Changes(_)
    ));
    assert!(store.digest_at(8).await.unwrap().is_some());
    assert_eq!(store.digest_at(7).await.unwrap(), None);
    // The changes of the two compactions are young.
    clean(&store, later(60 * 60 + 2), 0).await;
    assert_eq!(head(&store).await.compacted_revision, 10);
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn compaction_happens_by_itself() {
    let store = memory().await;
    create(&store, "hello").await;
    let count = MIN_CHANGES_KEPT + 600;
    // Inserted directly: ten thousand real writes would take a minute.
    store
        .write(Span::none(), WriteOptions::system("test", START), move |tx| {
            Box::pin(async move {
                use sea_orm::ConnectionTrait;
                let fill = format!(
                    "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
                     INSERT INTO route_changes SELECT i, NULL, 'none', digest, 0 FROM n, feed_state"
                );
                tx.db.execute_unprepared(&fill).await?;
                tx.db
                    .execute_unprepared(&format!("UPDATE feed_state SET revision = {count}"))
                    .await?;
                Ok(WriteOutcome::Bookkeeping(()))
            })
        })
        .await
        .unwrap();
    let how = WriteOptions::system("test", later(2 * 60 * 60));
    for _ in 0..256 {
        store
            .create_version(&id("hello"), spec("hello:1"), None, how.clone())
            .await
            .unwrap();
    }
    let head = head(&store).await;
    assert_eq!(head.revision, count + 256);
    assert!(head.compacted_revision > 256, "{head:?}");
    assert!(head.revision - head.compacted_revision >= MIN_CHANGES_KEPT);
    assert!(matches!(
        store.changes_since(1).await.unwrap(),
        Since::Compacted(_)
    ));
}

#[tokio::test]
async fn a_new_epoch_forgets_history_and_keeps_the_table() {
    let store = memory().await;
    create(&store, "hello").await;
    create(&store, "other").await;
    let before = head(&store).await;
    let after = store.new_epoch(START).await.unwrap();
    assert_eq!(after.cluster, before.cluster);
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.digest, before.digest);
    assert_eq!(after.revision, before.revision + 1);
    assert_eq!(after.compacted_revision, after.revision);
    assert!(matches!(
        store.changes_since(before.revision).await.unwrap(),
        Since::Compacted(_)
    ));
    assert_rebuilt(&store).await;
    create(&store, "third").await;
    assert!(matches!(
        store.changes_since(after.revision).await.unwrap(),
        Since::Changes(_)
    ));
}
