use sea_orm::ConnectionTrait;

use tracing::Span;

use super::*;

async fn refused(url: &str) -> String {
    match Store::open(options(url)).await {
        Ok(_) => panic!("{url} was opened"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_a_reopening() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "hello").await;
    add_version(&store, "hello").await;
    route_to(&store, "hello", &[(1, 100, "next")]).await;
    let before = (
        store.load_table().await.unwrap(),
        store.get_service(&id("hello")).await.unwrap(),
        store.get_traffic(&id("hello")).await.unwrap(),
    );
    store.close().await.unwrap();
    let store = disk.open().await;
    let after = (
        store.load_table().await.unwrap(),
        store.get_service(&id("hello")).await.unwrap(),
        store.get_traffic(&id("hello")).await.unwrap(),
    );
    assert_eq!(before, after);
    assert_eq!(*store.subscribe().borrow(), before.0.0.revision);
    assert_rebuilt(&store).await;
}

/// A store dropped without closing leaves a WAL behind, as a kill does.
#[tokio::test]
async fn acknowledged_writes_survive_without_closing() {
    if database::on_postgres() {
        return; // a test of files
    }
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "hello").await;
    let copy = OnDisk::new();
    for entry in std::fs::read_dir(disk.folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.folder.path().join(entry.file_name())).unwrap();
    }
    let reopened = copy.open().await;
    assert_eq!(
        reopened.get_service(&id("hello")).await.unwrap(),
        store.get_service(&id("hello")).await.unwrap()
    );
}

#[tokio::test]
async fn the_database_is_durable_and_private() {
    if database::on_postgres() {
        return; // a test of files
    }
    let disk = OnDisk::new();
    let store = disk.open().await;
    for pragma in [
        "journal_mode",
        "synchronous",
        "foreign_keys",
        "busy_timeout",
    ] {
        let ask = move || {
            let sql = format!("PRAGMA {pragma}");
            sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, sql)
        };
        let read = |row: Option<sea_orm::QueryResult>| {
            let row = row.unwrap();
            row.try_get_by_index::<String>(0)
                .or_else(|_| row.try_get_by_index::<i32>(0).map(|n| n.to_string()))
                .unwrap()
        };
        let written = store
            .write(
                Span::none(),
                WriteOptions::system("test", START),
                move |tx| {
                    Box::pin(async move {
                        let row = tx.db.query_one_raw(ask()).await?;
                        Ok(super::super::write::WriteOutcome::Unchanged(read(row)))
                    })
                },
            )
            .await
            .unwrap();
        let reader = &store.inner.connections.reader;
        let read = read(reader.query_one_raw(ask()).await.unwrap());
        let expected = match pragma {
            "journal_mode" => ["wal", "wal"],
            "synchronous" => ["2", "2"],
            "foreign_keys" => ["1", "1"],
            // The writer retries itself.
            _ => ["10", "5000"],
        };
        assert_eq!([written.resource, read], expected, "{pragma}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for file in std::fs::read_dir(disk.folder.path()).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", file.path().display());
        }
    }
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    store
        .inner
        .connections
        .writer
        .execute_unprepared("INSERT INTO seaql_migrations VALUES ('m9999_future', 0)")
        .await
        .unwrap();
    store.close().await.unwrap();
    let message = refused(&disk.url()).await;
    assert!(
        message.contains("m9999_future") && message.contains("newer"),
        "{message}"
    );
}

#[tokio::test]
async fn open_errors_carry_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("sqlite://{}/{name}", folder.path().display());
    std::fs::write(
        folder.path().join("text"),
        "this is not a database at all, only a longer text",
    )
    .unwrap();
    for (url, remedy) in [
        (at("missing/cless.db?mode=rwc"), "create it"),
        (at("cless.db"), "mode=rwc"),
        (at("text"), "not a SQLite database"),
        (format!("sqlite://{}", folder.path().display()), "folder"),
        ("mysql://me@db/x".to_owned(), "sqlite://PATH"),
    ] {
        let message = refused(&url).await;
        assert!(message.contains(remedy), "{url}: {message}");
    }
    assert!(!folder.path().join("missing").exists());
}

#[tokio::test]
async fn another_domain_moves_the_hosts_in_a_new_epoch() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "hello").await;
    add_version(&store, "hello").await;
    route_to(&store, "hello", &[(1, 100, "next")]).await;
    let before = head(&store).await;
    store.close().await.unwrap();
    let moved = StoreOptions {
        domain: Domain::parse("apps.example").unwrap(),
        ..options(&disk.url())
    };
    let store = Store::open(moved).await.unwrap();
    let after = head(&store).await;
    assert_ne!(before.epoch, after.epoch);
    let route = route_text(&store, "hello").await;
    assert!(route.contains("next--hello.apps.example"), "{route}");
    assert!(!route.contains("localhost"), "{route}");
    let taken = make(&store, "b", &["next--hello.apps.example"], plain()).await;
    assert!(matches!(taken, Err(Error::Invalid(_))));
    let free = make(&store, "b", &["hello.localhost"], plain()).await;
    assert!(free.is_ok());
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn reopening_unchanged_keeps_the_epoch() {
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "hello").await;
    let before = head(&store).await;
    store.close().await.unwrap();
    assert_eq!(head(&disk.open().await).await, before);
}

/// Uses the production encoder, whose omission of defaults decides.
#[tokio::test]
async fn a_version_stored_before_there_were_limits_is_read_and_keeps_the_epoch() {
    let disk = OnDisk::new();
    let with_encoder = || StoreOptions {
        codec: Arc::new(crate::grpc::convert::route::encode),
        ..options(&disk.url())
    };
    let store = Store::open(with_encoder()).await.unwrap();
    create(&store, "hello").await;
    add_version(&store, "hello").await;
    route_to(&store, "hello", &[(1, 100, "next")]).await;
    let old = r#"{"image":"hello:1","port":null,"env":{},"command":[],"args":[],"cpu_millis":1000,"memory_bytes":536870912,"readiness":"Tcp","pull_policy":"Missing"}"#;
    let writer = &store.inner.connections.writer;
    let age = format!("UPDATE versions SET spec = '{old}'");
    let changed = writer.execute_unprepared(&age).await.unwrap();
    assert_eq!(changed.rows_affected(), 1);
    let before = head(&store).await;
    store.close().await.unwrap();
    let store = Store::open(with_encoder()).await.unwrap();
    assert_eq!(head(&store).await, before);
    let version = read_version(&store, 1).await;
    assert_eq!(version.spec, spec("hello:1"));
    assert_rebuilt(&store).await;
}

#[tokio::test]
async fn a_thousand_services_open_within_a_second() {
    if database::on_postgres() {
        return; // a test of files
    }
    let disk = OnDisk::new();
    let store = disk.open().await;
    store
        .write(Span::none(), WriteOptions::system("test", START), |tx| {
            Box::pin(async move {
                let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                    INSERT INTO services SELECT printf('%08x-0000-7000-8000-000000000000', i), 's' || i, '[]', '{}', '{}', \
                    1, 0, 0, 0, 2, 1, 0, 0, '[{\"version\":1,\"percent\":100,\"tag\":null}]', NULL FROM n";
                tx.db.execute_unprepared(fill).await?;
                let fill = "INSERT INTO versions (uid, service_uid, number, spec, image_digest, etag, create_time, \
                    verification, verify_deadline) SELECT substr(uid, 1, 35) || '1', uid, 1, \
                    '{\"image\":\"hello:1\",\"port\":null,\"cpu_millis\":1000,\"memory_bytes\":536870912}', \
                    NULL, 1, 0, NULL, NULL FROM services";
                tx.db.execute_unprepared(fill).await?;
                tx.rebuild_table().await?;
                Ok(super::super::write::WriteOutcome::Changed((), some_change()))
            })
        })
        .await
        .unwrap();
    assert_rebuilt(&store).await;
    store.close().await.unwrap();
    let begin = std::time::Instant::now();
    let store = disk.open().await;
    // A loose limit: the promise of 1 s is for a release build.
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    print_time(took);
    assert_eq!(store.load_table().await.unwrap().1.len(), 1000);
}

#[expect(clippy::print_stderr, reason = "a measurement for --nocapture")]
fn print_time(took: Duration) {
    eprintln!("opened 1000 services in {took:?}");
}
