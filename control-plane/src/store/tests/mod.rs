//! Tests of the store on files in a temporary folder, or in memory if only logic matters. With
//! `CLESS_TEST_DATABASE=postgres` they use databases of a PostgreSQL server instead.

mod backup;
mod concurrent;
#[path = "../../../tests/it/database.rs"]
mod database;
mod enrollments;
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

use serde_json::Value;
use tempfile::TempDir;

use crate::domain::{
    ChangeNote, Domain, HostName, ImageDigest, Labels, NodeName, RequestId, Service, ServiceId,
    Settings, TargetInput, Timestamp, Traffic, TrafficRevision, TrafficSplit, VerificationEvent,
    VerifyNodes, Version, VersionNumber, VersionSpec, VersionSpecInput, Violations,
};

use super::audited_change::AuditedChange;
use super::{
    Changes, Error, FeedSource, Head, NewService, Page, Since, Store, StoreOptions, WriteOptions,
    Written,
};

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
        serving: false,
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

/// The audited change of a write that a test makes up.
fn some_change() -> AuditedChange {
    AuditedChange::new("test".to_owned(), &Value::Null, &Value::Null)
}

fn plain() -> WriteOptions {
    WriteOptions::system("test", START)
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

async fn make(
    store: &Store,
    name: &str,
    hosts: &[&str],
    how: WriteOptions,
) -> Result<Written<Service>, Error> {
    store.create_service(new_service(name, hosts), how).await
}

async fn create(store: &Store, name: &str) -> Service {
    make(store, name, &[], plain()).await.unwrap().resource
}

async fn set_hosts(store: &Store, name: &str, hosts: &[&str]) -> Result<Written<Service>, Error> {
    let patch = services::patch_hosts(hosts);
    store.update_service(&id(name), None, patch, plain()).await
}

async fn delete(store: &Store, name: &str) {
    let deleted = store.delete_service(&id(name), None, plain()).await;
    deleted.unwrap();
}

async fn add_version(store: &Store, service: &str) -> Version {
    store
        .create_version(&id(service), spec("hello:1"), None, plain())
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
            true,
            None,
            ChangeNote::default(),
            plain(),
        )
        .await
}

/// Sets traffic that must be valid.
async fn route_to(store: &Store, service: &str, targets: &[(i32, u32, &str)]) -> Written<Traffic> {
    set_traffic(store, service, targets).await.unwrap()
}

/// The changes after a revision, which the log must still hold.
async fn changes_since(store: &Store, revision: i64) -> Changes {
    match store.changes_since(revision).await.unwrap() {
        Since::Changes(delta) => delta,
        other => panic!("{revision} is unknown: {other:?}"),
    }
}

/// A version of the service `hello`.
async fn read_version(store: &Store, n: i32) -> Version {
    store.get_version(&id("hello"), number(n)).await.unwrap()
}

/// The traffic history of the service `hello`, newest first.
async fn list_history(store: &Store, limit: u32, before: Option<i32>) -> Page<TrafficRevision> {
    let hello = id("hello");
    let page = store.list_traffic_revisions(&hello, limit, before);
    page.await.unwrap()
}

/// A store with the service `hello` and its first version.
async fn with_version() -> (Store, Version) {
    let store = memory().await;
    create(&store, "hello").await;
    let version = add_version(&store, "hello").await;
    (store, version)
}

async fn apply(
    store: &Store,
    version: &Version,
    event: VerificationEvent,
    now: Timestamp,
) -> Written<Version> {
    let applied = store.apply_verification(&version.uid, event, now).await;
    applied.unwrap()
}

async fn resolve(store: &Store, version: &Version, digest: ImageDigest) -> Written<Version> {
    let stored = store.set_image_digest(&version.uid, digest, 0, START).await;
    stored.unwrap()
}

/// The run of these nodes, all of which have to verify the version.
fn asked(nodes: &[&str]) -> VerifyNodes {
    VerifyNodes {
        nodes: nodes
            .iter()
            .map(|name| NodeName::parse(*name).unwrap())
            .collect(),
        ..VerifyNodes::default()
    }
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
