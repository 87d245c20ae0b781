//! The feed client against a scripted control plane.

mod closing;
mod control;
pub(crate) mod plane;

use cless_data_plane::feed::{self, Error, Feed, FeedOptions, FeedStatus, IdentityError};
use cless_data_plane::feed::{ReportSource, RetainedError, Timing};
use cless_data_plane::report::NodeReport;
use cless_proto::v1 as pb;
use pb::stream_routes_response::Message as ToNode;
use plane::{Plane, Routes, within};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A node that reports only its engine.
pub(crate) struct EngineOnly {
    changes: watch::Sender<u64>,
}

impl ReportSource for EngineOnly {
    fn report(&self) -> NodeReport {
        let engine = format!("engine {}", *self.changes.borrow());
        NodeReport {
            engine,
            ..NodeReport::default()
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

pub(crate) fn engine_only() -> Arc<EngineOnly> {
    Arc::new(EngineOnly {
        changes: watch::Sender::new(0),
    })
}

/// Short retries and long timeouts.
pub(crate) fn timing() -> Timing {
    Timing {
        backoff_floor: Duration::from_millis(10),
        backoff_ceiling: Duration::from_millis(50),
        ..Timing::default()
    }
}

fn options(planes: &[&Plane], folder: &Path) -> FeedOptions {
    let mut control_planes: Vec<_> = planes.iter().map(|plane| plane.uri()).collect();
    if control_planes.is_empty() {
        // The discard port, on which nothing listens.
        control_planes.push(http::Uri::from_static("http://127.0.0.1:9"));
    }
    let timing = timing();
    FeedOptions {
        timing,
        ..FeedOptions::new(control_planes, "one".into(), folder.into())
    }
}

async fn start(planes: &[&Plane], folder: &Path) -> Feed {
    feed::start(options(planes, folder), engine_only())
        .await
        .expect("the feed starts")
}

pub(crate) async fn until(
    feed: &Feed,
    what: &str,
    holds: impl FnMut(&FeedStatus) -> bool,
) -> FeedStatus {
    let mut status = feed.status();
    let status = within(what, status.wait_for(holds)).await;
    status.expect("the feed lives").clone()
}

/// The image of the version that a host leads to.
fn image(feed: &Feed, host: &str) -> Option<String> {
    let table = feed.table();
    let entry = table.lookup(host)?;
    Some(entry.route.versions.first()?.spec.image.clone())
}

/// A node that has acknowledged `routes`.
async fn synced(plane: &mut Plane, folder: &Path, routes: &Routes) -> (Feed, plane::Stream) {
    let feed = start(&[plane], folder).await;
    let (mut stream, _) = plane.accept().await;
    stream.send(routes.snapshot()).await;
    assert_eq!(stream.ack().await.cursor, Some(routes.cursor()));
    (feed, stream)
}

#[tokio::test]
async fn a_snapshot_then_a_delta_are_served() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let feed = start(&[&plane], folder.path()).await;
    let mut changed = feed.changed();
    let (mut stream, hello) = plane.accept().await;
    assert_eq!((hello.protocol, hello.have), (1, None));
    let node = hello.node.unwrap();
    assert_eq!((&*node.id, &*node.name), (feed.node_id(), "one"));
    assert_eq!(hello.boot_id, feed.boot_id());
    assert!(!feed.status().borrow().has_table);

    let first = Routes::default().with("a", "a:1").with("b", "b:1");
    stream.send(first.snapshot()).await;
    let ack = stream.ack().await;
    assert_eq!(
        (ack.cursor, ack.quarantined),
        (Some(first.cursor()), vec![])
    );
    // The table serves before its Ack is sent, so no wait is needed.
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:1"));
    assert_eq!(&**feed.table().cluster(), "c1");
    within("a swap is announced", changed.changed())
        .await
        .unwrap();
    let status = until(&feed, "synced", |status| status.synced && status.connected).await;
    assert!(status.has_table && status.last_contact.is_some());
    assert_eq!(status.head, first.cursor().revision);

    let second = first.with("a", "a:2").without("b");
    stream.send(second.delta(&first)).await;
    assert_eq!(stream.ack().await.cursor, Some(second.cursor()));
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:2"));
    assert_eq!(image(&feed, "b.localhost"), None);
    feed.shutdown().await;
}

#[tokio::test]
async fn a_reconnected_node_resumes_with_a_delta() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let routes = Routes::default().with("a", "a:1");
    let (feed, stream) = synced(&mut plane, folder.path(), &routes).await;
    drop(stream);
    let (mut stream, hello) = plane.accept().await;
    assert_eq!(hello.have, Some(routes.cursor()));
    let next = routes.with("a", "a:2");
    stream.send(next.delta(&routes)).await;
    assert_eq!(stream.ack().await.cursor, Some(next.cursor()));
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:2"));
    feed.shutdown().await;
}

#[tokio::test]
async fn a_corrupt_change_is_refused_and_the_table_keeps_serving() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let first = Routes::default().with("a", "a:1");
    let (feed, mut stream) = synced(&mut plane, folder.path(), &first).await;

    let second = first.with("a", "a:2");
    let mut forged = second.delta(&first);
    let Some(ToNode::Chunk(chunk)) = forged.get_mut(1) else {
        panic!("not a chunk")
    };
    chunk.upserts[0].route = first.with("a", "a:3").with("x", "x").cursor().digest;
    stream.send(forged).await;
    let nack = stream.nack().await;
    assert_eq!(nack.kind(), pb::nack::Kind::Corrupt);
    assert_eq!(nack.cursor, Some(first.cursor()));
    assert!(nack.message.contains("digest"), "{}", nack.message);
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:1"));

    stream.send(second.snapshot()).await;
    assert_eq!(stream.ack().await.cursor, Some(second.cursor()));
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:2"));
    feed.shutdown().await;
}

#[tokio::test]
async fn another_clusters_table_is_rejected() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let routes = Routes::default().with("a", "a:1");
    let (feed, mut stream) = synced(&mut plane, folder.path(), &routes).await;
    let mut other = routes.with("a", "a:2").snapshot();
    let Some(ToNode::Begin(begin)) = other.first_mut() else {
        panic!("not a begin")
    };
    begin.cluster = "c2".to_owned();
    stream.send(other).await;
    let nack = stream.nack().await;
    assert_eq!(nack.kind(), pb::nack::Kind::Rejected);
    assert!(
        nack.message.contains("restart the node"),
        "{}",
        nack.message
    );
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:1"));
    feed.shutdown().await;
}

#[tokio::test]
async fn a_bad_route_is_quarantined_and_reported() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let first = Routes::default().with("a", "a:1").with("b", "b:1");
    let (feed, mut stream) = synced(&mut plane, folder.path(), &first).await;

    let second = first.with_bytes("a", vec![0xff, 0xff]).with("b", "b:2");
    stream.send(second.delta(&first)).await;
    let ack = stream.ack().await;
    assert_eq!(ack.cursor, Some(second.cursor()));
    let held = &ack.quarantined[0];
    assert_eq!((&*held.service_uid, &*held.service), ("uid-a", "a"));
    assert!(held.reason.starts_with("route: "), "{}", held.reason);
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:1"));
    assert_eq!(image(&feed, "b.localhost").as_deref(), Some("b:2"));

    // Both tables survive a restart.
    feed.shutdown().await;
    let feed = start(&[], folder.path()).await;
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:1"));
    assert_eq!(feed.table().quarantined().len(), 1);
    feed.shutdown().await;
}

#[tokio::test]
async fn a_killed_control_plane_leaves_the_table_in_service() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let routes = Routes::default().with("a", "a:1");
    let (feed, stream) = synced(&mut plane, folder.path(), &routes).await;
    let address = plane.address;
    drop((stream, plane));
    until(&feed, "the loss is detected", |status| !status.connected).await;
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:1"));

    let mut plane = Plane::at(address).await;
    let (stream, hello) = plane.accept().await;
    assert_eq!(hello.have, Some(routes.cursor()));
    stream.send(routes.heartbeat()).await;
    until(&feed, "it is back", |status| status.connected).await;
    feed.shutdown().await;
}

#[tokio::test]
async fn a_node_without_a_control_plane_serves_from_disk() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let routes = Routes::default().with("a", "a:1");
    let (feed, _stream) = synced(&mut plane, folder.path(), &routes).await;
    let id = feed.node_id().to_owned();
    feed.shutdown().await;

    let alone = start(&[], folder.path()).await;
    let status = alone.status().borrow().clone();
    assert!(status.has_table && !status.synced && !status.connected);
    assert_eq!(image(&alone, "a.localhost").as_deref(), Some("a:1"));
    assert_eq!(alone.node_id(), id);
    alone.shutdown().await;

    // A heartbeat that confirms the table counts as a sync.
    let feed = start(&[&plane], folder.path()).await;
    let (stream, hello) = plane.accept().await;
    assert_eq!(hello.have, Some(routes.cursor()));
    assert!(!feed.status().borrow().synced);
    stream.send(routes.heartbeat()).await;
    until(&feed, "confirmed", |status| status.synced).await;
    feed.shutdown().await;
}

#[tokio::test]
async fn a_damaged_cache_is_set_aside_and_resynced() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let routes = Routes::default().with("a", "a:1");
    let (feed, _stream) = synced(&mut plane, folder.path(), &routes).await;
    feed.shutdown().await;
    let file = folder.path().join("routes");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();

    let feed = start(&[&plane], folder.path()).await;
    assert_eq!(
        std::fs::read(folder.path().join("routes.damaged")).unwrap(),
        bytes
    );
    let (mut stream, hello) = plane.accept().await;
    assert_eq!(hello.have, None);
    stream.send(routes.snapshot()).await;
    stream.ack().await;
    assert_eq!(image(&feed, "a.localhost").as_deref(), Some("a:1"));
    feed.shutdown().await;
}

#[tokio::test]
async fn one_process_per_cache_folder() {
    let folder = tempfile::tempdir().unwrap();
    let feed = start(&[], folder.path()).await;
    let error = feed::start(options(&[], folder.path()), engine_only())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Identity(IdentityError::InUse(_))),
        "{error}"
    );
    feed.shutdown().await;
    start(&[], folder.path()).await.shutdown().await;
}

#[tokio::test]
async fn changes_are_reported_at_once_and_bursts_are_coalesced() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let mut options = options(&[&plane], folder.path());
    // Longer than the test, so each report is caused by a change.
    options.timing.report_interval = Duration::from_secs(3600);
    let source = engine_only();
    let feed = feed::start(options.clone(), source.clone()).await.unwrap();
    let (stream, _) = plane.accept().await;
    stream.send(Routes::default().heartbeat()).await;
    let report = plane.report().await;
    assert_eq!(report.engine, "engine 0");
    assert_eq!(report.node.unwrap().id, feed.node_id());
    assert_eq!(report.boot_id, feed.boot_id());
    // A burst yields one report with the last state.
    for change in 1..=5 {
        source.changes.send_replace(change);
    }
    assert_eq!(plane.report().await.engine, "engine 5");
    // A final report follows at shutdown.
    feed.shutdown().await;
    assert_eq!(plane.report().await.engine, "engine 5");

    options.timing.report_interval = Duration::from_millis(50);
    let feed = feed::start(options, source).await.unwrap();
    let (stream, _) = plane.accept().await;
    stream.send(Routes::default().heartbeat()).await;
    for _ in 0..3 {
        plane.report().await;
    }
    feed.shutdown().await;
}

#[tokio::test]
async fn retained_images_are_complete_or_an_error() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let page = |image: &str, next: &str, cluster: &str| pb::ListRetainedImagesResponse {
        images: vec![pb::RetainedImage {
            image: image.into(),
            version_uid: format!("uid-{image}"),
            ..Default::default()
        }],
        next_page_token: next.into(),
        cluster: cluster.into(),
    };
    let says = |plane: &Plane, pages: Vec<pb::ListRetainedImagesResponse>| {
        *plane.retained.lock().unwrap() = pages;
    };
    let early = start(&[], folder.path()).await;
    let refused = early.retained_images().await.unwrap_err();
    assert!(matches!(refused, RetainedError::NotConnected), "{refused}");
    early.shutdown().await;

    let (feed, _stream) = synced(&mut plane, folder.path(), &Routes::default()).await;
    says(&plane, vec![page("a:1", "1", "c1"), page("b:1", "", "c1")]);
    let all = feed.retained_images().await.unwrap();
    let all: Vec<_> = all
        .iter()
        .map(|one| (&*one.image, &*one.version, one.digest.as_deref()))
        .collect();
    assert_eq!(all, [("a:1", "uid-a:1", None), ("b:1", "uid-b:1", None)]);
    // The second page is missing.
    says(&plane, vec![page("a:1", "1", "c1")]);
    assert!(feed.retained_images().await.is_err());
    says(&plane, vec![page("a:1", "", "another")]);
    let refused = feed.retained_images().await.unwrap_err();
    assert!(matches!(refused, RetainedError::OtherCluster), "{refused}");
    feed.shutdown().await;
}
