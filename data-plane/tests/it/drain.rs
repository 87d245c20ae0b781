//! A drained node: out of readiness, verification and `min_instances`; stored, and reported.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cless_data_plane::route::Settings;
use cless_data_plane::runtime::fake::Fake;
use cless_data_plane::{Options, Running, start_on};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::feed::plane::{Plane, Routes, Stream, within};
use crate::pools::{World, lasting};

async fn node(plane: &Plane, folder: &Path) -> Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut options = Options {
        listen: any,
        admin: any,
        control_planes: vec![plane.uri()],
        node: "one".to_owned(),
        cache_dir: folder.to_owned(),
        drain_timeout: 5,
        ..Options::default()
    };
    options.proxy.workers = 1;
    let node = start_on(options, Arc::new(Fake::default())).await;
    node.expect("the node starts")
}

async fn follow(plane: &mut Plane) -> Stream {
    let (mut stream, _) = plane.accept().await;
    let routes = Routes::default().with("a", "a:1");
    stream.send(routes.snapshot()).await;
    stream.ack().await;
    stream
}

/// The answer of the admin port to `GET /readyz`.
async fn ready(node: &Running) -> String {
    let mut stream = TcpStream::connect(node.admin_addr())
        .await
        .expect("it accepts");
    let request = b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer))
        .await
        .expect("text");
    answer
}

/// Whether a report says that the node is drained.
async fn until_reported(plane: &mut Plane, drained: bool) {
    while plane.report().await.drained != drained {}
}

#[tokio::test]
async fn a_drained_node_is_not_ready_and_stays_so_after_a_restart() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    *plane.refused_controls.lock().unwrap() = None;
    let running = node(&plane, folder.path()).await;
    let _stream = follow(&mut plane).await;
    let (mut control, _) = plane.accept_control().await;
    assert!(ready(&running).await.contains("200 OK"));

    assert_eq!(control.set_drain(1, true).await, "");
    let answer = ready(&running).await;
    assert!(
        answer.contains("503") && answer.contains("drained"),
        "{answer}"
    );
    until_reported(&mut plane, true).await;
    // Repeating it changes nothing.
    assert_eq!(control.set_drain(2, true).await, "");
    running.shutdown().await;

    let running = node(&plane, folder.path()).await;
    let answer = ready(&running).await;
    assert!(
        answer.contains("503") && answer.contains("drained"),
        "{answer}"
    );
    let _stream = follow(&mut plane).await;
    until_reported(&mut plane, true).await;
    let (mut control, _) = plane.accept_control().await;
    assert_eq!(control.set_drain(3, false).await, "");
    assert!(ready(&running).await.contains("200 OK"));
    until_reported(&mut plane, false).await;
    running.shutdown().await;
}

#[tokio::test]
async fn a_state_that_cannot_be_stored_is_refused() {
    let (mut plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    *plane.refused_controls.lock().unwrap() = None;
    let running = node(&plane, folder.path()).await;
    let _stream = follow(&mut plane).await;
    let (mut control, _) = plane.accept_control().await;
    // A folder in the place of the temporary file.
    std::fs::create_dir(folder.path().join("drained.new")).unwrap();
    let failure = control.set_drain(1, true).await;
    assert!(failure.contains("cannot store"), "{failure}");
    assert!(ready(&running).await.contains("200 OK"));
    running.shutdown().await;
}

#[tokio::test]
async fn a_drained_node_keeps_no_minimum_and_serves() {
    let world = World::new(Settings {
        min_instances: 1,
        idle_timeout: Duration::from_millis(200),
        ..lasting(10, 2)
    });
    world.until_left(1).await;
    world.pools.set_drained(true);
    assert!(world.report().drained);
    world.until_left(0).await;
    // A later table starts nothing.
    world.sync();
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.until_left(0).await;
    // A request that reaches it is served.
    drop(world.admit().await.expect("it serves"));
    world.until_left(0).await;
    world.pools.set_drained(false);
    assert!(!world.report().drained);
    world.until_left(1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.until_left(1).await;
}
