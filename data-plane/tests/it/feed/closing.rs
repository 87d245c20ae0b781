//! Reasons to close a stream, and the choice of the next address.

use std::time::Duration;

use cless_data_plane::feed;
use cless_proto::v1 as pb;
use pb::stream_routes_response::Message as ToNode;

use super::plane::{Plane, Routes};
use super::{engine_only, options, start, until};

#[tokio::test]
async fn go_away_is_followed_by_the_next_address() {
    let (mut one, mut two) = (Plane::start().await, Plane::start().await);
    let folder = tempfile::tempdir().unwrap();
    let feed = start(&[&one, &two], folder.path()).await;
    let (first, other) = tokio::select! {
        (stream, _) = one.accept() => (stream, &mut two),
        (stream, _) = two.accept() => (stream, &mut one),
    };
    let retry_after = Some(prost_types::Duration {
        seconds: 0,
        nanos: 1_000_000,
    });
    first
        .send(vec![ToNode::GoAway(pb::GoAway { retry_after })])
        .await;
    other.accept().await;
    first.until_closed().await;
    feed.shutdown().await;
}

#[tokio::test]
async fn an_unanswered_hello_and_silence_close_the_stream() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let mut options = options(&[&plane], folder.path());
    options.timing.first_message = Duration::from_millis(300);
    options.timing.silence = Duration::from_millis(400);
    let feed = feed::start(options, engine_only()).await.unwrap();
    let (unanswered, _) = plane.accept().await;
    unanswered.until_closed().await;
    let (silent, _) = plane.accept().await;
    silent.send(Routes::default().heartbeat()).await;
    until(&feed, "heard", |status| status.connected).await;
    silent.until_closed().await;
    feed.shutdown().await;
}

#[tokio::test]
async fn a_stream_is_closed_at_its_lifetime() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let mut options = options(&[&plane], folder.path());
    options.timing.lifetime = Duration::from_millis(200);
    let feed = feed::start(options, engine_only()).await.unwrap();
    let routes = Routes::default().with("a", "a:1");
    let (mut stream, _) = plane.accept().await;
    stream.send(routes.snapshot()).await;
    stream.ack().await;
    stream.until_closed().await;
    let (_stream, hello) = plane.accept().await;
    assert_eq!(hello.have, Some(routes.cursor()));
    feed.shutdown().await;
}
