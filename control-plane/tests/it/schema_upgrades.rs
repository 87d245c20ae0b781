//! Upgrades from every released database schema.
//!
//! `tests/fixtures/mNNNN.db` and `.sql` hold the same history on SQLite and PostgreSQL, created
//! through the CLI of that release. The history is: the service `hello` with the host
//! shop.example.com and three versions; the splits 100, 90/10 and a rollback; the service `idle`.

use crate::database;
use crate::harness::{Harness, options};
use cless_proto::v1 as pb;
use std::path::Path;

/// Prefixes of the fixture files, oldest first.
const RELEASED: [&str; 1] = ["m0001"];

#[tokio::test]
async fn every_released_schema_is_upgraded_without_loss() {
    for schema in RELEASED {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path());
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        if database::on_postgres() {
            let dump = std::fs::read_to_string(fixtures.join(format!("{schema}.sql")));
            database::psql(&options.database_url, &dump.expect("a fixture"));
        } else {
            let file = fixtures.join(format!("{schema}.db"));
            std::fs::copy(file, folder.path().join("cless.db")).expect("a fixture");
        }
        let path = folder.path().to_owned();
        let harness = Harness::with(options, folder).await;
        assert_history(&harness).await;
        let harness = harness.restart().await;
        assert_history(&harness).await;
        if database::on_postgres() {
            continue;
        }
        // There is one backup, and it is complete.
        let backups: Vec<_> = std::fs::read_dir(&path)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|end| end == "backup"))
            .collect();
        let [backup] = &backups[..] else {
            panic!("{backups:?}");
        };
        let name = backup.file_name().expect("a name").to_string_lossy();
        assert!(name.starts_with(&format!("cless.db.{schema}_")), "{name}");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::copy(backup, folder.path().join("cless.db")).expect("copied");
        let options = crate::harness::options(folder.path());
        assert_history(&Harness::with(options, folder).await).await;
    }
}

#[tokio::test]
async fn a_new_database_gets_no_backup() {
    let folder = tempfile::tempdir().expect("a folder");
    let (options, path) = (options(folder.path()), folder.path().to_owned());
    let _harness = Harness::with(options, folder).await;
    let backups = std::fs::read_dir(path)
        .expect("a folder")
        .filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            name.to_string_lossy().ends_with(".backup")
        })
        .count();
    assert_eq!(backups, 0);
}

async fn assert_history(harness: &Harness) {
    let all = pb::ListServicesRequest::default();
    let services = harness.ok(all).await.services;
    let names: Vec<_> = services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["services/hello", "services/idle"]);
    assert_eq!(services[0].hosts, ["shop.example.com"]);
    let versions = harness.versions("hello").await;
    let images: Vec<_> = versions
        .iter()
        .map(|version| {
            let spec = version.spec.as_ref().expect("a spec");
            (version.number, &*spec.image)
        })
        .collect();
    assert_eq!(
        images,
        [
            (3, "hello:3"),
            (2, "registry.example/hello:2"),
            (1, "hello:1")
        ]
    );
    // Nothing kept an unverified version from traffic then, so all may get a share.
    let carried = versions.iter().all(|version| version.carried_traffic);
    assert!(carried, "versions of an existing database are exempt");
    let spec = versions[2].spec.as_ref().expect("a spec");
    assert_eq!((spec.port, &*spec.env["GREETING"]), (8080, "one"));
    let request = pb::ListTrafficRevisionsRequest {
        parent: "services/hello/traffic".into(),
        ..Default::default()
    };
    let history = harness.ok(request).await.revisions;
    let splits: Vec<_> = history
        .iter()
        .map(|revision| {
            let targets = revision.targets.iter();
            let split: Vec<_> = targets.map(|t| (t.version, t.percent)).collect();
            (revision.number, split, revision.rolled_back_from)
        })
        .collect();
    assert_eq!(
        splits,
        [
            (3, vec![(1, 100)], 1),
            (2, vec![(1, 90), (2, 10)], 0),
            (1, vec![(1, 100)], 0),
        ]
    );
    harness.published().await;
    // Revisions continue from the old ones.
    assert!(harness.head().await >= 8);
}
