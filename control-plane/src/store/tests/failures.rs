//! Failing databases, and databases shared with other processes.

use sea_orm::ConnectionTrait;

use tracing::Span;

use super::*;

/// Runs a pragma on the writing connection.
async fn pragma(store: &Store, pragma: &'static str) {
    let done = store.write(
        Span::none(),
        WriteOptions::system("test", START),
        move |tx| {
            Box::pin(async move {
                tx.db.execute_unprepared(pragma).await?;
                Ok(super::super::write::WriteOutcome::Unchanged(()))
            })
        },
    );
    done.await.unwrap();
}

/// On a full disk SQLite ends the transaction without the driver noticing; later writes once ran
/// without the writers' lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_refuses_writes_whole_and_is_survived() {
    if database::on_postgres() {
        return; // a test of files
    }
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "hello").await;
    // No free page: SQLite reports "full" as on a full disk.
    pragma(&store, "PRAGMA max_page_count = 1").await;
    let before = head(&store).await;
    let many: Vec<_> = (0..40)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let input = VersionSpecInput {
                    image: "hello:1".to_owned(),
                    args: vec!["x".repeat(2000); 8],
                    ..VersionSpecInput::default()
                };
                let spec = VersionSpec::new("spec", input, &mut Violations::new()).unwrap();
                store
                    .create_version(&id("hello"), spec, None, plain())
                    .await
            })
        })
        .collect();
    let (mut kept, mut refused) = (0, 0);
    for one in many {
        match one.await.unwrap() {
            Ok(_) => kept += 1,
            Err(Error::Unavailable(text)) => {
                assert!(
                    text.contains("free space") || text.contains("shared"),
                    "{text}"
                );
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0, "the disk was never full");
    assert_eq!(head(&store).await.revision, before.revision + kept);
    assert_rebuilt(&store).await;
    pragma(&store, "PRAGMA max_page_count = 4294967294").await;
    let written = make(&store, "after", &[], plain()).await.unwrap();
    assert_eq!(written.revision, before.revision + kept + 1);
    assert_rebuilt(&store).await;
}

/// Two stores have separate connections, as two processes do. Neither fails because the other is
/// busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_stores_on_one_database_are_never_busy_and_skip_no_revision() {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let disk = OnDisk::new();
    let stores = [disk.open().await, disk.open().await];
    create(&stores[0], "shared").await;
    let writers: Vec<_> = (0..WRITERS * 2)
        .map(|writer| {
            let store = stores[writer % 2].clone();
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for _ in 0..EACH {
                    let made = store
                        .create_version(&id("shared"), spec("hello:1"), None, plain())
                        .await;
                    revisions.push(made.expect("never busy").revision);
                }
                assert!(revisions.is_sorted());
                revisions
            })
        })
        .collect();
    let mut all = Vec::new();
    for writer in writers {
        all.extend(writer.await.unwrap());
    }
    all.sort_unstable();
    let last = i64::try_from(WRITERS * 2 * EACH + 1).unwrap();
    assert!(all.into_iter().eq(2..=last), "each revision once");
    for store in &stores {
        assert_eq!(head(store).await.revision, last);
        assert_rebuilt(store).await;
    }
}

/// A control plane that stops in the middle of a write (SIGSTOP, network loss) does not block the
/// others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_hangs_in_a_write_is_cut_off() {
    if !database::on_postgres() {
        return; // SQLite has no server
    }
    let disk = OnDisk::new();
    let (hangs, lives) = (disk.open().await, disk.open().await);
    let writer = &hangs.inner.connections.writer;
    writer
        .execute_unprepared("SET idle_in_transaction_session_timeout = 300")
        .await
        .unwrap();
    let locked = super::super::connection::begin_write(&hangs.inner.connections, |db| {
        Box::pin(super::super::write::lock_feed_state(db))
    })
    .await
    .unwrap();
    create(&lives, "hello").await;
    drop(locked);
    // The session is gone; a later write opens a new one.
    let mut tries = 0;
    while let Err(error) = hangs
        .create_service(new_service("other", &[]), plain())
        .await
    {
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        tries += 1;
        assert!(tries < 5, "still failing: {error}");
    }
    assert_rebuilt(&hangs).await;
}

#[tokio::test]
async fn the_error_of_a_damaged_database_suggests_a_restore() {
    if database::on_postgres() {
        return; // a test of files
    }
    let disk = OnDisk::new();
    let store = disk.open().await;
    for n in 0..50 {
        create(&store, &format!("s{n}")).await;
    }
    store.close().await.unwrap();
    let mut bytes = std::fs::read(disk.path()).unwrap();
    let page = 4096;
    for byte in &mut bytes[page..] {
        *byte = 0xa5;
    }
    std::fs::write(disk.path(), bytes).unwrap();
    let error = Store::open(options(&disk.url())).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("cless-control-plane restore"), "{text}");
}

#[tokio::test]
async fn an_older_schema_is_not_migrated_while_in_use() {
    if database::on_postgres() {
        return; // a test of files
    }
    let disk = OnDisk::new();
    let serving = disk.open().await;
    let newest =
        "DELETE FROM seaql_migrations WHERE version = (SELECT max(version) FROM seaql_migrations)";
    let writer = &serving.inner.connections.writer;
    writer.execute_unprepared(newest).await.unwrap();
    let error = Store::open(options(&disk.url())).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("stop the older control plane"), "{text}");
}
