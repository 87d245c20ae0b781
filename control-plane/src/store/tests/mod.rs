//! Tests of the store on files in a temporary folder, or in memory if only logic matters. With
//! `CLESS_TEST_DATABASE=postgres` they use databases of a PostgreSQL server instead.

mod backup;
mod concurrent;
#[path = "../../../tests/it/database.rs"]
mod database;
mod failures;
mod feed;
mod hosts;
mod law;
mod open;
mod services;
mod traffic;
mod versions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::domain::{
    ChangeNote, Domain, HostName, Labels, RequestId, Service, ServiceId, Settings, TargetInput,
    Timestamp, Traffic, TrafficSplit, Version, VersionNumber, VersionSpec, VersionSpecInput,
    Violations,
};

use super::{Error, FeedSource, Head, NewService, Store, StoreOptions, WriteOptions, Written};

/// The time of most writes.
const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn later(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn options(url: &str) -> StoreOptions {
    StoreOptions {
        url: url.to_owned(),
        domain: Domain::parse("localhost").unwrap(),
        // Any injective function of the route is sufficient.
        codec: Arc::new(|route| format!("{route:?}").into_bytes()),
    }
}

async fn memory() -> Store {
    if !database::on_postgres() {
        return Store::open(options("sqlite::memory:")).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    Store::open(options(&database::url_of(folder.path())))
        .await
        .unwrap()
}

/// A database in its own folder.
struct OnDisk {
    folder: TempDir,
}

impl OnDisk {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn url(&self) -> String {
        database::url_of(self.folder.path())
    }

    /// The file of a SQLite database.
    fn path(&self) -> PathBuf {
        self.folder.path().join("cless.db")
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    async fn open(&self) -> Store {
        Store::open(options(&self.url())).await.unwrap()
    }
}

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn number(n: i32) -> VersionNumber {
    VersionNumber::new(n).unwrap()
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn plain() -> WriteOptions {
    WriteOptions::at(START)
}

fn validate_only() -> WriteOptions {
    WriteOptions {
        validate_only: true,
        ..plain()
    }
}

fn with_request_id(request: &str) -> WriteOptions {
    WriteOptions {
        request_id: RequestId::parse(request).unwrap(),
        ..plain()
    }
}

fn new_service(name: &str, hosts: &[&str]) -> NewService {
    NewService {
        id: id(name),
        hosts: hosts.iter().map(|name| host(name)).collect(),
        settings: Settings::default(),
        labels: Labels::default(),
    }
}

fn spec(image: &str) -> VersionSpec {
    let input = VersionSpecInput {
        image: image.to_owned(),
        ..VersionSpecInput::default()
    };
    VersionSpec::new("spec", input, &mut Violations::new()).unwrap()
}

fn split(service: &str, targets: &[(i32, u32, &str)]) -> TrafficSplit {
    let inputs = targets
        .iter()
        .map(|&(version, percent, tag)| TargetInput {
            version,
            percent,
            tag: tag.to_owned(),
        })
        .collect();
    TrafficSplit::new("targets", &id(service), inputs, &mut Violations::new()).unwrap()
}

async fn create(store: &Store, name: &str) -> Service {
    let new = new_service(name, &[]);
    store.create_service(new, plain()).await.unwrap().resource
}

async fn add_version(store: &Store, service: &str) -> Version {
    store
        .create_version(&id(service), spec("hello:1"), plain())
        .await
        .unwrap()
        .resource
}

async fn set_traffic(
    store: &Store,
    service: &str,
    targets: &[(i32, u32, &str)],
) -> Result<Written<Traffic>, Error> {
    store
        .update_traffic(
            &id(service),
            split(service, targets),
            None,
            ChangeNote::default(),
            plain(),
        )
        .await
}

/// Asserts that the stored table equals a rebuild from the rows.
async fn assert_rebuilt(store: &Store) {
    let (head, routes) = store.load_table().await.unwrap();
    let built = super::table::rebuild(&store.inner.connections.reader, &store.inner)
        .await
        .unwrap();
    let mut digest = super::digest::TableDigest::default();
    assert_eq!(routes.len(), built.len());
    for (stored, built) in routes.iter().zip(&built) {
        assert_eq!(stored.service_uid.as_str(), built.service_uid);
        assert_eq!(stored.body, built.body);
        assert_eq!(stored.sha256, built.sha256);
        assert_eq!(stored.sha256, super::digest::sha256(&stored.body));
        digest = digest.plus(&stored.sha256);
    }
    assert_eq!(head.digest, digest.to_bytes());
    assert_eq!(
        store.digest_at(head.revision).await.unwrap(),
        Some(head.digest)
    );
}

async fn route_text(store: &Store, service: &str) -> String {
    let (_, routes) = store.load_table().await.unwrap();
    let route = routes
        .into_iter()
        .find(|route| route.service == id(service))
        .expect("the service has no route");
    String::from_utf8(route.body.to_vec()).unwrap()
}

async fn head(store: &Store) -> Head {
    store.head().await.unwrap()
}
