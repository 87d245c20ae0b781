//! Control streams: questions for images, and control planes that ask none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cless_data_plane::feed::{self, FeedOptions, ReportSource, Timing};
use cless_data_plane::report::{
    FailureReason, ImageSource, NodeReport, Resolution, ResolvedImage, StartFailure,
};
use cless_proto::v1 as pb;
use tokio::sync::watch;

use super::plane::{Plane, Routes, within};
use super::{options, timing};

/// A node that has `good:1` with a digest.
struct Resolver(watch::Sender<u64>);

#[async_trait::async_trait]
impl ReportSource for Resolver {
    fn report(&self) -> NodeReport {
        NodeReport::default()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    async fn resolve_image(&self, image: &str, _local_only: bool) -> Resolution {
        if image == "slow:1" {
            std::future::pending::<()>().await;
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        match image {
            "good:1" => Ok(ResolvedImage {
                source: ImageSource::LocalCopy,
                id: Some("sha256:id".into()),
                digest: Some("sha256:ab".into()),
                created: Some(now),
                resolved_at: now,
                warning: Some("an old copy".into()),
            }),
            _ => {
                let failure = StartFailure::new(FailureReason::Image, "none".into(), now);
                Err(Box::new(failure))
            }
        }
    }
}

fn resolver() -> Arc<Resolver> {
    Arc::new(Resolver(watch::Sender::new(0)))
}

#[tokio::test]
async fn questions_are_answered_over_the_control_stream() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    *plane.refused_controls.lock().unwrap() = None;
    let feed = feed::start(options(&[&plane], folder.path()), resolver())
        .await
        .unwrap();
    let (stream, _) = plane.accept().await;
    stream
        .send(Routes::default().with("a", "a:1").snapshot())
        .await;
    let (mut control, hello) = plane.accept_control().await;
    assert_eq!(hello.node.unwrap().id, feed.node_id());
    assert_eq!(hello.boot_id, feed.boot_id());

    // A slow answer delays no other.
    control.ask(1, "slow:1").await;
    control.ask(2, "good:1").await;
    let answer = control.answer().await;
    assert_eq!((answer.id, &*answer.image_digest), (2, "sha256:ab"));
    let image = answer.image.unwrap();
    assert_eq!(image.source(), pb::resolved_image::Source::LocalCopy);
    assert_eq!((&*image.id, &*image.warning), ("sha256:id", "an old copy"));
    assert_eq!(image.create_time.unwrap().seconds, 60);
    control.ask(3, "bad:1").await;
    let answer = control.answer().await;
    assert_eq!((answer.id, answer.image), (3, None));
    let failure = answer.failure.unwrap();
    assert_eq!(failure.reason(), pb::start_failure::Reason::Image);

    // A stream that ends is opened again.
    drop(control);
    let (control, _) = plane.accept_control().await;
    control.ask(4, "good:1").await;
    feed.shutdown().await;
}

#[tokio::test]
async fn a_control_plane_that_asks_nothing_is_tried_again_rarely() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let options = FeedOptions {
        timing: Timing {
            control_retry: Duration::from_millis(400),
            ..timing()
        },
        ..options(&[&plane], folder.path())
    };
    let feed = feed::start(options, resolver()).await.unwrap();
    let (stream, _) = plane.accept().await;
    stream
        .send(Routes::default().with("a", "a:1").snapshot())
        .await;
    let refused = plane.refused_controls.clone();
    within("a refused stream", async {
        while *refused.lock().unwrap() == Some(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(*refused.lock().unwrap(), Some(1), "not before its time");
    *refused.lock().unwrap() = None;
    plane.accept_control().await;
    feed.shutdown().await;
}
