//! Backups, restores, and the backup before a migration.

use std::time::SystemTime;

use super::super::{backup, restore};
use super::*;

fn now() -> SystemTime {
    SystemTime::from(START)
}

/// A backup under load is consistent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_under_load_is_consistent() {
    if database::on_postgres() {
        return; // PostgreSQL has its own tools
    }
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "hello").await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    create(&store, &format!("s{writer}-{n}")).await;
                    add_version(&store, "hello").await;
                    n += 1;
                }
            })
        })
        .collect();
    let mut heads = Vec::new();
    for n in 0..3 {
        let least = head(&store).await.revision;
        let to = disk.folder.path().join(format!("backup{n}"));
        backup(&disk.url(), &to).await.unwrap();
        let most = head(&store).await.revision;
        heads.push((least, most, to));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    for (least, most, to) in heads {
        let copy = OnDisk::new();
        std::fs::copy(&to, copy.path()).unwrap();
        let copy_store = copy.open().await;
        let head = head(&copy_store).await;
        assert!((least..=most).contains(&head.revision), "{head:?}");
        assert_eq!(head.epoch, super::head(&store).await.epoch);
        assert_rebuilt(&copy_store).await;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = to.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "a backup contains env");
        }
    }
    let again = backup(&disk.url(), &disk.folder.path().join("backup0")).await;
    assert!(again.unwrap_err().to_string().contains("another name"));
    assert!(!disk.files().iter().any(|name| name.ends_with(".partial")));
}

#[tokio::test]
async fn a_restore_starts_a_new_epoch_and_keeps_the_replaced_database() {
    if database::on_postgres() {
        return; // PostgreSQL has its own tools
    }
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "hello").await;
    let to = disk.folder.path().join("backup");
    backup(&disk.url(), &to).await.unwrap();
    create(&store, "later").await;
    let before = head(&store).await;

    let refused = |force| restore(options(&disk.url()), &to, force, now());
    let text = refused(true).await.unwrap_err().to_string();
    assert!(text.contains("stop the control plane"), "{text}");
    store.close().await.unwrap();
    drop(store);
    let text = refused(false).await.unwrap_err().to_string();
    assert!(text.contains("--force"), "{text}");

    let restored = refused(true).await.unwrap();
    assert_ne!(restored.head.epoch, before.epoch);
    assert_eq!(restored.head.cluster, before.cluster);
    let store = disk.open().await;
    assert_eq!(head(&store).await, restored.head);
    assert!(store.get_service(&id("hello")).await.is_ok());
    assert!(store.get_service(&id("later")).await.is_err());
    assert_rebuilt(&store).await;
    // The replaced database is complete under its new name.
    let kept = format!("sqlite://{}?mode=rw", restored.replaced.unwrap().display());
    let kept = Store::open(options(&kept)).await.unwrap();
    assert_eq!(head(&kept).await, before);
    assert!(
        !disk.files().iter().any(|name| name.contains("restoring")),
        "{:?}",
        disk.files()
    );
}

#[tokio::test]
async fn an_invalid_backup_replaces_nothing() {
    if database::on_postgres() {
        return; // PostgreSQL has its own tools
    }
    let disk = OnDisk::new();
    let store = disk.open().await;
    create(&store, "hello").await;
    let before = head(&store).await;
    store.close().await.unwrap();
    drop(store);
    let text = disk.folder.path().join("text");
    std::fs::write(&text, "not a database, only a text that is long enough").unwrap();
    let empty = disk.folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let missing = disk.folder.path().join("missing");
    for (from, why) in [
        (&text, "not a SQLite database"),
        (&empty, "not a database of a control plane"),
        (&missing, "is not a file"),
    ] {
        let error = restore(options(&disk.url()), from, true, now()).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(head(&disk.open().await).await, before);
}

#[tokio::test]
async fn backups_of_postgresql_are_left_to_its_tools() {
    let url = "postgres://me:secret@db/cless";
    let to = std::path::Path::new("/tmp/x");
    let error = backup(url, to).await.unwrap_err().to_string();
    assert!(error.contains("pg_dump"), "{error}");
    let error = restore(options(url), to, false, now()).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("pg_restore") && error.contains("new-epoch"),
        "{error}"
    );
}
