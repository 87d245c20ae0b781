//! Scaling in, and instances that stop answering, over a scripted engine.

use std::time::{Duration, Instant};

use cless_data_plane::route::Settings;

use crate::pools::{World, lasting, settings};

#[tokio::test]
async fn instances_beyond_the_recent_load_are_reaped_before_their_idle_timeout() {
    let world = World::new(Settings {
        idle_timeout: Duration::from_secs(2),
        ..settings(1, 3)
    });
    let three = [
        world.admit().await.unwrap(),
        world.admit().await.unwrap(),
        world.admit().await.unwrap(),
    ];
    let busy = three[0].instance().clone();
    drop(three);
    // One request at a time, with gaps shorter than the idle timeout.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        drop(world.admit().await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.engine.names(), [busy.name()], "one is enough");
    assert_eq!(world.engine.starts(), 3);
}

#[tokio::test]
async fn an_unresponsive_instance_is_checked_taken_out_and_replaced() {
    let world = World::new(settings(10, 1));
    let guard = world.admit().await.unwrap();
    let name = guard.instance().name().to_owned();

    // A false alarm: it passes the health check.
    for _ in 0..3 {
        guard.failed();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!guard.instance().retired().is_cancelled());
    guard.answered();

    world.engine.stop_listening(&name);
    guard.failed();
    guard.failed();
    guard.answered();
    guard.failed();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        !guard.instance().retired().is_cancelled(),
        "not three in a row"
    );
    guard.failed();
    guard.failed();
    world.until_retired(&guard).await;

    let next = world.admit().await.unwrap();
    assert_ne!(next.instance().name(), name, "beside the one that drains");
    world.failed_with("stopped answering");
    assert!(world.has(&name), "its requests may still be answered");
    drop(guard);
    world.until_gone(&name).await;
}

#[tokio::test]
async fn slots_go_to_waiters_in_the_order_of_their_arrival() {
    let world = World::new(lasting(1, 1));
    let held = world.admit().await.unwrap();
    let (admitted, mut order_of) = tokio::sync::mpsc::unbounded_channel();
    for caller in 0..20 {
        let (pool, admitted) = (world.pool(), admitted.clone());
        tokio::spawn(async move {
            // The third of each five leaves before its turn.
            let timeout = Duration::from_millis(if caller % 5 == 2 { 1000 } else { 10_000 });
            let guard = pool.admit(Instant::now() + timeout, || None).await;
            if guard.is_ok() {
                let _ = admitted.send(caller);
            }
        });
        world
            .until("the request waits", |world| world.pool().waiting() > caller)
            .await;
    }
    drop(admitted);
    world.until_waiting(16).await;
    drop(held);
    let mut order = Vec::new();
    while let Some(caller) = order_of.recv().await {
        order.push(caller);
    }
    let expected: Vec<usize> = (0..20).filter(|caller| caller % 5 != 2).collect();
    assert_eq!(order, expected);
}
