//! Scaling in, and instances that stop answering, over a scripted engine.

use std::time::{Duration, Instant};

use cless_data_plane::route::Settings;

use crate::pools::{World, settings};

#[tokio::test]
async fn instances_that_the_load_of_late_did_not_need_go_before_their_idle_timeout() {
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
    // One at a time, without a pause as long as the idle timeout.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        drop(world.admit().await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.engine.names(), [busy.name()], "one is enough");
    assert_eq!(world.engine.starts(), 3);
}

#[tokio::test]
async fn an_instance_that_accepts_no_more_is_looked_at_taken_out_and_replaced() {
    let world = World::new(settings(10, 1));
    let guard = world.admit().await.unwrap();
    let name = guard.instance().name().to_owned();

    // A false alarm: it answers when it is looked at.
    for _ in 0..3 {
        guard.failed();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!guard.instance().retired().is_cancelled());
    guard.answered();

    world.engine.deafen(&name);
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
    guard.instance().retired().cancelled().await;

    let next = world.admit().await.unwrap();
    assert_ne!(next.instance().name(), name, "beside the one that drains");
    let told = world.version().unwrap().last_failure.unwrap().message;
    assert!(told.contains("stopped answering"), "{told}");
    assert!(
        world.engine.names().contains(&name),
        "what is in it may yet be answered"
    );
    drop(guard);
    world
        .until("it is removed", |world| {
            !world.engine.names().contains(&name)
        })
        .await;
}

#[tokio::test]
async fn places_go_to_those_who_wait_in_the_order_in_which_they_came() {
    let world = World::new(Settings {
        idle_timeout: Duration::from_secs(60),
        ..settings(1, 1)
    });
    let held = world.admit().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for caller in 0..20 {
        let (pool, tell) = (world.pool(), tell.clone());
        tokio::spawn(async move {
            // The third of each five goes away before its turn.
            let patience = Duration::from_millis(if caller % 5 == 2 { 1000 } else { 10_000 });
            let place = pool.admit(Instant::now() + patience).await;
            if place.is_ok() {
                let _ = tell.send(caller);
            }
        });
        world
            .until("it waits", |world| world.pool().waiting() > caller)
            .await;
    }
    drop(tell);
    world
        .until("the impatient have left", |world| {
            world.pool().waiting() == 16
        })
        .await;
    drop(held);
    let mut order = Vec::new();
    while let Some(caller) = told.recv().await {
        order.push(caller);
    }
    let patient: Vec<usize> = (0..20).filter(|caller| caller % 5 != 2).collect();
    assert_eq!(order, patient);
}
